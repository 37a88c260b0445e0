"""Subscriptions and invoices: Stripe's real client against a local server that speaks its API."""

import itertools
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from msgspec import Struct

from api.billing import ROUTES
from commands.billing.subscription_state import RequestSubscription, ResumeSubscriptionChange
from infra.clock import ManualClock
from infra.ids import new_id
from infra.stripe import Stripe
from projections.billing import VIEWS
from schemas.billing.account import PlanAssigned
from schemas.billing.subscription import (
    InvoiceChanged,
    SubscriptionChanged,
    SubscriptionChangeDue,
    SubscriptionChangeRequested,
    SubscriptionChangeWithdrawn,
)
from schemas.envelope import SYSTEM
from streams.billing.subscription_changes import SubscriptionChanges, carry_out
from streams.bus import CommandRequest
from streams.runtime import codec
from tests.api.harness import OTHER_TENANT, TENANT, Harness
from tests.api.view_rows import ViewRows
from tests.stripe_server import (
    API_KEY,
    WEBHOOK_SECRET,
    StripeServer,
    invoice,
    signature,
    stripe_server,
)

SUBSCRIPTIONS = "/api/v1/billing/subscriptions"
WEBHOOK = "/api/v1/billing/stripe_webhook"
INVOICES = "/api/v1/billing/invoices"


class Billing:
    """The API with real deciders and views in memory, on a Stripe of its own."""

    def __init__(self, stripe: StripeServer, **changes: Any) -> None:
        self.stripe, self.handled = stripe, 0
        self.rows = ViewRows(VIEWS)
        settings = {
            "stripe_api_key": API_KEY,
            "stripe_webhook_secret": WEBHOOK_SECRET,
            "stripe_api_base": stripe.url,
            **changes,
        }
        self.app = Harness(ROUTES, apply=self.rows.apply, changes=settings, clock=ManualClock())
        self.headers = self.app.key(roles=("billing",))
        table, where = self.rows.rows, self.rows.where
        reads = self.app.reads
        reads.when("FROM subscriptions", where("subscriptions", "tenant", "subscription_id"))
        reads.when("ORDER BY created_at DESC, subscription_id", lambda tenant, *_: self._page(
            table["subscriptions"], tenant))  # fmt: skip
        reads.when("SELECT customer_id", lambda tenant: self._page(
            table["subscriptions"], tenant)[:1])  # fmt: skip
        reads.when("SELECT tenant FROM", where("subscriptions", "customer_id"))
        reads.when("FROM invoices", where("invoices", "tenant", "invoice_id"))
        reads.when("ORDER BY created_at DESC, invoice_id", lambda tenant, *_: self._page(
            table["invoices"], tenant))  # fmt: skip

    @staticmethod
    def _page(rows: dict[Any, dict[str, Any]], tenant: str) -> list[dict[str, Any]]:
        found = [row for row in rows.values() if row["tenant"] == tenant]
        return sorted(found, key=lambda row: row["created_at"], reverse=True)

    async def __aenter__(self) -> "Billing":
        await self.app.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.app.__aexit__()

    async def send(
        self, method: str, path: str, body: Any = None, headers: Any = None, **named: str
    ) -> httpx.Response:
        return await self.app.client.request(
            method, path, json=body, headers={**(headers or self.headers), **named}
        )

    async def subscribe(self, plan: str = "pro", key: str = "k") -> httpx.Response:
        return await self.send("POST", SUBSCRIPTIONS, {"plan": plan}, **{"Idempotency-Key": key})

    async def tell(self, kind: str, content: dict[str, Any], **named: Any) -> httpx.Response:
        payload, headers = self.stripe.event(kind, content, **named)
        return await self.app.client.post(WEBHOOK, content=payload, headers=headers)

    async def paid(self) -> dict[str, Any]:
        """The subscription at Stripe, paid, which Stripe has told."""
        held = next(iter(self.stripe.subscriptions.values()))
        held["status"] = "active"
        answer = await self.tell("customer.subscription.updated", held)
        assert answer.json() == {"received": True, "handled": True}
        return held

    async def listed(self) -> list[dict[str, Any]]:
        return list((await self.send("GET", SUBSCRIPTIONS)).json()["data"])

    async def command(self, command: Struct) -> None:
        """Send a command of the subscription `sub_1`."""
        request = CommandRequest(
            tenant=TENANT,
            stream_id="sub_1",
            command=command,
            actor=SYSTEM,
            command_id=new_id("cmd"),
        )
        assert (await self.app.bus.send(request)).status == "accepted"

    def plans(self) -> list[str]:
        """The plans that held, in order."""
        return [event.plan_code for event in self.app.bus.emitted(PlanAssigned)]


@pytest.fixture
def stripe() -> Iterator[StripeServer]:
    with stripe_server() as server:
        yield server


async def test_a_plan_is_subscribed_to_paid_changed_and_cancelled(stripe: StripeServer) -> None:
    async with Billing(stripe) as billing:
        made = await billing.subscribe()
        assert made.status_code == 201, made.text
        found = made.json()
        assert (found["plan"], found["status"]) == ("pro", "incomplete")
        assert found["payment_url"].startswith(stripe.url)
        # It holds when it is paid, not before.
        assert billing.plans() == []
        await billing.paid()
        assert billing.plans() == ["pro"]
        path = f"{SUBSCRIPTIONS}/{found['subscription_id']}"

        changed = await billing.send("PATCH", path, {"plan": "scale"})
        assert (changed.json()["plan"], changed.json()["change"]) == ("scale", None)
        assert billing.plans() == ["pro", "scale"]

        cancelled = (await billing.send("DELETE", path)).json()
        assert (cancelled["status"], cancelled["cancel_at_period_end"]) == ("active", True)
        ended = (await billing.send("DELETE", f"{path}?at_period_end=false")).json()
        assert ended["status"] == "canceled"
        assert billing.plans() == ["pro", "scale", "payg"]
        refused = await billing.send("PATCH", path, {"plan": "pro"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "subscription_ended")
        # The next one is the same customer's.
        await billing.subscribe("starter", key="another")
        assert len(stripe.customers) == 1
        assert {item["plan"] for item in await billing.listed()} == {"starter", "scale"}


async def test_the_same_key_is_the_same_subscription_and_another_is_refused(
    stripe: StripeServer,
) -> None:
    async with Billing(stripe) as billing:
        first, again = await billing.subscribe(), await billing.subscribe()
        assert first.json() == again.json()
        other = await billing.subscribe(key="other")
        assert (other.status_code, other.json()["error"]["code"]) == (409, "subscription_exists")
        assert len(stripe.subscriptions) == 1


async def test_when_stripe_is_away_nothing_is_half_done(stripe: StripeServer) -> None:
    async with Billing(stripe) as billing:
        stripe.fault = "away"
        refused = await billing.subscribe()
        assert refused.status_code == 502
        assert refused.json()["error"]["code"] == "upstream_unavailable"
        assert [item["status"] for item in await billing.listed()] == ["withdrawn"]
        assert (stripe.subscriptions, billing.plans()) == ({}, [])
        # A repeat with the same key is tried anew.
        assert (await billing.subscribe()).status_code == 502
        stripe.fault = ""
        assert (await billing.subscribe()).status_code == 201
        await billing.paid()
        assert len(stripe.subscriptions) == 1
        [item] = await billing.listed()
        path = f"{SUBSCRIPTIONS}/{item['subscription_id']}"

        stripe.fault = "away"
        for method, body in (("PATCH", {"plan": "scale"}), ("DELETE", None)):
            assert (await billing.send(method, path, body)).status_code == 502
        [after] = await billing.listed()
        assert (after["plan"], after["status"], after["change"]) == ("pro", "active", None)
        assert billing.plans() == ["pro"]


async def test_what_stripe_did_although_its_answer_was_lost_is_cancelled(
    stripe: StripeServer,
) -> None:
    async with Billing(stripe) as billing:
        stripe.fault = "answer_lost"
        assert (await billing.subscribe()).status_code == 502
        assert len(stripe.subscriptions) == 0, "the customer's answer was lost first"
        customer, stripe.fault = next(iter(stripe.customers)), ""
        assert (await billing.subscribe()).status_code == 201
        # One that belongs to the change that was withdrawn.
        held = next(iter(stripe.subscriptions.values()))
        withdrawn = billing.app.bus.emitted(SubscriptionChangeWithdrawn)[0].change_id
        lost = {
            **held,
            "id": "sub_lost",
            "customer": customer,
            "metadata": {**held["metadata"], "weir_change": withdrawn},
        }
        stripe.subscriptions["sub_lost"] = lost
        await billing.tell("customer.subscription.created", lost)
        assert await resumed(billing) == 1
        assert stripe.subscriptions["sub_lost"]["status"] == "canceled"
        assert held["status"] == "incomplete"
        await billing.tell("customer.subscription.deleted", stripe.subscriptions["sub_lost"])
        assert await resumed(billing) == 0


async def resumed(billing: Billing) -> int:
    """What came due is carried out as the role `streams` does; how many that were."""
    changes = SubscriptionChanges(
        bootstrap="none",
        codec=codec(),
        bus=billing.app.bus,
        stripe=Stripe(billing.app.services.settings),
    )
    recorded = billing.app.bus.events
    begin, billing.handled = billing.handled, len(recorded)
    due = [item for item in recorded[begin:] if isinstance(item.event, SubscriptionChangeDue)]
    for item in due:
        await changes.handle(item.envelope, item.event)
    return len(due)


async def come_due(billing: Billing) -> None:
    """The timer of the pending change fires."""
    requested = billing.app.bus.emitted(SubscriptionChangeRequested)[-1]
    await billing.command(ResumeSubscriptionChange(requested.change_id))


@pytest.mark.parametrize("did_ask", [False, True])
async def test_a_change_whose_api_died_in_between_is_carried_out_once(
    stripe: StripeServer, did_ask: bool
) -> None:
    async with Billing(stripe) as billing:
        await billing.command(RequestSubscription("pro"))
        [change] = billing.app.bus.emitted(SubscriptionChangeRequested)
        if did_ask:
            await carry_out(billing.app.services.stripe, TENANT, "sub_1", change)
        [item] = await billing.listed()
        assert (item["status"], item["change"]["kind"]) == ("pending", "create")
        stripe.fault = "away"
        await come_due(billing)
        assert await resumed(billing) == 1
        assert (await billing.listed())[0]["status"] == "pending"
        stripe.fault = ""
        await come_due(billing)
        assert await resumed(billing) == 1
        [item] = await billing.listed()
        assert (item["status"], item["change"]) == ("incomplete", None)
        assert len(stripe.subscriptions) == len(stripe.customers) == 1
        await come_due(billing)
        assert await resumed(billing) == 0


async def test_a_webhook_completes_a_change_as_well_as_the_answer(stripe: StripeServer) -> None:
    async with Billing(stripe) as billing:
        await billing.subscribe()
        held = await billing.paid()
        assert billing.plans() == ["pro"]
        again = await billing.tell("customer.subscription.updated", held, id="evt_again")
        assert again.json()["handled"]
        before = len(billing.app.bus.events)
        await billing.tell("customer.subscription.updated", held, id="evt_again")
        assert len(billing.app.bus.events) == before


async def test_events_in_any_order_and_number_come_to_the_same(stripe: StripeServer) -> None:
    told = [("incomplete", 3_000_000_001), ("active", 3_000_000_002), ("canceled", 3_000_000_003)]
    outcomes = set()
    for order in sorted(set(itertools.permutations([*told, told[1]]))):
        async with Billing(stripe) as billing:
            await billing.subscribe(key=str(order))
            held = list(stripe.subscriptions.values())[-1]
            for status, created in order:
                content = {**held, "status": status}
                id = f"evt_{created}"
                await billing.tell("customer.subscription.x", content, created=created, id=id)
                paid = invoice(held, "paid" if status == "active" else "open")
                await billing.tell("invoice.x", paid, created=created, id=f"{id}i")
            [item] = await billing.listed()
            [bill] = (await billing.send("GET", INVOICES)).json()["data"]
            plan = billing.app.bus.state(TENANT, "billing.account", "account").plan_code
            outcomes.add((item["status"], bill["status"], bill["amount_paid_minor"], plan))
    assert outcomes == {("canceled", "open", 0, "payg")}


async def test_invoices_are_listed_and_shown_to_their_tenant_alone(stripe: StripeServer) -> None:
    async with Billing(stripe) as billing:
        await billing.subscribe()
        held = await billing.paid()
        await billing.tell("invoice.finalized", invoice(held, "open"), created=1)
        await billing.tell("invoice.paid", invoice(held, "paid"), created=2)
        await billing.tell("invoice.finalized", invoice(held, "open"), created=1, id="evt_late")
        [item] = (await billing.send("GET", INVOICES)).json()["data"]
        assert (item["status"], item["amount_paid_minor"], item["currency"]) == (
            "paid",
            19_900,
            "usd",
        )
        path = f"{INVOICES}/{item['invoice_id']}"
        assert (await billing.send("GET", path)).json() == item
        others = billing.app.key(OTHER_TENANT, roles=("billing",))
        assert (await billing.send("GET", path, headers=others)).status_code == 404
        assert len(billing.app.bus.emitted(InvoiceChanged)) == 2


async def test_only_what_stripe_has_signed_is_heard(stripe: StripeServer) -> None:
    async with Billing(stripe) as billing:
        await billing.subscribe()
        held = next(iter(stripe.subscriptions.values()))
        payload, headers = stripe.event("customer.subscription.updated", held)
        before = len(billing.app.bus.events)
        for wrong in (
            {},
            {"Stripe-Signature": "nonsense"},
            {"Stripe-Signature": signature(payload, "whsec_other")},
            {"Stripe-Signature": signature(payload, at=1)},
            {"Stripe-Signature": signature(payload + b" ")},
        ):
            answer = await billing.app.client.post(WEBHOOK, content=payload, headers=wrong)
            assert (answer.status_code, answer.json()["error"]["code"]) == (
                400,
                "invalid_signature",
            )
        assert len(billing.app.bus.events) == before
        answer = await billing.app.client.post(WEBHOOK, content=payload, headers=headers)
        assert answer.json()["handled"]


async def test_what_does_not_concern_us_is_accepted_and_ignored(stripe: StripeServer) -> None:
    async with Billing(stripe) as billing:
        await billing.subscribe()
        held = {**next(iter(stripe.subscriptions.values())), "metadata": {}}
        before = len(billing.app.bus.events)
        for kind, content in (
            ("charge.refunded", {"id": "ch_1", "object": "charge"}),
            ("invoice.upcoming", {"object": "invoice"}),
            ("customer.subscription.updated", held),  # made at Stripe by hand
        ):
            answer = await billing.tell(kind, content)
            assert (answer.status_code, answer.json()["handled"]) == (200, False), kind
        assert len(billing.app.bus.events) == before
        # An invoice without a mark of ours is its customer's.
        bill = {**invoice(held, "open"), "parent": None}
        assert (await billing.tell("invoice.finalized", bill)).json()["handled"]


async def test_content_that_is_not_stripes_is_refused(stripe: StripeServer) -> None:
    async with Billing(stripe) as billing:
        answer = await billing.tell("customer.subscription.updated", {"object": "subscription"})
        assert answer.status_code == 400


async def test_without_a_key_the_endpoints_say_what_is_missing(stripe: StripeServer) -> None:
    async with Billing(stripe, stripe_api_key="", stripe_webhook_secret="") as billing:
        answer = await billing.subscribe()
        assert answer.status_code == 503
        assert "STRIPE_API_KEY" in answer.json()["error"]["message"]
        answer = await billing.tell("invoice.paid", {})
        assert "STRIPE_WEBHOOK_SECRET" in answer.json()["error"]["message"]
        assert await billing.listed() == []


async def test_the_answers_and_the_log_hold_no_secret(stripe: StripeServer) -> None:
    async with Billing(stripe) as billing:
        await billing.subscribe()
        await billing.paid()
        recorded = repr(billing.app.bus.payloads())
        assert SubscriptionChanged.__name__ in recorded
        for secret in (API_KEY, WEBHOOK_SECRET, f"{stripe.url}/pay"):
            assert secret not in recorded
