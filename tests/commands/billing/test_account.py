"""The account: what is reserved and spent never exceeds a hard cap or the plan's quota."""

import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commands.billing import account
from commands.billing.account import assign_plan
from commands.billing.account_state import (
    Account,
    AssignPlan,
    BudgetCapReached,
    CloseUsagePeriod,
    QuotaExhausted,
    SetSpendingCaps,
    SpendingLimitReached,
    balance_at,
    evolve,
)
from commands.billing.charges import NANODOLLARS_PER_CENT, charge, commit, release, reserve
from commands.billing.plans import PLANS, plan_of
from commands.refusals import ActorForbidden, AlreadyDone, InvalidCommand
from schemas.billing.account import (
    Balance,
    CapThresholdReached,
    ChargeCommitted,
    ChargeReleased,
    ChargeReserved,
    PlanAssigned,
    SpendingCap,
    SpendingCapsSet,
    UsagePeriodClosed,
    UsagePeriodOpened,
)
from schemas.billing.window import window_of
from schemas.envelope import SYSTEM
from schemas.instants import iso
from tests.given import HUMAN, NOW, Given

DAY, MONTH = window_of("day", NOW), window_of("month", NOW)
HARD = SpendingCap(100, True, [50, 100])
OPENED = UsagePeriodOpened(period_start=MONTH.start, period_end=MONTH.end)
ALERT = SpendingCap(100, False, [80])


def folded(*events: Any) -> Account:
    state = Account()
    for event in events:
        state = evolve(state, event)
    return state


def balance(reserved: int = 0, day: int = 0, month: int | None = None) -> Balance:
    return Balance(reserved, DAY.start, day, MONTH.start, day if month is None else month)


def reserved(amount: int, after: Balance, id: str = "job_1") -> ChargeReserved:
    return ChargeReserved(charge_id=id, amount=amount, price_version="v", balance=after)


def test_caps_are_set_changed_and_taken_away() -> None:
    given_ = Given(account.DECIDER, id="account")
    both = SetSpendingCaps(day=SpendingCap(5, True, [100, 50, 50]), month=ALERT)
    was_set = SpendingCapsSet(day=SpendingCap(5, True, [50, 100]), month=ALERT)
    given_.when(both).then(was_set).when(both).then_quiet()
    given_.when(SetSpendingCaps(day=HARD)).then(SpendingCapsSet(day=HARD, month=ALERT))
    given_.when(SetSpendingCaps(removed=["day"])).then(SpendingCapsSet(month=ALERT))
    given_.when(SetSpendingCaps()).then_quiet()


def test_a_day_s_cap_above_the_month_s_is_refused() -> None:
    command = SetSpendingCaps(day=SpendingCap(101, True, [100]), month=HARD)
    Given(account.DECIDER, id="account").when(command).then_refused(InvalidCommand)


def test_a_charge_is_reserved_then_committed_or_released() -> None:
    [first] = reserve(Account(), "job_1", 30, "v", NOW)
    assert first == reserved(30, balance(30))
    [second] = reserve(folded(first), "job_2", 20, "v", NOW)
    assert second == reserved(20, balance(50), "job_2")
    opened, spent = commit(folded(first, second), "job_1", 30, NOW)
    assert opened == OPENED
    assert spent == ChargeCommitted(charge_id="job_1", amount=30, balance=balance(20, 30))
    [freed] = release(folded(first, second, spent), "job_2", 20, "cancelled", NOW)
    assert freed == ChargeReleased(
        charge_id="job_2", amount=20, reason="cancelled", balance=balance(0, 30)
    )


def test_what_is_delivered_already_is_reserved_and_spent_at_once() -> None:
    state = folded(SpendingCapsSet(day=HARD))
    first, opened, second, reached = charge(state, "job_1", 60, "v", NOW)
    assert (first, opened) == (reserved(60, balance(60)), OPENED)
    assert second == ChargeCommitted(charge_id="job_1", amount=60, balance=balance(0, 60))
    assert thresholds([reached]) == [("day", 50, 60)]
    with pytest.raises(BudgetCapReached):
        charge(folded(SpendingCapsSet(day=HARD), first, second), "job_2", 41, "v", NOW)


def test_what_is_free_of_charge_leaves_no_trace() -> None:
    full = folded(SpendingCapsSet(day=SpendingCap(0, True, [100])))
    assert reserve(full, "job_1", 0, "v", NOW) == []
    assert commit(full, "job_1", 0, NOW) == release(full, "job_1", 0, "failed", NOW) == []


def test_a_hard_cap_refuses_and_says_what_is_left_and_when_it_resets() -> None:
    state = folded(SpendingCapsSet(day=HARD), reserved(40, balance(40, 35)))
    assert reserve(state, "job_2", 25, "v", NOW)
    with pytest.raises(BudgetCapReached) as caught:
        reserve(state, "job_2", 26, "v", NOW)
    assert caught.value.kind == "payment_required"
    assert caught.value.details == {
        "window": "day",
        "limit_nanodollars": 100,
        "spent_nanodollars": 35,
        "reserved_nanodollars": 40,
        "left_nanodollars": 25,
        "needed_nanodollars": 26,
        "resets_at": iso(DAY.end),
    }


def test_a_cap_that_only_alerts_refuses_nothing() -> None:
    state = folded(SpendingCapsSet(day=ALERT, month=ALERT))
    assert len(reserve(state, "job_1", 1_000, "v", NOW)) == 1


def test_a_plan_s_quota_is_the_month_s() -> None:
    quota = plan_of("trial").monthly_quota
    assert quota is not None
    state = folded(PlanAssigned(plan_code="trial"), reserved(1, balance(0, 0, quota - 5)))
    assert reserve(state, "job_1", 5, "v", NOW)
    with pytest.raises(QuotaExhausted) as caught:
        reserve(state, "job_1", 6, "v", NOW)
    assert caught.value.details["resets_at"] == iso(MONTH.end)
    # The next month begins anew.
    assert reserve(state, "job_1", 6, "v", MONTH.end)


def test_a_new_window_starts_with_what_is_still_reserved() -> None:
    state = folded(SpendingCapsSet(day=HARD), reserved(40, balance(40, 60)))
    with pytest.raises(BudgetCapReached):
        reserve(state, "job_2", 1, "v", DAY.end - 1)
    [event] = reserve(state, "job_2", 60, "v", DAY.end)
    assert event.balance.day_spent == 0
    with pytest.raises(BudgetCapReached):
        reserve(state, "job_2", 61, "v", DAY.end)


def thresholds(events: Sequence[Any]) -> list[tuple[str, int, int]]:
    reached = [event for event in events if isinstance(event, CapThresholdReached)]
    return [(event.window, event.percent, event.spent) for event in reached]


def test_each_share_of_a_cap_is_reached_once_a_window_and_anew_by_new_caps() -> None:
    state = folded(SpendingCapsSet(day=HARD, month=ALERT), reserved(100, balance(100)))
    first = commit(state, "job_1", 60, NOW)
    assert thresholds(first) == [("day", 50, 60)]
    for event in first:
        state = evolve(state, event)
    second = commit(state, "job_2", 40, NOW)
    assert thresholds(second) == [("day", 100, 100), ("month", 80, 100)]
    for event in second:
        state = evolve(state, event)
    again = evolve(state, reserved(10, balance(10, 100)))
    assert thresholds(commit(again, "job_3", 10, NOW)) == []
    changed = evolve(again, SpendingCapsSet(day=HARD))
    assert thresholds(commit(changed, "job_3", 10, NOW)) == [("day", 50, 110), ("day", 100, 110)]


def test_a_plan_is_assigned_once() -> None:
    [event] = assign_plan(Account(), "pro", "sub_1")
    assert event == PlanAssigned(plan_code="pro", subscription_id="sub_1")
    assert assign_plan(folded(event), "pro", "sub_1") == []
    assert assign_plan(Account(), "payg", "") == []


def test_an_unknown_plan_of_a_later_release_is_pay_as_you_go() -> None:
    assert plan_of("platinum") is PLANS["payg"]


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 2**32),
    st.integers(0, 200),
    st.lists(st.sampled_from(["submit", "end", "sleep"]), max_size=60),
)
def test_no_order_of_charges_exceeds_a_hard_cap(seed: int, cap: int, steps: list[str]) -> None:
    """At every instant, in every window, what is spent and reserved fits the cap of that time."""
    chance, now = random.Random(seed), NOW
    state = folded(SpendingCapsSet(day=SpendingCap(cap, True, [50])))
    running: dict[str, int] = {}
    spent: dict[int, int] = {}
    for number, step in enumerate(steps):
        events: Sequence[Any] = []
        if step == "submit":
            amount = chance.randint(0, 60)
            try:
                events = reserve(state, f"job_{number}", amount, "v", now)
            except SpendingLimitReached:
                continue
            running[f"job_{number}"] = amount
        elif step == "end" and running:
            id = chance.choice(sorted(running))
            amount = running.pop(id)
            if chance.random() < 0.5:
                events = release(state, id, amount, "failed", now)
            else:
                events = commit(state, id, amount, now)
                day = window_of("day", now).start
                spent[day] = spent.get(day, 0) + amount
        elif step == "sleep":
            now += chance.randint(0, 86_400_000_000)
        for event in events:
            state = evolve(state, event)
        assert state.balance.reserved == sum(running.values()), f"seed {seed}"
        today = balance_at(state.balance, now)
        assert today.day_spent == spent.get(today.day_start, 0), f"seed {seed}"
        assert today.day_spent + today.reserved <= cap, f"seed {seed}"


def test_the_operator_puts_a_tenant_on_a_plan_and_nobody_else_does() -> None:
    enterprise = PlanAssigned(plan_code="enterprise")
    operator = Given(account.DECIDER, actor=SYSTEM)
    operator.when(AssignPlan("enterprise")).then(enterprise)
    operator.when(AssignPlan("enterprise")).then_quiet()
    Given(account.DECIDER).when(AssignPlan("enterprise")).then_refused(ActorForbidden)
    paid = PlanAssigned(plan_code="pro", subscription_id="sub_1")
    subscribed = Given(account.DECIDER, paid, actor=SYSTEM)
    subscribed.when(AssignPlan("enterprise")).then_refused(AlreadyDone)


def closed(spent: int, before: int, cents: int, after: int) -> UsagePeriodClosed:
    return UsagePeriodClosed(
        period_start=MONTH.start,
        period_end=MONTH.end,
        spent=spent,
        carried_in=before,
        carried_out=after,
        amount_minor=cents,
    )


def test_a_month_of_pay_as_you_go_is_closed_when_it_is_over_and_less_than_a_cent_carried_on() -> (
    None
):
    cent = NANODOLLARS_PER_CENT
    state = folded(*charge(Account(), "job_1", 2 * cent + 7, "v", NOW))
    close = CloseUsagePeriod(MONTH.start)
    month = Given(account.DECIDER, actor=SYSTEM, now=MONTH.end)
    month.state = state
    month.when(close).then(closed(2 * cent + 7, 0, 2, 7)).when(close).then_quiet()
    # The next month begins with what was carried.
    [_, opened, spent] = charge(month.state, "job_2", cent - 7, "v", MONTH.end)
    assert opened.period_start == MONTH.end
    after = evolve(evolve(month.state, opened), spent)
    assert (after.period.spent, after.carried) == (cent - 7, 7)
    # By the next charge as well as by its timer, should that be late.
    [_, late, again, _] = charge(state, "job_2", 1, "v", MONTH.end)
    assert (late, again.period_start) == (closed(2 * cent + 7, 0, 2, 7), MONTH.end)
    early = Given(account.DECIDER, actor=SYSTEM, now=MONTH.end - 1)
    early.state = state
    early.when(close).then_refused(InvalidCommand)
    early.by(HUMAN).at(MONTH.end).when(close).then_refused(ActorForbidden)


def test_what_is_spent_on_a_subscription_or_a_trial_is_not_billed_again() -> None:
    begun = folded(*charge(Account(), "job_1", 5, "v", NOW))
    paid = evolve(begun, PlanAssigned(plan_code="pro", subscription_id="sub_1"))
    for event in charge(paid, "job_2", 100, "v", NOW):
        paid = evolve(paid, event)
    assert (paid.period.spent, paid.balance.month_spent) == (5, 105)
    on_trial = folded(PlanAssigned(plan_code="trial"))
    assert not any(
        isinstance(event, UsagePeriodOpened) for event in charge(on_trial, "job_1", 5, "v", NOW)
    )


def test_whatever_is_spent_in_months_is_billed_to_the_last_cent() -> None:
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    state, spent, now, billed = Account(), 0, NOW, 0
    for number in range(300):
        amount = chance.randint(1, 3 * NANODOLLARS_PER_CENT)
        for event in charge(state, f"job_{number}", amount, "v", now):
            state = evolve(state, event)
            if isinstance(event, UsagePeriodClosed):
                billed += event.amount_minor
        spent += amount
        now += chance.randint(0, 10 * 86_400_000_000)
    left = state.period.spent + state.carried
    assert billed * NANODOLLARS_PER_CENT + left == spent, f"seed {seed}"
    assert billed > 0
