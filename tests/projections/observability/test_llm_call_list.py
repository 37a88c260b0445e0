"""Where a page of the newest calls is looked for."""

from hypothesis import given, settings
from hypothesis import strategies as st

from projections.observability.llm_call_list import Selection, newest_of_few
from projections.observability.ordering import Window

ALL = Selection(tenant="ten_1")
CALLS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 99)), unique=True)
"""Instants, of which many are equal, and what else tells two calls apart."""


@settings(database=None)
@given(CALLS, st.integers(1, 5), st.integers(0, 5), st.integers(0, 9))
def test_of_few_calls_the_page_and_whether_there_are_more_lie_where_it_is_looked_for(
    calls: list[tuple[int, int]], limit: int, offset: int, behind: int
) -> None:
    ordered = sorted(calls, reverse=True)
    instants = [at for at, _ in calls]
    windows = [(Window(limit, offset), ordered)]
    windows += [
        (Window(limit, 0, place), ordered[number + 1 :])
        for number, place in enumerate(ordered[:behind])
    ]
    for window, rest in windows:
        since = newest_of_few(ALL, window, instants).since
        near = [call for call in rest if since is None or call[0] >= since]
        deep = window.offset + window.limit + 1
        assert near[:deep] == rest[:deep]


def test_no_more_is_looked_through_than_the_page_needs() -> None:
    assert newest_of_few(ALL, Window(2), [30, 10, 20, 40]).since == 20
    assert newest_of_few(ALL, Window(2, 0, (30, "run")), [30, 10, 20, 40, 5]).since == 5
    assert newest_of_few(ALL, Window(4), [30, 10, 20, 40]).since is None
