"""`/api/v1/billing/subscriptions`: subscribed to, changed and cancelled at Stripe.

The intent is on the log before Stripe is asked, and Stripe's answer after it. When Stripe is away
the intent is withdrawn and the client told 502: nothing has changed, and it may try again. When
this process dies in between, `streams/billing/subscription_changes.py` goes on.
"""

from typing import Annotated, Any

from msgspec import Meta, Struct

from api.billing.declaring import fhe_route
from api.cursors import newest_page
from api.problems import Problem, not_found
from api.roles import BILLERS, BILLING_READERS
from api.routing import Answer, Call, answer_of
from commands.billing.plans import SubscribablePlan
from commands.billing.subscription_state import (
    PendingChange,
    RecordStripeSubscription,
    RequestCancellation,
    RequestPlanChange,
    RequestSubscription,
    SubscriptionAnswer,
    WithdrawSubscriptionChange,
)
from infra.ids import derived_id
from infra.stripe import StripeRefused, StripeUnavailable
from projections.billing import subscriptions
from schemas.envelope import SYSTEM
from schemas.instants import iso, iso_or_none
from schemas.types import Text
from streams.billing.subscription_changes import carry_out

_RETRY_SECONDS = 5
_UNCONFIGURED_SECONDS = 3600


class SubscribeBody(Struct):
    """The plan to subscribe to. Enterprise is agreed upon with us."""

    plan: SubscribablePlan


class ChangePlanBody(Struct):
    """The plan to go over to; the difference is on the next invoice."""

    plan: SubscribablePlan


class CancelQuery(Struct, frozen=True):
    """`at_period_end` false ends the subscription at once."""

    at_period_end: bool = True


class ListQuery(Struct, frozen=True):
    """Which page."""

    limit: Annotated[int, Meta(ge=1, le=100)] = 20
    cursor: Annotated[Text, Meta(max_length=200)] = ""


class ChangeItem(Struct, frozen=True):
    """A change that is under way: `create`, `change_plan`, `cancel` or `cancel_now`."""

    kind: str
    plan: str


class SubscriptionItem(Struct, frozen=True):
    """A subscription. `status` is Stripe's, or `pending` before it has answered, or `withdrawn`.

    payment_url: where an incomplete subscription is paid, in the answer to the one who subscribed.
    """

    subscription_id: str
    plan: str
    status: str
    change: ChangeItem | None
    current_period_end: str | None
    cancel_at_period_end: bool
    created_at: str
    payment_url: str | None = None


class SubscriptionPage(Struct, frozen=True):
    """A page of subscriptions, newest first, and where the next one begins."""

    data: list[SubscriptionItem]
    next_cursor: str | None
    has_more: bool


async def list_subscriptions(call: Call[None, ListQuery]) -> SubscriptionPage:
    """The tenant's subscriptions, ended ones too, newest first."""
    rows, cursor = await newest_page(call, subscriptions.PAGE, "subscription_id")
    return SubscriptionPage([_item(row) for row in rows], cursor, cursor is not None)


async def subscribe(call: Call[SubscribeBody, None]) -> Answer:
    """Subscribe to a plan; the same Idempotency-Key is the same subscription."""
    _check_configured(call)
    subscription_id = derived_id("sub", call.tenant, call.command_id)
    customer = await call.services.reads.one(subscriptions.CUSTOMER, call.tenant)
    command = RequestSubscription(call.body.plan, customer["customer_id"] if customer else "")
    earlier = await _find(call, subscription_id)
    # A repeat after a withdrawal asks anew, under another change.
    step = f"after {earlier['change_id']}" if earlier and earlier["status"] == "withdrawn" else ""
    row = await _carried_out(call, subscription_id, command, step)
    payment_url = None
    if row["status"] == "incomplete":
        payment_url = await _asked(call.services.stripe.payment_url(row["stripe_id"]))
    return Answer(_item(row, payment_url), status=201)


async def change_plan(call: Call[ChangePlanBody, None]) -> SubscriptionItem:
    """Go over to another plan."""
    subscription_id = (await _row(call))["subscription_id"]
    _check_configured(call)
    return _item(await _carried_out(call, subscription_id, RequestPlanChange(call.body.plan)))


async def cancel(call: Call[None, CancelQuery]) -> SubscriptionItem:
    """End the subscription; the plan holds until then."""
    subscription_id = (await _row(call))["subscription_id"]
    _check_configured(call)
    command = RequestCancellation(call.query.at_period_end)
    return _item(await _carried_out(call, subscription_id, command))


async def _carried_out(
    call: Call[Any, Any], subscription_id: str, command: Struct, step: str = ""
) -> dict[str, Any]:
    """Put the intent on the log, ask Stripe, record its answer; the row as it is then."""
    stands = answer_of(await call.send(subscription_id, command, step=step), SubscriptionAnswer)
    change = stands.pending
    if change is not None and await _is_open(call, subscription_id, change):
        try:
            told = await carry_out(call.services.stripe, call.tenant, subscription_id, change)
        except StripeUnavailable as error:
            await _withdraw(call, subscription_id, change, "stripe_unavailable")
            raise _away() from error
        except StripeRefused as error:
            await _withdraw(call, subscription_id, change, "stripe_refused")
            raise Problem(409, "stripe_refused", str(error)) from error
        await call.send(
            subscription_id,
            RecordStripeSubscription(told),
            actor=SYSTEM,
            step=f"answered {change.change_id}",
        )
    row = await _find(call, subscription_id)
    # The decider answers when the row is there, so a missing one is a bug, not a 404.
    assert row is not None, f"no row of {subscription_id}"
    return row


async def _is_open(call: Call[Any, Any], subscription_id: str, change: PendingChange) -> bool:
    """Whether the change is still to be done: a repeated request is told what it was told first."""
    row = await _find(call, subscription_id)
    return row is not None and row["change_kind"] != "" and row["change_id"] == change.change_id


async def _withdraw(
    call: Call[Any, Any], subscription_id: str, change: PendingChange, reason: str
) -> None:
    command = WithdrawSubscriptionChange(change.change_id, reason)
    await call.send(subscription_id, command, actor=SYSTEM, step=f"withdrawn {change.change_id}")


async def _asked(answer: Any) -> Any:
    try:
        return await answer
    except (StripeUnavailable, StripeRefused):
        return None  # the subscription stands; where to pay can be asked again with the same key


def _away() -> Problem:
    return Problem(
        502,
        "upstream_unavailable",
        "Stripe does not answer; nothing has changed",
        headers={"retry-after": str(_RETRY_SECONDS)},
    )


def _check_configured(call: Call[Any, Any]) -> None:
    if not call.services.stripe.is_configured:
        raise Problem(
            503,
            "billing_not_configured",
            "This installation has no Stripe key (STRIPE_API_KEY): it bills no subscriptions",
            headers={"retry-after": str(_UNCONFIGURED_SECONDS)},
        )


async def _row(call: Call[Any, Any]) -> dict[str, Any]:
    row = await _find(call, call.path["subscription_id"])
    if row is None:
        not_found("No such subscription")
    return row


async def _find(call: Call[Any, Any], subscription_id: str) -> dict[str, Any] | None:
    return await call.services.reads.one(subscriptions.BY_ID, call.tenant, subscription_id)


def _item(row: dict[str, Any], payment_url: str | None = None) -> SubscriptionItem:
    change = None
    if row["change_kind"]:
        change = ChangeItem(row["change_kind"], row["change_plan_code"])
    ends = row["current_period_end"]
    return SubscriptionItem(
        subscription_id=row["subscription_id"],
        plan=row["plan_code"],
        status=row["status"],
        change=change,
        current_period_end=iso_or_none(ends),
        cancel_at_period_end=row["cancel_at_period_end"],
        created_at=iso(row["created_at"]),
        payment_url=payment_url,
    )


ROUTES = [
    fhe_route(
        "GET",
        "/api/v1/billing/subscriptions",
        list_subscriptions,
        roles=BILLING_READERS,
        query=ListQuery,
        response=SubscriptionPage,
        summary="List subscriptions",
        refusals=(400,),
    ),
    fhe_route(
        "POST",
        "/api/v1/billing/subscriptions",
        subscribe,
        roles=BILLERS,
        body=SubscribeBody,
        response=SubscriptionItem,
        status=201,
        summary="Subscribe to a plan",
        refusals=(409, 502),
        max_body=16 * 1024,
        description="A tenant has one subscription at a time. It is `incomplete` until it is paid "
        "at `payment_url`. 502 when Stripe does not answer: nothing has changed then.",
    ),
    fhe_route(
        "PATCH",
        "/api/v1/billing/subscriptions/{subscription_id}",
        change_plan,
        roles=BILLERS,
        body=ChangePlanBody,
        response=SubscriptionItem,
        summary="Change a subscription's plan",
        refusals=(409, 502),
        max_body=16 * 1024,
    ),
    fhe_route(
        "DELETE",
        "/api/v1/billing/subscriptions/{subscription_id}",
        cancel,
        roles=BILLERS,
        query=CancelQuery,
        response=SubscriptionItem,
        summary="Cancel a subscription",
        refusals=(409, 502),
    ),
]
