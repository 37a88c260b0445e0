"""A tenant's account: what it may spend, what is reserved, what is spent, how many evaluation keys
it has of those that its plan allows.

`commands/billing/charges.py` has what is charged to it, called by the decider of the work.
"""

from collections.abc import Mapping, Sequence
from typing import Any, assert_never

import msgspec

from commands.billing.account_state import (
    Account,
    AccountAnswer,
    AccountCommand,
    AssignPlan,
    CloseUsagePeriod,
    EvaluationKeysExhausted,
    SetSpendingCaps,
    balance_at,
    evolve,
)
from commands.billing.charges import closed
from commands.billing.plans import plan_of
from commands.decider import Context, Decider, SetTimer
from commands.refusals import ActorForbidden, AlreadyDone, InvalidCommand
from schemas.billing.account import (
    STREAM,
    AccountEvent,
    CapWindow,
    EvaluationKeyAdmitted,
    EvaluationKeyReleased,
    PlanAssigned,
    SpendingCap,
    SpendingCapsSet,
    UsagePeriodOpened,
)
from schemas.unions import members

# Clocks differ: a month is closed when it is over by every one of them.
_CLOSED_AFTER_MICROS = 60 * 1_000_000


def admit_key(account: Account, key_id: str) -> Sequence[AccountEvent]:
    """Let one more evaluation key live. What the plan before allowed stays: only a new one is
    refused. Raises EvaluationKeysExhausted."""
    plan, live = plan_of(account.plan_code), account.evaluation_keys
    if live >= plan.evaluation_keys_max:
        raise EvaluationKeysExhausted(
            f"the plan {plan.name} allows {plan.evaluation_keys_max} evaluation keys at a time",
            plan=plan.code,
            evaluation_keys_max=plan.evaluation_keys_max,
            evaluation_keys=live,
        )
    return [EvaluationKeyAdmitted(key_id=key_id, live=live + 1)]


def release_key(account: Account, key_id: str) -> Sequence[AccountEvent]:
    """Give the place of an admitted key back."""
    return [EvaluationKeyReleased(key_id=key_id, live=account.evaluation_keys - 1)]


def assign_plan(account: Account, plan_code: str, subscription_id: str) -> Sequence[AccountEvent]:
    """Have the plan's limits hold from now on, if they do not already."""
    if (account.plan_code, account.subscription_id) == (plan_code, subscription_id):
        return []
    return [PlanAssigned(plan_code=plan_code, subscription_id=subscription_id)]


def decide(command: AccountCommand, state: Account, context: Context) -> Sequence[AccountEvent]:
    """Raises InvalidCommand, ActorForbidden, AlreadyDone."""
    match command:
        case SetSpendingCaps():
            return _set_caps(command, state)
        case AssignPlan():
            if context.actor.kind != "system":
                raise ActorForbidden("plans are agreed upon with the operator")
            if state.subscription_id:
                raise AlreadyDone("the plan is that of the subscription")
            return assign_plan(state, command.plan_code, "")
        case CloseUsagePeriod():
            return _close(command, state, context)
    assert_never(command)


def _close(command: CloseUsagePeriod, state: Account, context: Context) -> Sequence[AccountEvent]:
    if context.actor.kind != "system":
        raise ActorForbidden("a month is closed by its timer")
    period = state.period
    if period is None or period.start != command.period_start:
        return []
    if context.now < period.end:
        raise InvalidCommand("the month is not over", field="period_start")
    return [closed(period, state.carried)]


def _set_caps(command: SetSpendingCaps, state: Account) -> Sequence[AccountEvent]:
    day = _changed("day", command.day, state.day_cap, command)
    month = _changed("month", command.month, state.month_cap, command)
    if day is not None and month is not None and day.limit > month.limit:
        raise InvalidCommand("a day's cap is at most the month's", field="day")
    if (day, month) == (state.day_cap, state.month_cap):
        return []
    return [SpendingCapsSet(day=day, month=month)]


def _changed(
    window: CapWindow,
    given: SpendingCap | None,
    before: SpendingCap | None,
    command: SetSpendingCaps,
) -> SpendingCap | None:
    if given is not None:
        return msgspec.structs.replace(given, alert_percents=sorted(set(given.alert_percents)))
    return None if window in command.removed else before


def _timers(event: AccountEvent, stream_id: str) -> Sequence[SetTimer]:
    if not isinstance(event, UsagePeriodOpened):
        return ()
    due_at = event.period_end + _CLOSED_AFTER_MICROS
    return [SetTimer("close", due_at, CloseUsagePeriod(event.period_start))]


def _answer(command: AccountCommand, state: Account, context: Context) -> AccountAnswer:
    balance = balance_at(state.balance, context.now)
    caps = state.day_cap, state.month_cap
    return AccountAnswer(state.plan_code, *caps, balance, state.evaluation_keys)


def _describe(command: AccountCommand) -> Mapping[str, Any]:
    if isinstance(command, AssignPlan):
        return {"plan_code": command.plan_code}
    if isinstance(command, CloseUsagePeriod):
        return {"period_start": command.period_start}
    given = {"day": command.day, "month": command.month}
    caps = {window: msgspec.to_builtins(cap) for window, cap in given.items() if cap is not None}
    return {**caps, "removed": command.removed}


DECIDER: Decider[AccountCommand, Account, AccountEvent] = Decider(
    stream=STREAM,
    commands=members(AccountCommand),
    events=members(AccountEvent),
    version=2,
    initial=Account(),
    decide=decide,
    evolve=evolve,
    timers=_timers,
    answer=_answer,
    describe=_describe,
)
