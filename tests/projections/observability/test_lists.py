"""What lists are made of: places in an order, patterns, and means that no order changes."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from projections.observability.ordering import Key, Order, Query, Window, like, page_of
from projections.observability.score_list import mean

ORDER = Order((Key("at", "instant", descending=True), Key("id", "text")))


def test_a_place_is_told_by_the_order_s_own_keys() -> None:
    assert ORDER.selected == "toUnixTimestamp64Micro(at) AS key_0, id AS key_1"
    assert ORDER.by == "at DESC, id ASC"
    assert ORDER.place({"key_1": "x", "other": 0, "key_0": 7}) == [7, "x"]


def test_a_row_is_behind_a_place_by_its_first_key_that_differs() -> None:
    moment = "fromUnixTimestamp64Micro({after_0:Int64}, 'UTC')"
    assert ORDER.behind([7, "x"]) == Query(
        f"at <= {moment} AND (at < {moment} OR (at = {moment} AND"
        " (id > {after_1:String} OR (id = {after_1:String} AND false))))",
        {"after_0": 7, "after_1": "x"},
    )
    assert ORDER.behind(None) == Query("true", {})


def test_a_page_asks_for_one_row_more() -> None:
    found = page_of("id", Query("FROM t WHERE a", {"a": 1}), ORDER, Window(25, 50))
    assert found.params == {"a": 1, "limit": 26, "offset": 50}


def test_a_pattern_takes_its_text_as_it_is() -> None:
    assert like("50%_\\A") == "%50\\%\\_\\\\a%"


@given(st.lists(st.floats(-1e30, 1e30), min_size=1).flatmap(st.permutations))
def test_a_mean_is_that_of_the_values_to_15_digits(values: list[float]) -> None:
    units = sum(int(Fraction(value) * 10**30) for value in values)
    expected = sum(map(Fraction, values)) / len(values)
    found = mean(str(units), len(values))
    assert found is not None
    assert abs(Fraction(found) - expected) <= max(
        abs(expected) * Fraction(1, 10**14), Fraction(1, 10**28)
    )


def test_nothing_has_no_mean() -> None:
    assert mean("0", 0) is None
    assert mean("150000000000000000000000000000", 1) == 0.15
