"""A subscription: what we ask Stripe for, and what Stripe says of it.

A change is a saga: the intent is an event, then Stripe is asked under an idempotency key that
follows from the intent, then its answer is recorded. A crash in between is resumed: a durable timer
makes the change due again, and Stripe's own webhook completes it as well as the answer would.

What Stripe says arrives twice and in any order: only a newer version counts. A subscription at
Stripe that no live change of ours asked for (its answer was lost, and the change withdrawn) is
cancelled.
"""

from collections.abc import Mapping, Sequence
from typing import Any, assert_never

import msgspec

from commands.billing.account import assign_plan
from commands.billing.account_state import Account
from commands.billing.plans import PAYG
from commands.billing.subscription_state import (
    ChangePending,
    PendingChange,
    RecordStripeSubscription,
    RequestCancellation,
    RequestPlanChange,
    RequestSubscription,
    ResumeSubscriptionChange,
    Subscription,
    SubscriptionAnswer,
    SubscriptionCommand,
    SubscriptionEnded,
    SubscriptionExists,
    WithdrawSubscriptionChange,
    evolve,
)
from commands.decider import (
    Claim,
    ClearTimer,
    Context,
    Decider,
    Emit,
    Lookup,
    Ref,
    Release,
    SetTimer,
)
from commands.refusals import ActorForbidden, NotFound
from schemas.billing.account import ACCOUNT_ID
from schemas.billing.account import STREAM as ACCOUNT_STREAM
from schemas.billing.subscription import (
    STATUSES,
    STREAM,
    ChangeKind,
    StripeSubscription,
    SubscriptionChanged,
    SubscriptionChangeDue,
    SubscriptionChangeRequested,
    SubscriptionChangeWithdrawn,
    SubscriptionEvent,
)
from schemas.unions import members

# The answer of a healthy Stripe takes seconds; whoever waits longer has probably died.
RESUME_AFTER_MICROS = 60 * 1_000_000
_LONGEST_PAUSE_MICROS = 3_600 * 1_000_000
# Stripe forgets idempotency keys after 24 hours: nothing may be asked again after that.
ATTEMPTS_MAX = 15
_RESUME = "resume"
_INDEX, _LIVE = "billing.subscription", "live"
_ENDED = ("incomplete_expired", "canceled")
_HOLDS = ("trialing", "active", "past_due")


def decide(
    command: SubscriptionCommand, state: Subscription, context: Context
) -> Sequence[SubscriptionEvent | Emit]:
    """Raises SubscriptionExists, SubscriptionEnded, ChangePending, NotFound, ActorForbidden."""
    match command:
        case RequestSubscription():
            return _create(command, state, context)
        case RequestPlanChange():
            known = _changeable(state)
            if known.plan_code == command.plan_code:
                return []
            return [_requested("change_plan", command.plan_code, known, context)]
        case RequestCancellation():
            known = _changeable(state)
            if command.at_period_end and known.cancel_at_period_end:
                return []
            kind: ChangeKind = "cancel" if command.at_period_end else "cancel_now"
            return [_requested(kind, known.plan_code, known, context)]
        case WithdrawSubscriptionChange():
            return _withdraw(command.change_id, command.reason, state)
        case ResumeSubscriptionChange():
            return _resume(command, state, context)
        case RecordStripeSubscription():
            if context.actor.kind != "system":
                raise ActorForbidden("only Stripe tells of subscriptions")
            return _recorded(command.subscription, state, context)
    assert_never(command)


def _create(
    command: RequestSubscription, state: Subscription, context: Context
) -> Sequence[SubscriptionEvent]:
    if state.pending is not None or state.known is not None:
        return []
    if context.find(_INDEX, _LIVE) is not None:
        raise SubscriptionExists("there is a subscription already: change its plan")
    return [
        SubscriptionChangeRequested(
            change_id=context.command_id,
            kind="create",
            plan_code=command.plan_code,
            customer_id=command.customer_id,
            requested_at=context.now,
        )
    ]


def _changeable(state: Subscription) -> StripeSubscription:
    if state.pending is not None:
        raise ChangePending("another change is on its way", change=state.pending.kind)
    if state.known is None:
        raise NotFound("no such subscription")
    if state.known.status in _ENDED:
        raise SubscriptionEnded("the subscription has ended")
    return state.known


def _requested(
    kind: ChangeKind, plan_code: str, known: StripeSubscription, context: Context
) -> SubscriptionChangeRequested:
    return SubscriptionChangeRequested(
        change_id=context.command_id,
        kind=kind,
        plan_code=plan_code,
        customer_id=known.customer_id,
        stripe_id=known.stripe_id,
        requested_at=context.now,
    )


def _withdraw(change_id: str, reason: str, state: Subscription) -> Sequence[SubscriptionEvent]:
    pending = state.pending
    if pending is None or pending.change_id != change_id:
        return []
    return [SubscriptionChangeWithdrawn(change_id=change_id, kind=pending.kind, reason=reason)]


def _resume(
    command: ResumeSubscriptionChange, state: Subscription, context: Context
) -> Sequence[SubscriptionEvent]:
    pending = state.pending
    if pending is None or pending.change_id != command.change_id:
        return []
    if pending.attempt >= ATTEMPTS_MAX:
        return _withdraw(command.change_id, "stripe_unavailable", state)
    pause = min(_LONGEST_PAUSE_MICROS, RESUME_AFTER_MICROS * 2**pending.attempt)
    return [
        SubscriptionChangeDue(
            change_id=pending.change_id,
            kind=pending.kind,
            plan_code=pending.plan_code,
            customer_id=pending.customer_id,
            stripe_id=pending.stripe_id,
            attempt=pending.attempt + 1,
            next_at=context.now + pause,
        )
    ]


def _recorded(
    told: StripeSubscription, state: Subscription, context: Context
) -> Sequence[SubscriptionEvent | Emit]:
    if not _is_ours(told, state):
        return _abandoned(told, state, context)
    pending = state.pending
    completes = pending.change_id if pending and _completes(told, pending) else ""
    if state.known is not None and not _is_newer(told, state.known, completes):
        return []
    return [
        SubscriptionChanged(subscription=told, completes=completes),
        *_plan(told, context),
    ]


def _is_ours(told: StripeSubscription, state: Subscription) -> bool:
    if state.known is not None:
        return told.stripe_id == state.known.stripe_id
    return state.pending is not None and told.change_id == state.pending.change_id


def _abandoned(
    told: StripeSubscription, state: Subscription, context: Context
) -> Sequence[SubscriptionEvent]:
    if told.status in _ENDED:
        return []
    return [
        SubscriptionChangeDue(
            change_id=f"{told.change_id}.abandoned",
            kind="cancel_now",
            plan_code=told.plan_code,
            customer_id=told.customer_id,
            stripe_id=told.stripe_id,
            attempt=0,
            next_at=context.now,
        )
    ]


def _is_newer(told: StripeSubscription, known: StripeSubscription, completes: str) -> bool:
    if known.status in _ENDED:
        return False
    # What was asked for comes after what was known when it was asked, also within one second.
    return _order(told) > _order(known) or (completes != "" and told.version >= known.version)


def _order(told: StripeSubscription) -> tuple[int, int, str]:
    return told.version, STATUSES.index(told.status), told.source


def _completes(told: StripeSubscription, pending: PendingChange) -> bool:
    match pending.kind:
        case "create":
            return True
        case "change_plan":
            return told.plan_code == pending.plan_code or told.status in _ENDED
        case "cancel":
            return told.cancel_at_period_end or told.status in _ENDED
        case "cancel_now":
            return told.status in _ENDED
    assert_never(pending.kind)


def _plan(told: StripeSubscription, context: Context) -> Sequence[Emit]:
    """The plan that holds now: the subscription's while it is paid for, else the default."""
    account: Account = context.state(ACCOUNT_STREAM, ACCOUNT_ID)
    if told.status in _HOLDS and told.plan_code:
        events = assign_plan(account, told.plan_code, context.stream_id)
    elif account.subscription_id == context.stream_id:
        events = assign_plan(account, PAYG, "")
    else:
        events = []
    return [Emit(ACCOUNT_STREAM, ACCOUNT_ID, event) for event in events]


def _loads(command: SubscriptionCommand, stream_id: str) -> Sequence[Ref | Lookup]:
    if isinstance(command, RequestSubscription):
        return [Lookup(_INDEX, _LIVE)]
    if isinstance(command, RecordStripeSubscription):
        return [Ref(ACCOUNT_STREAM, ACCOUNT_ID)]
    return ()


def _claims(event: SubscriptionEvent, stream_id: str) -> Sequence[Claim | Release]:
    match event:
        case SubscriptionChangeRequested(kind="create"):
            return [Claim(_INDEX, _LIVE)]
        case SubscriptionChangeWithdrawn(kind="create"):
            return [Release(_INDEX, _LIVE)]
        case SubscriptionChanged() if event.subscription.status in _ENDED:
            return [Release(_INDEX, _LIVE)]
    return ()


def _timers(event: SubscriptionEvent, stream_id: str) -> Sequence[SetTimer | ClearTimer]:
    match event:
        case SubscriptionChangeRequested():
            due_at = event.requested_at + RESUME_AFTER_MICROS
            return [SetTimer(_RESUME, due_at, ResumeSubscriptionChange(event.change_id))]
        case SubscriptionChangeDue() if event.attempt:
            return [SetTimer(_RESUME, event.next_at, ResumeSubscriptionChange(event.change_id))]
        case SubscriptionChangeWithdrawn():
            return [ClearTimer(_RESUME)]
        case SubscriptionChanged() if event.completes:
            return [ClearTimer(_RESUME)]
    return ()


def _answer(
    command: SubscriptionCommand, state: Subscription, context: Context
) -> SubscriptionAnswer:
    return SubscriptionAnswer(context.stream_id, state.pending, state.known)


def _describe(command: SubscriptionCommand) -> Mapping[str, Any]:
    fields = msgspec.structs.asdict(command)
    return {name: msgspec.to_builtins(value) for name, value in fields.items()}


DECIDER: Decider[SubscriptionCommand, Subscription, SubscriptionEvent] = Decider(
    stream=STREAM,
    commands=members(SubscriptionCommand),
    events=members(SubscriptionEvent),
    initial=Subscription(),
    decide=decide,
    evolve=evolve,
    loads=_loads,
    claims=_claims,
    timers=_timers,
    answer=_answer,
    describe=_describe,
)
