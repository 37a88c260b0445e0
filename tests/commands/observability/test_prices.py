"""Costs in whole picodollars, and which price holds for a name at an instant."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands.observability.prices import (
    UNPRICED,
    History,
    Override,
    Price,
    Priced,
    per_million,
    per_token,
    price_of,
)
from commands.observability.system_prices import SystemPrices
from schemas.observability.model_cost import PICODOLLARS, PRICE_MAX

TOKENS = st.integers(0, 10**12)
PRICES = st.builds(Price, st.integers(0, PRICE_MAX), st.integers(0, PRICE_MAX))


@pytest.mark.parametrize(
    ("dollars", "pico"),
    [(0, 0), (2.0, 2_000_000), (0.15, 150_000), (0.0375, 37_500), (1e-6, 1), (1e6, 10**12)],
)
def test_a_price_is_read_as_it_is_written(dollars: float, pico: int) -> None:
    assert per_token(dollars) == pico
    assert per_million(pico) == dollars


@given(st.integers(0, PRICE_MAX))
def test_a_price_survives_being_shown(pico: int) -> None:
    assert per_token(per_million(pico)) == pico


@given(st.decimals(0, 1_000_000, places=6))
def test_six_decimals_of_a_dollar_are_exact(dollars: Decimal) -> None:
    assert Fraction(per_token(float(dollars)), 1_000_000) == Fraction(dollars)


@given(PRICES, st.lists(st.tuples(TOKENS, TOKENS), max_size=20))
def test_costs_add_up_as_their_tokens_do(price: Price, calls: list[tuple[int, int]]) -> None:
    costs = [price.cost(*call) for call in calls]
    tokens_in, tokens_out = (sum(call[side] for call in calls) for side in (0, 1))
    assert sum(costs) == price.cost(tokens_in, tokens_out)
    dollars = Fraction(price.input_pico * tokens_in + price.output_pico * tokens_out, PICODOLLARS)
    assert Fraction(sum(costs), PICODOLLARS) == dollars


CHEAP, DEAR = Price(1, 2), Price(10, 20)
TABLE = SystemPrices(
    {
        "source": "a test",
        "providers": [
            {
                "id": "acme",
                "named": None,
                "claims": ["starts", "bolt"],
                "lends": [],
                "models": [["bolt", ["starts", "bolt"], [[0, 3, 4], [100, 5, 6]]]],
            }
        ],
    }
)


def held(model: str, overrides: dict[str, History], instant: int = 50) -> Priced:
    return price_of(TABLE, overrides, model, instant)


def test_without_a_price_of_ones_own_the_tables_holds() -> None:
    assert held("bolt", {}) == Priced("default", Price(3, 4), 0, "bolt")
    assert held("acme/bolt-2026-01-01", {}) == Priced("default", Price(3, 4), 0, "bolt")


def test_the_tables_price_is_the_one_of_the_time() -> None:
    assert held("bolt", {}, 99).price == Price(3, 4)
    assert held("bolt", {}, 100).price == Price(5, 6)


def test_an_unknown_model_has_no_price_but_ones_own() -> None:
    assert held("nut", {}) is UNPRICED
    assert held("nut", {"nut": (Override(1, DEAR, 0),)}) == Priced("override", DEAR, 1, "nut")


def test_a_price_for_the_row_holds_for_all_names_of_it() -> None:
    overrides = {"bolt": (Override(1, DEAR, 0),)}
    for name in ("bolt", "acme/bolt", "bolt-2"):
        assert held(name, overrides) == Priced("override", DEAR, 1, "bolt")


def test_a_price_for_the_very_name_goes_first_and_is_for_no_other() -> None:
    overrides = {"bolt": (Override(1, DEAR, 0),), "bolt-2": (Override(4, CHEAP, 0),)}
    assert held("bolt-2", overrides) == Priced("override", CHEAP, 4, "bolt-2")
    assert held("bolt-3", overrides) == Priced("override", DEAR, 1, "bolt")
    assert held("bolt", {"bolt-2": (Override(4, CHEAP, 0),)}).source == "default"


def test_prices_hold_from_their_time_until_the_next() -> None:
    history = (Override(1, DEAR, 10, 20), Override(2, CHEAP, 20, 30), Override(3, DEAR, 40))
    overrides = {"bolt": history}
    found = {instant: held("bolt", overrides, instant) for instant in (9, 10, 19, 20, 29, 30, 40)}
    assert {instant: priced.revision for instant, priced in found.items()} == {
        9: 0, 10: 1, 19: 1, 20: 2, 29: 2, 30: 0, 40: 3,
    }  # fmt: skip
    assert found[9].source == found[30].source == "default"
