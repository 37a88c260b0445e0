"""Subscriptions: sagas with Stripe, and what Stripe tells in whatever order."""

import itertools
from typing import Any

import msgspec
import pytest

from commands.billing import invoice, subscription
from commands.billing.account_state import Account
from commands.billing.invoice import Invoice, RecordStripeInvoice
from commands.billing.subscription import ATTEMPTS_MAX, RESUME_AFTER_MICROS
from commands.billing.subscription_state import (
    ChangePending,
    RecordStripeSubscription,
    RequestCancellation,
    RequestPlanChange,
    RequestSubscription,
    ResumeSubscriptionChange,
    SubscriptionEnded,
    SubscriptionExists,
    WithdrawSubscriptionChange,
)
from commands.decider import Claim, ClearTimer, Emit, Ref, Release, SetTimer
from commands.refusals import ActorForbidden, NotFound
from schemas.billing.account import PlanAssigned
from schemas.billing.subscription import (
    ChangeKind,
    InvoiceChanged,
    StripeInvoice,
    StripeSubscription,
    SubscriptionChanged,
    SubscriptionChangeDue,
    SubscriptionChangeRequested,
    SubscriptionChangeWithdrawn,
)
from schemas.envelope import SYSTEM
from tests.given import NOW, Given

ACCOUNT = Ref("billing.account", "account")
KNOWN = StripeSubscription(
    stripe_id="sub_stripe", customer_id="cus_1", change_id="cmd_1", plan_code="pro",
    status="active", current_period_end=NOW, cancel_at_period_end=False, version=10, source="evt",
)  # fmt: skip
REQUESTED = SubscriptionChangeRequested(
    change_id="cmd_1", kind="create", plan_code="pro", requested_at=NOW
)
CHANGED = SubscriptionChanged(subscription=KNOWN, completes="cmd_1")
PRO = Emit("billing.account", "account", PlanAssigned(plan_code="pro", subscription_id="sub_1"))
PAYG = Emit("billing.account", "account", PlanAssigned(plan_code="payg"))
ON_PRO = Account(plan_code="pro", subscription_id="sub_1")


def a_subscription(*events: Any, account: Account | None = None) -> Given:
    states = {ACCOUNT: account or Account()}
    return Given(subscription.DECIDER, *events, id="sub_1", actor=SYSTEM, states=states)


def told(**changes: Any) -> RecordStripeSubscription:
    return RecordStripeSubscription(msgspec.structs.replace(KNOWN, **changes))


def requested(kind: ChangeKind, plan_code: str = "pro") -> SubscriptionChangeRequested:
    return SubscriptionChangeRequested(
        change_id="cmd_1", kind=kind, plan_code=plan_code, customer_id="cus_1",
        stripe_id="sub_stripe", requested_at=NOW,
    )  # fmt: skip


def test_the_intent_comes_first_and_once() -> None:
    given = a_subscription().when(RequestSubscription("pro")).then(REQUESTED)
    given.when(RequestSubscription("pro")).then_quiet()
    a_subscription(REQUESTED, CHANGED).when(RequestSubscription("pro")).then_quiet()


def test_a_tenant_has_one_live_subscription() -> None:
    found = {("billing.subscription", "live"): "sub_0"}
    given = Given(subscription.DECIDER, id="sub_1", found=found)
    given.when(RequestSubscription("pro")).then_refused(SubscriptionExists)
    claims = subscription.DECIDER.claims
    live = ("billing.subscription", "live")
    assert claims(REQUESTED, "sub_1") == [Claim(*live)]
    assert claims(requested("cancel"), "sub_1") == claims(CHANGED, "sub_1") == ()
    ended = SubscriptionChanged(subscription=msgspec.structs.replace(KNOWN, status="canceled"))
    assert claims(ended, "sub_1") == [Release(*live)]
    for kind, expected in (("create", [Release(*live)]), ("cancel", ())):
        withdrawn = SubscriptionChangeWithdrawn(change_id="c", kind=kind, reason="r")  # type: ignore[arg-type]
        assert claims(withdrawn, "sub_1") == expected


def test_stripe_s_answer_completes_the_change_and_the_plan_holds() -> None:
    a_subscription(REQUESTED).when(RecordStripeSubscription(KNOWN)).then(CHANGED, PRO)
    unpaid = msgspec.structs.replace(KNOWN, status="incomplete")
    completed = SubscriptionChanged(subscription=unpaid, completes="cmd_1")
    a_subscription(REQUESTED).when(RecordStripeSubscription(unpaid)).then(completed)


def test_a_subscription_that_is_paid_no_more_gives_its_plan_back() -> None:
    for status in ("unpaid", "canceled"):
        command = told(status=status, version=11)
        expected = SubscriptionChanged(subscription=command.subscription)
        a_subscription(REQUESTED, CHANGED, account=ON_PRO).when(command).then(expected, PAYG)
    late = told(status="past_due", version=11)
    expected = SubscriptionChanged(subscription=late.subscription)
    a_subscription(REQUESTED, CHANGED, account=ON_PRO).when(late).then(expected)


def test_a_change_of_plan_and_a_cancellation_are_asked_for_once_at_a_time() -> None:
    given = a_subscription(REQUESTED, CHANGED, account=ON_PRO)
    given.when(RequestPlanChange("pro")).then_quiet()
    given.when(RequestPlanChange("scale")).then(requested("change_plan", "scale"))
    given.when(RequestCancellation(True)).then_refused(ChangePending)
    unrelated = told(version=11)
    given.when(unrelated).then(SubscriptionChanged(subscription=unrelated.subscription))
    done = told(version=11, plan_code="scale", source="")
    scale = PlanAssigned(plan_code="scale", subscription_id="sub_1")
    given.when(done).then(
        SubscriptionChanged(subscription=done.subscription, completes="cmd_1"),
        Emit("billing.account", "account", scale),
    )
    given.when(RequestCancellation(True)).then(requested("cancel", "scale"))
    ends = told(version=12, plan_code="scale", cancel_at_period_end=True)
    expected = SubscriptionChanged(subscription=ends.subscription, completes="cmd_1")
    given.states[ACCOUNT] = Account(plan_code="scale", subscription_id="sub_1")
    given.when(ends).then(expected).when(RequestCancellation(True)).then_quiet()
    given.when(RequestCancellation(False)).then(requested("cancel_now", "scale"))


def test_what_has_ended_or_never_was_does_not_change() -> None:
    ended = SubscriptionChanged(subscription=msgspec.structs.replace(KNOWN, status="canceled"))
    for command in (RequestPlanChange("scale"), RequestCancellation(True)):
        a_subscription(REQUESTED, CHANGED, ended).when(command).then_refused(SubscriptionEnded)
        a_subscription().when(command).then_refused(NotFound)


def test_a_withdrawn_change_leaves_what_was_known() -> None:
    withdrawn = SubscriptionChangeWithdrawn(change_id="cmd_1", kind="change_plan", reason="away")
    given = a_subscription(REQUESTED, CHANGED, requested("change_plan", "scale"))
    command = WithdrawSubscriptionChange("cmd_1", "away")
    given.when(command).then(withdrawn).when(command).then_quiet()
    assert given.state.known == KNOWN
    given.when(WithdrawSubscriptionChange("cmd_other", "away")).then_quiet()


def test_an_unfinished_change_comes_due_at_longer_and_longer_times_and_is_given_up() -> None:
    timers = subscription.DECIDER.timers
    resume = ResumeSubscriptionChange("cmd_1")
    assert timers(REQUESTED, "sub_1") == [SetTimer("resume", NOW + RESUME_AFTER_MICROS, resume)]
    given = a_subscription(REQUESTED).when(resume)
    pauses = []
    for attempt in range(ATTEMPTS_MAX):
        [due] = given.decided()
        assert isinstance(due, SubscriptionChangeDue)
        assert due.attempt == attempt + 1
        pauses.append(due.next_at - NOW)
        assert timers(due, "sub_1") == [SetTimer("resume", due.next_at, resume)]
        given.then(due)
    assert pauses == sorted(pauses)
    # Stripe knows an idempotency key for 24 hours.
    assert sum(pauses) < 24 * 3_600_000_000
    gone = SubscriptionChangeWithdrawn(
        change_id="cmd_1", kind="create", reason="stripe_unavailable"
    )
    given.then(gone).then_quiet()
    assert timers(gone, "sub_1") == timers(CHANGED, "sub_1") == [ClearTimer("resume")]


def test_a_subscription_that_nobody_asked_for_any_more_is_cancelled() -> None:
    withdrawn = SubscriptionChangeWithdrawn(change_id="cmd_1", kind="create", reason="away")
    due = SubscriptionChangeDue(
        change_id="cmd_1.abandoned", kind="cancel_now", plan_code="pro", customer_id="cus_1",
        stripe_id="sub_stripe", attempt=0, next_at=NOW,
    )  # fmt: skip
    for history in ([REQUESTED, withdrawn], []):
        a_subscription(*history).when(RecordStripeSubscription(KNOWN)).then(due)
        a_subscription(*history).when(told(status="canceled")).then_quiet()
    assert subscription.DECIDER.timers(due, "sub_1") == ()
    other = msgspec.structs.replace(due, stripe_id="sub_other")
    a_subscription(REQUESTED, CHANGED).when(told(stripe_id="sub_other", version=99)).then(other)


def test_only_stripe_tells() -> None:
    given = Given(subscription.DECIDER, REQUESTED, id="sub_1", states={ACCOUNT: Account()})
    given.when(RecordStripeSubscription(KNOWN)).then_refused(ActorForbidden)
    Given(invoice.DECIDER, id="in_1").when(RecordStripeInvoice(BILL)).then_refused(ActorForbidden)


HISTORY = [
    {"status": "incomplete", "version": 1, "source": "evt_1"},
    {"status": "active", "version": 2, "source": "evt_2"},
    {"status": "active", "plan_code": "scale", "version": 3, "source": "evt_3"},
    {"status": "canceled", "plan_code": "scale", "version": 3, "source": "evt_4"},
]


@pytest.mark.parametrize("upto", [2, 3, 4])
def test_the_newest_version_stands_in_whatever_order_and_number_they_come(upto: int) -> None:
    for order in itertools.permutations([*HISTORY[:upto], HISTORY[0], HISTORY[upto - 1]][:5]):
        given = a_subscription(REQUESTED)
        for version in order:
            for event in given.when(told(**version)).decided():
                if not isinstance(event, Emit):
                    given.state = subscription.evolve(given.state, event)
        assert given.state.known == told(**HISTORY[upto - 1]).subscription
        assert given.state.pending is None


BILL = StripeInvoice(
    invoice_id="in_1", number="W-1", customer_id="cus_1", subscription_id="sub_1", status="open",
    currency="usd", amount_due_minor=5, amount_paid_minor=0, period_start=1, period_end=2,
    created=1, version=1, source="evt_1",
)  # fmt: skip


def test_of_an_invoice_the_newest_version_stands() -> None:
    paid = msgspec.structs.replace(BILL, status="paid", version=1, source="evt_0")
    given = Given(invoice.DECIDER, id="in_1", actor=SYSTEM)
    given.when(RecordStripeInvoice(BILL)).then(InvoiceChanged(invoice=BILL)).then_quiet()
    given.when(RecordStripeInvoice(paid)).then(InvoiceChanged(invoice=paid)).then_quiet()
    given.when(RecordStripeInvoice(BILL)).then_quiet()
    assert given.state == Invoice(1, 4, "evt_0")
