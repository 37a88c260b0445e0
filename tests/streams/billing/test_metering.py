"""Metering, pure: windows add up, alerts come once, calls count once."""

from functools import reduce

from hypothesis import given
from hypothesis import strategies as st

from schemas.billing.budget import BudgetReached, BudgetRemoved, BudgetSet
from schemas.billing.usage import UsageRecorded
from schemas.billing.window import WINDOW_KINDS, window_of
from schemas.envelope import Actor, Envelope
from schemas.observability.run import LlmCall, LlmCallsRecorded
from streams.billing.metering import (
    Alert,
    Amount,
    BudgetEnded,
    BudgetStands,
    State,
    Step,
    Used,
    WindowKey,
    keys_of,
    mark,
    read,
    step,
)

AT = 1_700_000_000_000_000
HOUR = 3_600_000_000
DAY = window_of("day", AT)
BUDGET = BudgetSet(
    budget_id="m@day", revision=1, meter="m", window="day", limit=10, alert_percents=[50, 100]
)
STANDS = BudgetStands(BUDGET, DAY.start)
KEY = WindowKey("m", "day", DAY.start)


def envelope(type: str = "x") -> Envelope:
    return Envelope("evt_1", type, "ten_1", "observability.run/run_1", 1, AT, Actor("user", "u"))


def folded(*steps: Step, state: State | None = None) -> State:
    return reduce(step, steps, state or State())


def test_a_usage_counts_in_its_hour_day_and_month() -> None:
    state = folded(Used("m", 3, AT), Used("m", 4, AT + HOUR))
    assert state.amounts == {
        WindowKey("m", "hour", window_of("hour", AT).start): Amount(3, 1),
        WindowKey("m", "hour", window_of("hour", AT).end): Amount(4, 1),
        KEY: Amount(7, 2),
        WindowKey("m", "month", window_of("month", AT).start): Amount(7, 2),
    }


def test_alerts_come_when_a_share_is_reached_with_the_total_that_did_it() -> None:
    state = folded(STANDS, Used("m", 4, AT))
    assert state.alerts == {}
    state = folded(Used("m", 1, AT), state=state)
    assert state.alerts == {Alert("m@day", 1, DAY.start, 50): 5}
    state = folded(Used("m", 7, AT), Used("m", 1, AT), state=state)
    assert state.alerts == {
        Alert("m@day", 1, DAY.start, 50): 5,
        Alert("m@day", 1, DAY.start, 100): 12,
    }


def test_one_usage_may_reach_every_share() -> None:
    assert set(folded(STANDS, Used("m", 99, AT)).alerts) == {
        Alert("m@day", 1, DAY.start, 50),
        Alert("m@day", 1, DAY.start, 100),
    }


def test_another_meter_reaches_nothing() -> None:
    assert folded(STANDS, Used("n", 99, AT)).alerts == {}


def test_a_budget_looks_at_what_its_windows_have_come_to_but_not_further_back() -> None:
    used = folded(Used("m", 99, AT), Used("m", 99, AT + 24 * HOUR), Used("m", 99, AT - 24 * HOUR))
    alerts = folded(STANDS, state=used).alerts
    assert {alert.window_start for alert in alerts} == {DAY.start, DAY.end}
    late = folded(STANDS, Used("m", 99, AT - 24 * HOUR))
    assert late.alerts == {}


def test_a_changed_budget_starts_its_alerts_anew_and_a_removed_one_has_none() -> None:
    used = folded(STANDS, Used("m", 10, AT))
    changed = BudgetSet(
        budget_id="m@day", revision=2, meter="m", window="day", limit=5, alert_percents=[100]
    )
    state = folded(BudgetStands(changed, DAY.start), state=used)
    assert set(state.alerts) - set(used.alerts) == {Alert("m@day", 2, DAY.start, 100)}
    ended = folded(BudgetEnded("m@day"), Used("m", 10, AT), state=folded(STANDS))
    assert ended.alerts == {}


def test_events_are_read_as_what_they_used() -> None:
    used = UsageRecorded(usage_id="u", meter="m", quantity=3, occurred_at=AT - HOUR)
    assert read(used, envelope()) == [Used("m", 3, AT - HOUR)]
    assert read(BUDGET, envelope()) == [STANDS]
    assert read(BudgetRemoved(budget_id="m@day", revision=1), envelope()) == [BudgetEnded("m@day")]
    reached = BudgetReached(
        budget_id="m@day", revision=1, meter="m", window="day", window_start=0, window_end=1,
        percent=50, limit=10, total=5,
    )  # fmt: skip
    assert read(reached, envelope()) == []


def call(id: str, tokens_in: int = 10, cost: float | None = 0.000_000_5) -> LlmCall:
    return LlmCall(id=id, model="m", tokens_in=tokens_in, tokens_out=0, cost=cost)


def test_llm_calls_are_metered_in_sums_and_what_is_zero_is_left_out() -> None:
    event = LlmCallsRecorded(calls=[call("a"), call("b", 5, None)])
    assert read(event, envelope()) == [
        Used("llm.calls", 2, AT, 2),
        Used("llm.tokens_in", 15, AT, 2),
        Used("llm.cost_nanodollars", 500, AT, 2),
    ]


def test_a_call_that_we_priced_is_metered_at_its_price() -> None:
    priced = LlmCall(
        id="p", model="m", tokens_in=1, tokens_out=0, cost_source="default", cost_pico=1_499_500
    )
    assert read(LlmCallsRecorded(calls=[priced, call("a", 0)]), envelope())[2:] == [
        Used("llm.cost_nanodollars", 1_500 + 500, AT, 2)
    ]


def test_a_call_that_counted_before_or_comes_twice_counts_once() -> None:
    event = LlmCallsRecorded(calls=[call("a", 1), call("b", 2), call("b", 100), call("c", 4)])
    assert read(event, envelope(), {mark("a")})[:2] == [
        Used("llm.calls", 2, AT, 2),
        Used("llm.tokens_in", 6, AT, 2),
    ]
    assert read(event, envelope(), {mark("a"), mark("b"), mark("c")}) == []


usages = st.builds(
    Used,
    meter=st.sampled_from(["m", "n"]),
    quantity=st.integers(1, 10),
    at=st.integers(AT - 40 * HOUR, AT + 40 * HOUR),
)
steps = usages | st.just(STANDS) | st.just(BudgetEnded("m@day"))


@given(st.lists(steps, max_size=40))
def test_totals_are_the_sums_and_no_alert_is_early_or_comes_twice(sequence: list[Step]) -> None:
    state, seen = State(), dict[Alert, int]()
    for event in sequence:
        before, state = state, step(state, event)
        assert all(state.alerts[alert] == total for alert, total in before.alerts.items())
        for alert in set(state.alerts) - set(before.alerts):
            assert alert not in seen
            seen[alert] = state.alerts[alert]
            key = WindowKey("m", "day", alert.window_start)
            assert state.alerts[alert] == state.amounts[key].quantity >= alert.percent / 10
    expected: dict[WindowKey, int] = {}
    for event in sequence:
        if isinstance(event, Used):
            for key in keys_of(event):
                expected[key] = expected.get(key, 0) + event.quantity
    assert {key: amount.quantity for key, amount in state.amounts.items()} == expected
    assert {key.kind for key in expected} <= set(WINDOW_KINDS)


@given(st.lists(usages, max_size=30), st.randoms(use_true_random=False))
def test_the_order_of_usage_changes_no_total(sequence: list[Used], dice: object) -> None:
    shuffled = list(sequence)
    dice.shuffle(shuffled)  # type: ignore[attr-defined]
    assert folded(*sequence).amounts == folded(*shuffled).amounts
