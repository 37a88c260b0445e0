"""Calls are repriced: each time is a version of its own, the same again is none."""

from hypothesis import given
from hypothesis import strategies as st

from commands.decider import Context
from commands.observability.repricing import (
    DECIDER,
    VERSIONS_MAX,
    RepriceCalls,
    TooManyRepricings,
)
from commands.refusals import InvalidCommand
from schemas.observability.repricing import CallsRepriced, NewPrice
from tests.given import HUMAN, NOW, Given


def price(pico: int = 1, since: int = 10, until: int = 20) -> NewPrice:
    return NewPrice(
        model="m", since=since, until=until, input_price_pico=pico, output_price_pico=pico,
        source="override", price_model="m", price_revision=1,
    )  # fmt: skip


def repriced(version: int, *prices: NewPrice, at: int = NOW) -> CallsRepriced:
    return CallsRepriced(version=version, repriced_at=at, prices=list(prices))


def test_calls_are_repriced_as_a_version() -> None:
    Given(DECIDER).when(RepriceCalls([price()])).then(repriced(1, price()))


def test_other_prices_are_the_next_version_and_the_same_stay_quiet() -> None:
    given = Given(DECIDER, repriced(1, price())).at(NOW + 1)
    given.when(RepriceCalls([price()])).then_quiet()
    given.when(RepriceCalls([price(2)])).then(repriced(2, price(2), at=NOW + 1))
    given.when(RepriceCalls([price()])).then(repriced(3, price(), at=NOW + 1))


def test_without_prices_there_is_nothing_to_do() -> None:
    Given(DECIDER).when(RepriceCalls([])).then_quiet()


def test_a_price_for_no_time_is_refused() -> None:
    Given(DECIDER).when(RepriceCalls([price(since=20)])).then_refused(InvalidCommand)


def test_there_is_an_end_to_it() -> None:
    given = Given(DECIDER, repriced(VERSIONS_MAX, price()))
    given.when(RepriceCalls([price(2)])).then_refused(TooManyRepricings)


@given(st.lists(st.integers(0, 3), max_size=20))
def test_versions_count_the_changes(steps: list[int]) -> None:
    state, versions = DECIDER.initial, []
    for pico in steps:
        context = Context("ten_1", "calls", HUMAN, NOW, "cmd_1", {}, {})
        for event in DECIDER.decide(RepriceCalls([price(pico)]), state, context):
            state = DECIDER.evolve(state, event)
            versions.append(event.version)
        assert state.last == (price(pico),)
    changes = sum(1 for at, pico in enumerate(steps) if at == 0 or steps[at - 1] != pico)
    assert versions == list(range(1, changes + 1))
