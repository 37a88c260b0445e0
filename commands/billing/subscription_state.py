"""Commands, refusals and state of `billing.subscription`, and how its events fold."""

from typing import assert_never

import msgspec
from msgspec import Struct

from commands.billing.plans import SubscribablePlan
from commands.refusals import AlreadyDone, Refusal
from schemas.billing.subscription import (
    ChangeKind,
    StripeSubscription,
    SubscriptionChanged,
    SubscriptionChangeDue,
    SubscriptionChangeRequested,
    SubscriptionChangeWithdrawn,
    SubscriptionEvent,
)
from schemas.types import Text


class SubscriptionExists(Refusal):
    """The tenant has a subscription; its plan can be changed."""

    code = "subscription_exists"


class ChangePending(Refusal):
    """Another change is on its way to Stripe."""

    code = "change_pending"


class SubscriptionEnded(AlreadyDone):
    """The subscription has ended, so that it cannot change any more."""

    code = "subscription_ended"


class RequestSubscription(Struct, frozen=True, tag="billing.request_subscription.v1"):
    """Subscribe to a plan. customer_id: the tenant's at Stripe, empty for a new one."""

    plan_code: SubscribablePlan
    customer_id: Text = ""


class RequestPlanChange(Struct, frozen=True, tag="billing.request_plan_change.v1"):
    """Go over to another plan."""

    plan_code: SubscribablePlan


class RequestCancellation(Struct, frozen=True, tag="billing.request_cancellation.v1"):
    """End the subscription, with the period that is paid for or at once."""

    at_period_end: bool


class WithdrawSubscriptionChange(
    Struct, frozen=True, tag="billing.withdraw_subscription_change.v1"
):
    """Stripe could not be asked, or has refused."""

    change_id: str
    reason: Text


class ResumeSubscriptionChange(Struct, frozen=True, tag="billing.resume_subscription_change.v1"):
    """It is time to ask again, should the change still be pending."""

    change_id: str


class RecordStripeSubscription(Struct, frozen=True, tag="billing.record_stripe_subscription.v1"):
    """Stripe has answered, or told by webhook."""

    subscription: StripeSubscription


SubscriptionCommand = (
    RequestSubscription
    | RequestPlanChange
    | RequestCancellation
    | WithdrawSubscriptionChange
    | ResumeSubscriptionChange
    | RecordStripeSubscription
)


class PendingChange(Struct, frozen=True):
    """A change that Stripe is asked for. attempt: how often it was resumed."""

    change_id: str
    kind: ChangeKind
    plan_code: str
    customer_id: str
    stripe_id: str
    attempt: int = 0


class Subscription(Struct, frozen=True):
    """`known` is None until Stripe has told of it."""

    pending: PendingChange | None = None
    known: StripeSubscription | None = None


class SubscriptionAnswer(Struct, frozen=True):
    """The subscription as it stands after the command."""

    subscription_id: str
    pending: PendingChange | None
    known: StripeSubscription | None


def evolve(state: Subscription, event: SubscriptionEvent) -> Subscription:
    match event:
        case SubscriptionChangeRequested():
            pending = PendingChange(
                event.change_id, event.kind, event.plan_code, event.customer_id, event.stripe_id
            )
            return Subscription(pending, state.known)
        case SubscriptionChangeDue():
            if state.pending is None or state.pending.change_id != event.change_id:
                return state
            again = msgspec.structs.replace(state.pending, attempt=event.attempt)
            return Subscription(again, state.known)
        case SubscriptionChangeWithdrawn():
            return Subscription(None, state.known)
        case SubscriptionChanged():
            left = None if event.completes else state.pending
            return Subscription(left, event.subscription)
    assert_never(event)
