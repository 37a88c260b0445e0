"""A tenant's account: what it may spend, what is reserved, what is spent, how many evaluation keys
it has of those that its plan allows.

Each charge is reserved before the work, and then committed or released, by the decider of what is
charged for: it calls `reserve`, `commit` and `release` here and emits what they return, so a charge
changes in the transaction of its job. The job remembers its own reservation; the account knows
their sum only, so it never grows.

`spent + reserved` of a window stays within every hard cap and the plan's quota: a reservation that
would exceed one is refused, and committing moves an amount from one term to the other. What is
still reserved when a window begins counts against the new one, in which it will be spent.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, assert_never

import msgspec
from msgspec import Struct

from commands.billing.plans import PAYG, PlanCode, plan_of
from commands.decider import Context, Decider, SetTimer
from commands.refusals import ActorForbidden, AlreadyDone, InvalidCommand, Refusal
from schemas.billing.account import (
    STREAM,
    AccountEvent,
    Balance,
    CapThresholdReached,
    CapWindow,
    ChargeCommitted,
    ChargeReleased,
    ChargeReserved,
    EvaluationKeyAdmitted,
    EvaluationKeyReleased,
    PlanAssigned,
    ReleaseReason,
    SpendingCap,
    SpendingCapsSet,
    UsagePeriodClosed,
    UsagePeriodOpened,
)
from schemas.billing.window import window_of
from schemas.instants import iso
from schemas.types import Micros
from schemas.unions import members

NANODOLLARS_PER_CENT = 10_000_000
# Clocks differ: a month is closed when it is over by every one of them.
_CLOSED_AFTER_MICROS = 60 * 1_000_000


class SpendingLimitReached(Refusal):
    """The charge does not fit into what is left of a limit in its window."""

    kind = "payment_required"


class BudgetCapReached(SpendingLimitReached):
    """A hard cap that the tenant has set leaves too little."""

    code = "budget_cap_reached"


class QuotaExhausted(SpendingLimitReached):
    """The plan's monthly quota leaves too little."""

    code = "quota_exhausted"


class EvaluationKeysExhausted(Refusal):
    """The tenant has as many live evaluation keys as its plan allows."""

    code = "evaluation_keys_exhausted"
    kind = "payment_required"


class SetSpendingCaps(Struct, frozen=True, tag="billing.set_spending_caps.v1", kw_only=True):
    """Set the caps that are given, take away those of `removed`, and leave the others."""

    day: SpendingCap | None = None
    month: SpendingCap | None = None
    removed: list[CapWindow] = []


class AssignPlan(Struct, frozen=True, tag="billing.assign_plan.v1"):
    """Put a tenant without a subscription on a plan that was agreed upon. The operator's only."""

    plan_code: PlanCode


class CloseUsagePeriod(Struct, frozen=True, tag="billing.close_usage_period.v1"):
    """The month that began then is over (timer)."""

    period_start: Micros


AccountCommand = SetSpendingCaps | AssignPlan | CloseUsagePeriod


class Alerted(Struct, frozen=True):
    """The highest percent reached in the window that starts at `start`."""

    start: int = 0
    percent: int = 0


class UsagePeriod(Struct, frozen=True):
    """A month in which something is spent on pay as you go: how much, in nanodollars."""

    start: int
    end: int
    spent: int = 0


class Account(Struct, frozen=True):
    """A tenant's account; one that nothing happened to is on the default plan without caps."""

    plan_code: str = PAYG
    subscription_id: str = ""
    day_cap: SpendingCap | None = None
    month_cap: SpendingCap | None = None
    day_alerted: Alerted = Alerted()
    month_alerted: Alerted = Alerted()
    balance: Balance = Balance()
    evaluation_keys: int = 0
    period: UsagePeriod | None = None
    carried: int = 0


class AccountAnswer(Struct, frozen=True):
    """The account as it stands at the command's time."""

    plan_code: str
    day: SpendingCap | None
    month: SpendingCap | None
    balance: Balance
    evaluation_keys: int = 0


def reserve(
    account: Account, charge_id: str, amount: int, price_version: str, now: int
) -> Sequence[AccountEvent]:
    """Set `amount` nanodollars aside at `now` (microseconds UTC). Nothing is free of a charge of 0.

    Raises BudgetCapReached, QuotaExhausted.
    """
    if not amount:
        return []
    balance = balance_at(account.balance, now)
    _check_limits(account, balance, amount, now)
    after = msgspec.structs.replace(balance, reserved=balance.reserved + amount)
    return [
        ChargeReserved(
            charge_id=charge_id, amount=amount, price_version=price_version, balance=after
        )
    ]


def commit(account: Account, charge_id: str, amount: int, now: int) -> Sequence[AccountEvent]:
    """Spend what was reserved for a charge, and say which thresholds that reaches."""
    if not amount:
        return []
    balance = balance_at(account.balance, now)
    after = msgspec.structs.replace(
        balance,
        reserved=balance.reserved - amount,
        day_spent=balance.day_spent + amount,
        month_spent=balance.month_spent + amount,
    )
    committed = ChargeCommitted(charge_id=charge_id, amount=amount, balance=after)
    return [*_period(account, now), committed, *_thresholds(account, after, now)]


def _period(account: Account, now: int) -> Sequence[AccountEvent]:
    """What must be open when something is spent on pay as you go."""
    if account.plan_code != PAYG:
        return []
    month, period = window_of("month", now), account.period
    if period is not None and period.start == month.start:
        return []
    closed = [] if period is None else [_closed(period, account.carried)]
    return [*closed, UsagePeriodOpened(period_start=month.start, period_end=month.end)]


def _closed(period: UsagePeriod, carried: int) -> UsagePeriodClosed:
    cents, left = divmod(period.spent + carried, NANODOLLARS_PER_CENT)
    return UsagePeriodClosed(
        period_start=period.start,
        period_end=period.end,
        spent=period.spent,
        carried_in=carried,
        carried_out=left,
        amount_minor=cents,
    )


def charge(
    account: Account, charge_id: str, amount: int, price_version: str, now: int
) -> Sequence[AccountEvent]:
    """Spend `amount` at once, for what is delivered already. Raises as `reserve`."""
    reserved = reserve(account, charge_id, amount, price_version, now)
    for event in reserved:
        account = evolve(account, event)
    return [*reserved, *commit(account, charge_id, amount, now)]


def release(
    account: Account, charge_id: str, amount: int, reason: ReleaseReason, now: int
) -> Sequence[AccountEvent]:
    """Free what was reserved for a charge."""
    if not amount:
        return []
    balance = balance_at(account.balance, now)
    after = msgspec.structs.replace(balance, reserved=balance.reserved - amount)
    return [ChargeReleased(charge_id=charge_id, amount=amount, reason=reason, balance=after)]


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


def balance_at(balance: Balance, now: int) -> Balance:
    """The balance in the windows of `now`: what was spent in earlier ones counts no more."""
    day, month = window_of("day", now).start, window_of("month", now).start
    return Balance(
        reserved=balance.reserved,
        day_start=day,
        day_spent=balance.day_spent if balance.day_start == day else 0,
        month_start=month,
        month_spent=balance.month_spent if balance.month_start == month else 0,
    )


class _Limit(NamedTuple):
    refusal: type[SpendingLimitReached]
    what: str
    window: CapWindow
    amount: int
    spent: int


def _limits(account: Account, balance: Balance) -> Iterator[_Limit]:
    for window, cap, spent, _ in _windows(account, balance):
        if cap is not None and cap.hard:
            yield _Limit(BudgetCapReached, "the budget cap", window, cap.limit, spent)
    quota = plan_of(account.plan_code).monthly_quota
    if quota is not None:
        yield _Limit(QuotaExhausted, "the plan's quota", "month", quota, balance.month_spent)


def _check_limits(account: Account, balance: Balance, amount: int, now: int) -> None:
    for limit in _limits(account, balance):
        left = max(0, limit.amount - limit.spent - balance.reserved)
        if amount > left:
            raise limit.refusal(
                f"{limit.what} leaves {left} nanodollars this {limit.window}, {amount} are needed",
                window=limit.window,
                limit_nanodollars=limit.amount,
                spent_nanodollars=limit.spent,
                reserved_nanodollars=balance.reserved,
                left_nanodollars=left,
                needed_nanodollars=amount,
                resets_at=iso(window_of(limit.window, now).end),
            )


def _windows(
    account: Account, balance: Balance
) -> Iterator[tuple[CapWindow, SpendingCap | None, int, Alerted]]:
    yield "day", account.day_cap, balance.day_spent, account.day_alerted
    yield "month", account.month_cap, balance.month_spent, account.month_alerted


def _thresholds(account: Account, balance: Balance, now: int) -> Iterator[CapThresholdReached]:
    for window, cap, spent, alerted in _windows(account, balance):
        if cap is None:
            continue
        bounds = window_of(window, now)
        before = alerted.percent if alerted.start == bounds.start else 0
        for percent in cap.alert_percents:
            if percent > before and spent * 100 >= cap.limit * percent:
                yield CapThresholdReached(
                    window=window,
                    window_start=bounds.start,
                    window_end=bounds.end,
                    percent=percent,
                    limit=cap.limit,
                    spent=spent,
                    hard=cap.hard,
                )


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
    return [_closed(period, state.carried)]


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


def evolve(state: Account, event: AccountEvent) -> Account:
    replace = msgspec.structs.replace
    match event:
        case PlanAssigned():
            return replace(state, plan_code=event.plan_code, subscription_id=event.subscription_id)
        case SpendingCapsSet():
            return replace(
                state,
                day_cap=event.day,
                month_cap=event.month,
                day_alerted=Alerted(),
                month_alerted=Alerted(),
            )
        case ChargeReserved() | ChargeReleased():
            return replace(state, balance=event.balance)
        case ChargeCommitted():
            return replace(state, balance=event.balance, period=_spent(state, event))
        case UsagePeriodOpened():
            return replace(state, period=UsagePeriod(event.period_start, event.period_end))
        case UsagePeriodClosed():
            return replace(state, period=None, carried=event.carried_out)
        case EvaluationKeyAdmitted() | EvaluationKeyReleased():
            return replace(state, evaluation_keys=event.live)
        case CapThresholdReached():
            alerted = Alerted(event.window_start, event.percent)
            if event.window == "day":
                return replace(state, day_alerted=alerted)
            return replace(state, month_alerted=alerted)
    assert_never(event)


def _spent(state: Account, event: ChargeCommitted) -> UsagePeriod | None:
    period = state.period
    if period is None or state.plan_code != PAYG or period.start != event.balance.month_start:
        return period
    return msgspec.structs.replace(period, spent=period.spent + event.amount)


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
