"""Events of a subscription, stream `billing.subscription/<sub_>`, and of invoices,
`billing.invoice/<Stripe's id>`.

Stripe holds the truth of both; here is what it said, and what we have asked it for. What it says
carries a `version`: the second of Stripe's clock at which it held.
"""

from typing import Literal

from msgspec import Struct

from schemas.types import Count, Int64, Micros, Text

STREAM = "billing.subscription"
INVOICE_STREAM = "billing.invoice"

# cancel: at the end of the period that is paid for. cancel_now: at once.
ChangeKind = Literal["create", "change_plan", "cancel", "cancel_now"]
SubscriptionStatus = Literal[
    "incomplete",
    "trialing",
    "active",
    "past_due",
    "unpaid",
    "paused",
    "incomplete_expired",
    "canceled",
]
# Of two versions of one second the one that comes later here counts: an end is never undone.
STATUSES: tuple[SubscriptionStatus, ...] = (
    "incomplete",
    "trialing",
    "active",
    "past_due",
    "unpaid",
    "paused",
    "incomplete_expired",
    "canceled",
)
InvoiceStatus = Literal["draft", "open", "uncollectible", "void", "paid"]
INVOICE_STATUSES: tuple[InvoiceStatus, ...] = ("draft", "open", "uncollectible", "void", "paid")


class StripeSubscription(Struct, frozen=True, kw_only=True):
    """A subscription as Stripe tells it.

    change_id: which of our changes created it. plan_code: empty for a price that is none of ours.
    version: the second, since 1970, at which Stripe said so; source: in which of its events, empty
    for an answer.
    """

    stripe_id: Text
    customer_id: Text
    change_id: Text
    plan_code: Text
    status: SubscriptionStatus
    current_period_end: Micros | None
    cancel_at_period_end: bool
    version: Count
    source: Text = ""


class SubscriptionChangeRequested(
    Struct, frozen=True, tag="billing.subscription_change_requested.v1", kw_only=True
):
    """Stripe is to be asked for a change: the intent, before anything is sent.

    customer_id: Stripe's, empty while the tenant has none.
    """

    change_id: str
    kind: ChangeKind
    plan_code: Text
    customer_id: Text = ""
    stripe_id: Text = ""
    requested_at: Micros


class SubscriptionChangeDue(
    Struct, frozen=True, tag="billing.subscription_change_due.v1", kw_only=True
):
    """A change is still to be carried out: whoever began it has not said how it went.

    attempt: how often it was due. next_at: when it is due again.
    """

    change_id: str
    kind: ChangeKind
    plan_code: Text
    customer_id: Text
    stripe_id: Text
    attempt: Count
    next_at: Micros


class SubscriptionChangeWithdrawn(
    Struct, frozen=True, tag="billing.subscription_change_withdrawn.v1", kw_only=True
):
    """A change will not be carried out; the subscription is as it was before."""

    change_id: str
    kind: ChangeKind
    reason: Text


class SubscriptionChanged(Struct, frozen=True, tag="billing.subscription_changed.v1", kw_only=True):
    """Stripe has told a newer version. completes: the change of ours that this is the outcome of,
    empty for none."""

    subscription: StripeSubscription
    completes: str = ""


class StripeInvoice(Struct, frozen=True, kw_only=True):
    """An invoice as Stripe tells it; amounts in the currency's minor unit, instants in seconds."""

    invoice_id: Text
    number: Text
    customer_id: Text
    subscription_id: Text
    status: InvoiceStatus
    currency: Text
    amount_due_minor: Int64
    amount_paid_minor: Int64
    period_start: Count
    period_end: Count
    created: Count
    version: Count
    source: Text = ""


class InvoiceChanged(Struct, frozen=True, tag="billing.invoice_changed.v1", kw_only=True):
    """Stripe has told a newer version of an invoice."""

    invoice: StripeInvoice


SubscriptionEvent = (
    SubscriptionChangeRequested
    | SubscriptionChangeDue
    | SubscriptionChangeWithdrawn
    | SubscriptionChanged
)
InvoiceEvent = InvoiceChanged
