"""Where a page of the newest calls is looked for."""

from projections.observability.items import PERIOD_MICROS
from projections.observability.llm_call_list import Selection, newest_of_few
from projections.observability.ordering import Window

ALL = Selection(tenant="ten_1")


def looked_for(window: Window, periods: list[int], selection: Selection = ALL) -> list[int | None]:
    return [part.since for part in newest_of_few(selection, window, periods)]


def test_few_calls_are_looked_for_where_enough_are_filed_and_then_everywhere() -> None:
    assert looked_for(Window(2), [3, 1, 2, 4]) == [2 * PERIOD_MICROS, None]
    assert looked_for(Window(1, 1), [3, 1, 2, 4]) == [2 * PERIOD_MICROS, None]
    assert looked_for(Window(4), [3, 1, 2, 4]) == [None]
    assert looked_for(Window(25), []) == []


def test_behind_a_place_only_what_is_filed_before_it_counts() -> None:
    behind = Window(1, 0, (3 * PERIOD_MICROS + 1, "run"))
    assert looked_for(behind, [3, 1, 2, 4, 3]) == [PERIOD_MICROS, None]
    assert looked_for(behind, [3, 4, 2, 3]) == [None]


def test_nothing_is_looked_for_that_was_not_selected() -> None:
    selection = Selection(tenant="ten_1", since=2 * PERIOD_MICROS + 1)
    assert looked_for(Window(1), [2, 2, 2], selection) == [selection.since, selection.since]
