"""A tenant's price of a model is set, changed and removed; each setting has its time."""

from hypothesis import given
from hypothesis import strategies as st

from commands.decider import Context
from commands.observability.model_cost import (
    DECIDER,
    ModelCostCommand,
    RemoveModelCost,
    SetModelCost,
)
from commands.observability.prices import Override, Price, with_event
from commands.refusals import NotFound
from schemas.observability.model_cost import ModelCostRemoved, ModelCostSet
from tests.given import HUMAN, NOW, Given

MODEL = "openai/gpt-4o"
SET = SetModelCost(input_price_pico=2_000_000, output_price_pico=8_000_000)
DEARER = SetModelCost(input_price_pico=2_000_000, output_price_pico=9_000_000)
WAS_SET = ModelCostSet(
    model=MODEL, revision=1, input_price_pico=2_000_000, output_price_pico=8_000_000, since=NOW
)
REMOVED = ModelCostRemoved(model=MODEL, revision=1, until=NOW + 5)


def test_a_cost_is_set_from_now_on() -> None:
    Given(DECIDER, id=MODEL).when(SET).then(WAS_SET)


def test_a_change_ends_the_one_before_and_none_stays_quiet() -> None:
    given = Given(DECIDER, WAS_SET, id=MODEL).at(NOW + 7).when(SET).then_quiet()
    given.when(DEARER).then(
        ModelCostSet(
            model=MODEL, revision=2, input_price_pico=2_000_000, output_price_pico=9_000_000,
            since=NOW + 7, replaces=1,
        )
    )  # fmt: skip


def test_a_cost_is_removed_and_may_come_back() -> None:
    given = Given(DECIDER, WAS_SET, id=MODEL).at(NOW + 5).when(RemoveModelCost()).then(REMOVED)
    given.when(RemoveModelCost()).then_refused(NotFound)
    given.at(NOW + 9).when(SET).then(
        ModelCostSet(
            model=MODEL, revision=2, input_price_pico=2_000_000, output_price_pico=8_000_000,
            since=NOW + 9, replaces=0,
        )
    )  # fmt: skip


def test_removing_what_never_was_is_refused() -> None:
    Given(DECIDER, id=MODEL).when(RemoveModelCost()).then_refused(NotFound)


def test_a_clock_that_went_back_does_not_turn_the_times_around() -> None:
    given = Given(DECIDER, WAS_SET, id=MODEL).at(NOW - 10)
    given.when(RemoveModelCost()).then(ModelCostRemoved(model=MODEL, revision=1, until=NOW))
    given.when(DEARER).then(
        ModelCostSet(
            model=MODEL, revision=2, input_price_pico=2_000_000, output_price_pico=9_000_000,
            since=NOW, replaces=0,
        )
    )  # fmt: skip


def test_the_answer_is_what_stands() -> None:
    context = Context("ten_1", MODEL, HUMAN, NOW, "cmd_1", {}, {})
    state = DECIDER.evolve(DECIDER.initial, WAS_SET)
    assert DECIDER.answer(SET, state, context) == WAS_SET
    assert DECIDER.answer(RemoveModelCost(), DECIDER.evolve(state, REMOVED), context) == REMOVED


commands = st.builds(
    SetModelCost, input_price_pico=st.integers(0, 2), output_price_pico=st.integers(0, 1)
) | st.just(RemoveModelCost())


@given(st.lists(st.tuples(commands, st.integers(-3, 10)), max_size=20))
def test_every_instant_has_the_price_that_was_set_last(
    steps: list[tuple[ModelCostCommand, int]],
) -> None:
    state, history, now = DECIDER.initial, (), NOW
    expected: dict[int, Price | None] = {}
    for command, passed in steps:
        now += passed
        context = Context("ten_1", MODEL, HUMAN, now, "cmd_1", {}, {})
        try:
            events = DECIDER.decide(command, state, context)
        except NotFound:
            continue
        for event in events:
            state = DECIDER.evolve(state, event)
            history = with_event(with_event(history, event), event)  # twice is once
            since = event.since if isinstance(event, ModelCostSet) else event.until
            holds = state.current
            expected[since] = holds and Price(holds.input_price_pico, holds.output_price_pico)
    assert [item.revision for item in history] == list(range(1, len(history) + 1))
    for instant, price in expected.items():
        later = [since for since in expected if since > instant]
        for moment in {instant, min(later, default=instant + 100) - 1}:
            found = [item.price for item in history if item.holds(moment)]
            assert found == ([] if price is None else [price])


def test_a_history_ignores_what_it_has_seen() -> None:
    history = with_event((), WAS_SET)
    assert history == (Override(1, Price(2_000_000, 8_000_000), NOW),)
    assert with_event(history, WAS_SET) == history
    ended = with_event(history, REMOVED)
    assert ended == (Override(1, Price(2_000_000, 8_000_000), NOW, NOW + 5),)
    assert with_event(ended, WAS_SET) == ended
