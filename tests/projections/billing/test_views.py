"""The billing read models: every event, the statements it gives, no database."""

import msgspec
import pytest

from projections.billing import VIEWS, billing_accounts, billing_events, budgets, subscriptions
from projections.statements import Delete, Put, Set, Statement
from schemas.billing.account import (
    Balance,
    ChargeReserved,
    EvaluationKeyAdmitted,
    EvaluationKeyReleased,
    PlanAssigned,
    SpendingCap,
    SpendingCapsSet,
)
from schemas.billing.budget import BudgetReached, BudgetRemoved, BudgetSet
from schemas.billing.subscription import (
    ChangeKind,
    InvoiceChanged,
    StripeInvoice,
    StripeSubscription,
    SubscriptionChanged,
    SubscriptionChangeRequested,
    SubscriptionChangeWithdrawn,
)
from schemas.billing.usage import UsageRecorded
from schemas.envelope import Actor, Envelope

AT = 1_700_000_000_000_000
BUDGET = "llm.calls@day"
KEY = {"tenant": "ten_1", "budget_id": BUDGET}
USED = UsageRecorded(usage_id="usg_1", meter="api.requests", quantity=3, occurred_at=AT - 5)
WAS_SET = BudgetSet(
    budget_id=BUDGET, revision=2, meter="llm.calls", window="day", limit=100, alert_percents=[80]
)
REMOVED = BudgetRemoved(budget_id=BUDGET, revision=2)
REACHED = BudgetReached(
    budget_id=BUDGET, revision=2, meter="llm.calls", window="day", window_start=AT, window_end=AT,
    percent=80, limit=100, total=85,
)  # fmt: skip


def envelope(type: str = "billing.usage_recorded.v1") -> Envelope:
    return Envelope("evt_1", type, "ten_1", "x/1", 1, AT, Actor("user", "usr_9", "Root"))


@pytest.mark.parametrize(
    ("event", "meter", "occurred_at"),
    [
        (USED, "api.requests", AT - 5),
        (WAS_SET, "llm.calls", AT),
        (REMOVED, "llm.calls", AT),
        (REACHED, "llm.calls", AT),
    ],
)
def test_every_event_is_listed(event: msgspec.Struct, meter: str, occurred_at: int) -> None:
    assert list(billing_events.reduce(event, envelope())) == [
        Put(
            {"tenant": "ten_1", "event_id": "evt_1"},
            {
                "event_type": "billing.usage_recorded.v1",
                "recorded_at": AT,
                "occurred_at": occurred_at,
                "meter": meter,
                "actor_kind": "user",
                "actor_id": "usr_9",
                "payload": msgspec.json.encode(event).decode(),
            },
        )
    ]


@pytest.mark.parametrize(
    ("event", "statement"),
    [
        (
            WAS_SET,
            Put(
                KEY,
                {
                    "revision": 2,
                    "meter": "llm.calls",
                    "window_kind": "day",
                    "limit_quantity": 100,
                    "alert_percents": "[80]",
                    "set_at": AT,
                    "reached_percent": 0,
                    "reached_window_start": None,
                    "reached_at": None,
                },
            ),
        ),
        (REMOVED, Delete(KEY)),
        (
            REACHED,
            Set(KEY, {"reached_percent": 80, "reached_window_start": AT, "reached_at": AT}),
        ),
    ],
)
def test_a_budget_is_known_as_it_stands(event: msgspec.Struct, statement: Statement) -> None:
    assert list(budgets.reduce(event, envelope())) == [statement]


TENANT = {"tenant": "ten_1"}
CAP = SpendingCap(100, True, [80])
BALANCE = Balance(5, AT, 1, AT, 2)
TOLD = StripeSubscription(
    stripe_id="sub_stripe", customer_id="cus_1", change_id="cmd_1", plan_code="pro",
    status="active", current_period_end=AT, cancel_at_period_end=False, version=7,
)  # fmt: skip
REQUESTED = SubscriptionChangeRequested(
    change_id="cmd_1", kind="create", plan_code="pro", requested_at=AT
)
SUBSCRIPTION = {"tenant": "ten_1", "subscription_id": "sub_1"}
INVOICE = StripeInvoice(
    invoice_id="in_1", number="W-1", customer_id="cus_1", subscription_id="sub_1", status="paid",
    currency="usd", amount_due_minor=5, amount_paid_minor=5, period_start=1, period_end=2,
    created=3, version=7,
)  # fmt: skip


@pytest.mark.parametrize(
    ("event", "values"),
    [
        (PlanAssigned(plan_code="pro"), {"plan_code": "pro", "subscription_id": ""}),
        (
            SpendingCapsSet(day=CAP),
            {"day_cap": msgspec.json.encode(CAP).decode(), "month_cap": None},
        ),
        (
            ChargeReserved(charge_id="job_1", amount=5, price_version="v", balance=BALANCE),
            {"balance": msgspec.json.encode(BALANCE).decode()},
        ),
        (EvaluationKeyAdmitted(key_id="ek_1", live=3), {"evaluation_keys": 3}),
        (EvaluationKeyReleased(key_id="ek_1", live=2), {"evaluation_keys": 2}),
    ],
)
def test_an_account_is_known_as_it_stands(
    event: msgspec.Struct, values: dict[str, str | int | None]
) -> None:
    assert list(billing_accounts.reduce(event, envelope())) == [Put(TENANT, values)]


def of_subscription(event: msgspec.Struct) -> Statement:
    made = msgspec.structs.replace(envelope(), stream="billing.subscription/sub_1")
    [statement] = subscriptions.reduce(event, made)
    assert statement.key == SUBSCRIPTION
    return statement


def test_a_subscription_is_pending_until_stripe_tells_of_it() -> None:
    made = of_subscription(REQUESTED)
    assert isinstance(made, Put)
    assert (made.values["status"], made.values["change_kind"]) == ("pending", "create")
    told = of_subscription(SubscriptionChanged(subscription=TOLD, completes="cmd_1"))
    assert isinstance(told, Set)
    assert (told.values["status"], told.values["change_kind"]) == ("active", "")
    # What completes no change leaves the one under way alone.
    unasked = of_subscription(SubscriptionChanged(subscription=TOLD))
    assert isinstance(unasked, Set)
    assert "change_kind" not in unasked.values


def test_a_withdrawn_change_leaves_the_subscription_as_it_was() -> None:
    def withdrawn(kind: ChangeKind) -> Statement:
        event = SubscriptionChangeWithdrawn(change_id="cmd_1", kind=kind, reason="r")
        return of_subscription(event)

    assert withdrawn("create") == Set(SUBSCRIPTION, {"change_kind": "", "status": "withdrawn"})
    assert withdrawn("cancel") == Set(SUBSCRIPTION, {"change_kind": ""})


def test_columns_exist() -> None:
    samples = (
        USED, WAS_SET, REMOVED, REACHED, PlanAssigned(plan_code="pro"), SpendingCapsSet(day=CAP),
        REQUESTED, SubscriptionChanged(subscription=TOLD), InvoiceChanged(invoice=INVOICE),
    )  # fmt: skip
    for view in VIEWS:
        for event in samples:
            for statement in view.reduce(event, envelope()):
                values = {} if isinstance(statement, Delete) else statement.values
                assert set(values) | set(statement.key) <= set(view.columns)


def test_what_is_not_billing_is_ignored() -> None:
    for view in VIEWS:
        assert list(view.reduce(object(), envelope("identity.user_registered.v1"))) == []
