"""What the billing endpoints answer. Instants are ISO 8601 in UTC."""

from collections.abc import Mapping
from typing import Any, Literal, assert_never

import msgspec
from msgspec import Raw, Struct

from schemas.billing.account import CapThresholdReached, PlanAssigned, SpendingCapsSet
from schemas.billing.budget import BudgetReached, BudgetRemoved, BudgetSet
from schemas.billing.subscription import InvoiceChanged, SubscriptionChanged
from schemas.billing.usage import UsageRecorded
from schemas.billing.window import WindowKind
from schemas.instants import iso, iso_or_none

EventType = Literal[
    "usage_recorded",
    "budget_set",
    "budget_removed",
    "budget_reached",
    "plan_assigned",
    "spending_caps_set",
    "cap_threshold_reached",
    "subscription_changed",
    "invoice_changed",
]
AccountShown = (
    PlanAssigned | SpendingCapsSet | CapThresholdReached | SubscriptionChanged | InvoiceChanged
)
BillingEvent = UsageRecorded | BudgetSet | BudgetRemoved | BudgetReached | AccountShown


class UsageAccepted(Struct, frozen=True):
    """A usage as it counts. `feature_key` is its meter."""

    usage_id: str
    feature_key: str
    quantity: int
    occurred_at: str


class UsageRecordedResponse(Struct, frozen=True):
    """A usage was recorded, now or by an earlier request with the same idempotency key."""

    success: bool
    message: str
    data: UsageAccepted


class BillingEventUsageResponse(Struct, frozen=True):
    """What was used in an event; the period is what the client said of it."""

    feature_key: str
    quantity: int
    period_start: str | None = None
    period_end: str | None = None
    amount: int | None = None


class BillingEventBudgetResponse(Struct, frozen=True):
    """What an event says of a budget; the window, percent and total of one that was reached."""

    budget_id: str
    revision: int
    feature_key: str | None = None
    window: WindowKind | None = None
    limit: int | None = None
    alert_percents: list[int] | None = None
    window_start: str | None = None
    window_end: str | None = None
    percent: int | None = None
    total: int | None = None


class BillingEventSubscriptionResponse(Struct, frozen=True):
    """What an event says of a subscription."""

    plan_code: str
    status: str


class BillingEventInvoiceResponse(Struct, frozen=True):
    """What an event says of an invoice."""

    invoice_id: str
    status: str


class BillingEventResponse(Struct, frozen=True):
    """One billing event. `recorded_at` orders events, `occurred_at` is when it happened."""

    event_id: str
    tenant_id: str
    event_type: EventType
    occurred_at: str
    recorded_at: str
    summary: str
    status: str = "processed"
    stripe_event_id: str | None = None
    usage_id: str | None = None
    usage: list[BillingEventUsageResponse] = []
    budget: BillingEventBudgetResponse | None = None
    subscription: BillingEventSubscriptionResponse | None = None
    invoice: BillingEventInvoiceResponse | None = None
    metadata: Raw | None = None


class BillingEventHistoryResponse(Struct, frozen=True):
    """A page of events, newest first, and where the next one begins."""

    items: list[BillingEventResponse]
    next_cursor: str | None


class UsageWindow(Struct, frozen=True):
    """What a window has come to: `records` usages of together `quantity`."""

    feature_key: str
    window_start: str
    window_end: str
    quantity: int
    records: int


class UsageTotal(Struct, frozen=True):
    """The sum over the windows asked for."""

    feature_key: str
    quantity: int
    records: int


class UsageSummaryResponse(Struct, frozen=True):
    """Usage by window, oldest first, and the totals over all pages.

    positions: how far in the log usage is counted, next offset of each partition.
    """

    tenant_id: str
    window: WindowKind
    items: list[UsageWindow]
    totals: list[UsageTotal]
    next_cursor: str | None
    positions: list[str]


class BudgetResponse(Struct, frozen=True):
    """A budget as it stands. `reached`: the last share that was reached, None when none was."""

    budget_id: str
    feature_key: str
    window: WindowKind
    limit: int
    alert_percents: list[int]
    revision: int
    set_at: str | None = None
    reached_percent: int | None = None
    reached_window_start: str | None = None
    reached_at: str | None = None


class BudgetListResponse(Struct, frozen=True):
    """A page of budgets by id."""

    items: list[BudgetResponse]
    next_cursor: str | None


def event_response(
    event_id: str, tenant: str, recorded_at: int, event: BillingEvent
) -> BillingEventResponse:
    """An event as clients see it; `recorded_at` in microseconds."""
    base: dict[str, Any] = {
        "event_id": event_id,
        "tenant_id": tenant,
        "recorded_at": iso(recorded_at),
        "occurred_at": iso(recorded_at),
    }
    match event:
        case UsageRecorded():
            used = BillingEventUsageResponse(
                event.meter,
                event.quantity,
                iso_or_none(event.period_start),
                iso_or_none(event.period_end),
            )
            base |= {"occurred_at": iso(event.occurred_at), "metadata": Raw(event.metadata)}
            return BillingEventResponse(
                event_type="usage_recorded",
                summary=f"{event.quantity} of {event.meter} used",
                usage_id=event.usage_id,
                usage=[used],
                **base,
            )
        case BudgetSet():
            return BillingEventResponse(
                event_type="budget_set",
                summary=f"Budget of {event.limit} {event.meter} a {event.window} set",
                budget=_budget(event),
                **base,
            )
        case BudgetRemoved():
            return BillingEventResponse(
                event_type="budget_removed",
                summary=f"Budget {event.budget_id} removed",
                budget=BillingEventBudgetResponse(event.budget_id, event.revision),
                **base,
            )
        case BudgetReached():
            return BillingEventResponse(
                event_type="budget_reached",
                summary=f"{event.percent} % of the budget of {event.limit} {event.meter} "
                f"a {event.window} reached",
                budget=_reached(event),
                **base,
            )
    return _of_account(event, base)


def _of_account(event: AccountShown, base: dict[str, Any]) -> BillingEventResponse:
    """What concerns the plan, the caps and Stripe."""
    match event:
        case PlanAssigned():
            summary = f"The plan {event.plan_code} holds"
            return BillingEventResponse(event_type="plan_assigned", summary=summary, **base)
        case SpendingCapsSet():
            summary = "The budget caps were changed"
            return BillingEventResponse(event_type="spending_caps_set", summary=summary, **base)
        case CapThresholdReached():
            summary = f"{event.percent} % of the cap of the {event.window} spent"
            return BillingEventResponse(event_type="cap_threshold_reached", summary=summary, **base)
        case SubscriptionChanged():
            told = event.subscription
            return BillingEventResponse(
                event_type="subscription_changed",
                summary=f"The subscription to {told.plan_code} is {told.status}",
                subscription=BillingEventSubscriptionResponse(told.plan_code, told.status),
                stripe_event_id=told.source or None,
                **base,
            )
        case InvoiceChanged():
            invoice = event.invoice
            return BillingEventResponse(
                event_type="invoice_changed",
                summary=f"The invoice {invoice.number or invoice.invoice_id} is {invoice.status}",
                invoice=BillingEventInvoiceResponse(invoice.invoice_id, invoice.status),
                stripe_event_id=invoice.source or None,
                **base,
            )
    assert_never(event)


def _budget(event: BudgetSet) -> BillingEventBudgetResponse:
    return BillingEventBudgetResponse(
        event.budget_id,
        event.revision,
        event.meter,
        event.window,
        event.limit,
        list(event.alert_percents),
    )


def _reached(event: BudgetReached) -> BillingEventBudgetResponse:
    return BillingEventBudgetResponse(
        event.budget_id,
        event.revision,
        event.meter,
        event.window,
        event.limit,
        window_start=iso(event.window_start),
        window_end=iso(event.window_end),
        percent=event.percent,
        total=event.total,
    )


def event_of_row(row: Mapping[str, Any], tenant: str) -> BillingEventResponse:
    """An event of the view `billing_events`."""
    event = msgspec.convert(row["payload"], BillingEvent)
    return event_response(row["event_id"], tenant, row["recorded_at"], event)
