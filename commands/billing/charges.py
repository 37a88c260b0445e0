"""What is charged to an account: reserved before the work, then committed or released. Pure.

The decider of what is charged for calls `reserve`, `commit` and `release` and emits what they
return, so a charge changes in the transaction of its job. The job remembers its own reservation;
the account knows their sum only, so it never grows.

`spent + reserved` of a window stays within every hard cap and the plan's quota: a reservation that
would exceed one is refused, and committing moves an amount from one term to the other. What is
still reserved when a window begins counts against the new one, in which it will be spent.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from commands.billing.account_state import (
    Account,
    Alerted,
    BudgetCapReached,
    QuotaExhausted,
    SpendingLimitReached,
    UsagePeriod,
    balance_at,
    evolve,
)
from commands.billing.plans import PAYG, plan_of
from schemas.billing.account import (
    AccountEvent,
    Balance,
    CapThresholdReached,
    CapWindow,
    ChargeCommitted,
    ChargeReleased,
    ChargeReserved,
    ReleaseReason,
    SpendingCap,
    UsagePeriodClosed,
    UsagePeriodOpened,
)
from schemas.billing.window import window_of
from schemas.instants import iso

NANODOLLARS_PER_CENT = 10_000_000


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
    over = [] if period is None else [closed(period, account.carried)]
    return [*over, UsagePeriodOpened(period_start=month.start, period_end=month.end)]


def closed(period: UsagePeriod, carried: int) -> UsagePeriodClosed:
    """A month that is over, with the whole cents of it and of what months before left over.

    carried: that rest, in nanodollars.
    """
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
