"""From usage to an invoice by Stripe's real client: crashes, lost answers, repeats between."""

from collections.abc import Iterator
from typing import Any

import pytest

from commands.billing import account, usage_bill
from commands.billing.account_state import Account, CloseUsagePeriod, evolve
from commands.billing.charges import NANODOLLARS_PER_CENT, charge
from commands.billing.usage_bill import (
    IssueUsageBill,
    RecordUsageBilled,
    ResumeUsageBill,
    usage_bill_id,
)
from commands.refusals import ActorForbidden
from infra.ids import new_id
from infra.stripe import Stripe
from schemas.billing.account import UsagePeriodClosed
from schemas.billing.usage_bill import UsageBillDue, UsageBilled
from schemas.billing.window import window_of
from schemas.envelope import SYSTEM, Envelope
from streams.billing.usage_bills import UsageBills
from streams.bus import CommandRequest
from streams.runtime import codec
from tests.api.billing.test_subscriptions import INVOICES, Billing
from tests.api.harness import OTHER_TENANT, TENANT
from tests.given import NOW, Given
from tests.stripe_server import StripeServer, stripe_server

MONTH = window_of("month", NOW)
STEPS = ("/v1/customers", "/v1/invoices", "/v1/invoiceitems", "/finalize")


@pytest.fixture
def stripe() -> Iterator[StripeServer]:
    with stripe_server() as server:
        yield server


def month_closed() -> UsagePeriodClosed:
    """What three charges come to when their month is over."""
    state = Account()
    for number in range(3):
        for event in charge(state, f"job_{number}", 41 * NANODOLLARS_PER_CENT + 5, "v", NOW):
            state = evolve(state, event)
    given = Given(account.DECIDER, actor=SYSTEM, now=MONTH.end)
    given.state = state
    [closed] = given.when(CloseUsagePeriod(MONTH.start)).decided()
    assert isinstance(closed, UsagePeriodClosed)
    assert (closed.amount_minor, closed.carried_out) == (123, 15)
    return closed


class Month:
    """A tenant's closed month on its way to Stripe."""

    def __init__(self, billing: Billing, tenant: str = TENANT) -> None:
        self.billing, self.tenant, self._handled = billing, tenant, 0
        self.envelope = Envelope(
            new_id("evt"), "t", tenant, "billing.account/account", 1, 1, SYSTEM
        )

    async def close(self) -> None:
        """The month's end reaches the process manager."""
        await self._handle(self.envelope, month_closed())

    async def come_due(self) -> None:
        """The bill's timer fires."""
        request = CommandRequest(
            tenant=self.tenant,
            stream_id=usage_bill_id(MONTH.start),
            command=ResumeUsageBill(),
            actor=SYSTEM,
            command_id=new_id("cmd"),
        )
        assert (await self.billing.app.bus.send(request)).status == "accepted"

    async def carry_out(self, times: int = 1) -> int:
        """Put what came due to Stripe, each that often; how many bills that were."""
        recorded = self.billing.app.bus.events
        begin, self._handled = self._handled, len(recorded)
        due = [item for item in recorded[begin:] if isinstance(item.event, UsageBillDue)]
        for item in due:
            for _ in range(times):
                await self._handle(item.envelope, item.event)
        return len(due)

    async def _handle(self, envelope: Envelope, event: Any) -> None:
        # Another process each time: nothing is known but what is on the log and at Stripe.
        bills = UsageBills(
            bootstrap="none",
            codec=codec(),
            bus=self.billing.app.bus,
            stripe=Stripe(self.billing.app.services.settings),
        )
        await bills.handle(envelope, event)


def billed(stripe: StripeServer) -> list[tuple[str, int, int]]:
    """Status, amount and number of lines of every invoice at Stripe."""
    return [
        (invoice["status"], invoice["amount_due"], len(invoice["lines"]["data"]))
        for invoice in stripe.invoices.values()
    ]


async def test_a_months_usage_is_on_one_invoice_which_its_tenant_sees(stripe: StripeServer) -> None:
    async with Billing(stripe) as billing:
        month = Month(billing)
        for _ in range(2):
            await month.close()
        assert await month.carry_out(times=2) == 1
        assert billed(stripe) == [("open", 123, 1)]
        [done] = billing.app.bus.emitted(UsageBilled)
        assert done == UsageBilled(invoice_id="in_usage1", customer_id="cus_1")
        await month.come_due()
        assert await month.carry_out() == 0
        # Stripe tells of it like of every invoice; the mark on it says whose it is.
        told = await billing.tell("invoice.finalized", stripe.invoices["in_usage1"])
        assert told.json()["handled"]
        [item] = (await billing.send("GET", INVOICES)).json()["data"]
        assert (item["invoice_id"], item["amount_due_minor"], item["status"]) == (
            "in_usage1",
            123,
            "open",
        )
        others = billing.app.key(OTHER_TENANT, roles=("billing",))
        assert (await billing.send("GET", INVOICES, headers=others)).json()["data"] == []


@pytest.mark.parametrize("forgotten", [False, True], ids=["within a day", "after a day"])
@pytest.mark.parametrize("step", STEPS)
async def test_an_answer_lost_at_any_step_leaves_one_invoice(
    stripe: StripeServer, step: str, forgotten: bool
) -> None:
    async with Billing(stripe) as billing:
        month = Month(billing)
        stripe.lost_at = step
        await month.close()
        assert await month.carry_out() == 1
        assert billing.app.bus.emitted(UsageBilled) == []
        stripe.lost_at = ""
        if forgotten:
            stripe.forget_keys()
        await month.come_due()
        assert await month.carry_out() == 1
        assert billed(stripe) == [("open", 123, 1)]
        assert len(billing.app.bus.emitted(UsageBilled)) == len(stripe.customers) == 1


async def test_a_crash_before_the_invoice_is_on_the_log_bills_nothing_twice(
    stripe: StripeServer,
) -> None:
    async with Billing(stripe) as billing:
        month = Month(billing)
        await month.close()
        # Everything is done at Stripe; the process dies before it says so.
        asked = Stripe(billing.app.services.settings)
        for _ in range(2):
            found = await asked.bill_usage(
                tenant=TENANT,
                month=usage_bill_id(MONTH.start),
                period_start=MONTH.start,
                period_end=MONTH.end,
                amount_minor=123,
            )
            stripe.forget_keys()
        assert await month.carry_out() == 1
        assert billed(stripe) == [("open", 123, 1)]
        assert billing.app.bus.emitted(UsageBilled)[0].invoice_id == found.invoice_id


async def test_while_stripe_is_away_the_bill_stays_due(stripe: StripeServer) -> None:
    async with Billing(stripe) as billing:
        month = Month(billing)
        stripe.fault = "away"
        await month.close()
        for attempt in range(15):
            assert await month.carry_out() == 1
            due = billing.app.bus.emitted(UsageBillDue)[-1]
            assert due.attempt == attempt
            assert 0 < due.next_at - billing.app.clock.now() <= 24 * 3_600 * 1_000_000
            await month.come_due()
        assert stripe.invoices == {}
        stripe.fault = ""
        await month.carry_out()
        assert billed(stripe) == [("open", 123, 1)]


async def test_tenants_have_invoices_of_their_own_and_a_subscribers_is_its_customers(
    stripe: StripeServer,
) -> None:
    async with Billing(stripe) as billing:
        await billing.subscribe()
        for tenant in (TENANT, OTHER_TENANT):
            month = Month(billing, tenant)
            await month.close()
            await month.carry_out()
        assert billed(stripe) == [("open", 123, 1)] * 2
        customers = {
            invoice["metadata"]["weir_tenant"]: invoice["customer"]
            for invoice in stripe.invoices.values()
        }
        [held] = stripe.subscriptions.values()
        assert customers == {TENANT: held["customer"], OTHER_TENANT: "cus_2"}


async def test_an_installation_without_a_key_bills_nobody(stripe: StripeServer) -> None:
    async with Billing(stripe, stripe_api_key="") as billing:
        month = Month(billing)
        await month.close()
        assert await month.carry_out() == 0
        assert stripe.requests == []


def test_only_the_system_issues_bills() -> None:
    for command in (
        IssueUsageBill(period_start=1, period_end=2, amount_minor=1),
        RecordUsageBilled(invoice_id="in_1", customer_id="cus_1"),
    ):
        Given(usage_bill.DECIDER).when(command).then_refused(ActorForbidden)
