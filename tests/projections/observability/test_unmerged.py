"""Which parts have no row that others did not have, and which stretches of time a selection is."""

from uuid import UUID, uuid4

from hypothesis import given
from hypothesis import strategies as st

from projections.observability.kept_sums import HOUR_MICROS
from projections.observability.llm_call_list import Selection
from projections.observability.ordering import Query
from projections.observability.unmerged import (
    Part,
    as_they_lie,
    covered,
    tables_of,
    without_others,
)


def part(first: int, last: int | None = None) -> Part:
    return Part(uuid4(), first, first if last is None else last)


def test_a_part_that_was_there_is_covered_and_a_new_one_is_not() -> None:
    old, new = part(1), part(2)
    assert covered((old, new), (old,)) == [old.id]
    assert covered((old,), ()) == []


def test_a_part_that_was_merged_of_covered_ones_is_covered() -> None:
    kept, merged, changed = part(5), part(1, 3), part(4)
    assert covered((merged, changed, kept), (part(1), part(2, 3), part(4), kept)) == [
        merged.id,
        changed.id,
        kept.id,
    ]


def test_a_part_with_an_insert_in_between_is_not_covered() -> None:
    kept = part(4)
    assert covered((part(1, 3), kept), (part(1), part(3), kept)) == [kept.id]


def test_parts_of_another_table_cover_nothing_though_they_are_numbered_alike() -> None:
    assert covered((part(1, 2),), (part(1), part(2))) == []


@given(st.sets(st.integers(1, 12), min_size=1), st.sets(st.integers(1, 12)), st.data())
def test_no_covered_part_has_an_insert_that_was_not_there(
    seen: set[int], later: set[int], data: st.DataObject
) -> None:
    before = tuple(part(number) for number in sorted(seen))
    inserts = sorted(seen | later)
    now, begin = [], 0
    while begin < len(inserts):
        end = data.draw(st.integers(begin, len(inserts) - 1))
        same = [each for each in before if each.first == inserts[begin] and begin == end]
        now.append((*same, part(inserts[begin], inserts[end]))[0])
        begin = end + 1
    for id in covered(tuple(now), before):
        found = next(each for each in now if each.id == id)
        assert {each for each in inserts if found.first <= each <= found.last} <= seen


def test_of_parts_without_ids_nothing_is_known() -> None:
    unnamed, named = Part(UUID(int=0), 1, 1), part(2)
    assert covered((unnamed, named), (unnamed, named)) == [named.id]


def test_a_query_of_rows_as_they_lie_replaces_nothing() -> None:
    query = Query("SELECT a FROM llm_calls_v6", {"tenant": "t"})
    assert as_they_lie(query) == Query(
        "SELECT a FROM llm_calls_v6 SETTINGS final = 0", query.params
    )


def test_other_parts_are_looked_at_for_rows_of_the_tenant_in_one_query() -> None:
    ids = [UUID(int=7)], [UUID(int=8)]
    assert without_others("t", dict(zip("xy", ids, strict=True))) == Query(
        "SELECT count() = 0 AS settled FROM (SELECT 1 FROM ("
        "SELECT 1 FROM x WHERE tenant = {tenant:String}"
        " AND _part_uuid NOT IN {among_0:Array(UUID)}"
        " UNION ALL SELECT 1 FROM y WHERE tenant = {tenant:String}"
        " AND _part_uuid NOT IN {among_1:Array(UUID)}) LIMIT 1) SETTINGS final = 0",
        {"tenant": "t", "among_0": ids[0], "among_1": ids[1]},
    )


def test_a_query_tells_by_its_tables_what_has_to_be_settled() -> None:
    query = Query("SELECT 1 FROM run_starts_v4, llm_calls_v6, spans_v2", {})
    assert tables_of(query) == ["llm_calls_v6", "run_starts_v4"]


instants = st.integers(0, 5 * HOUR_MICROS)


@given(st.none() | instants, st.none() | instants, instants)
def test_each_instant_of_a_selection_is_in_one_of_its_stretches(
    since: int | None, until: int | None, at: int
) -> None:
    def holds(part: Selection) -> bool:
        first, last = part.in_hours
        hour = at // HOUR_MICROS
        return (
            (part.since is None or at >= part.since)
            and (part.until is None or at < part.until)
            and (first is None or hour >= first)
            and (last is None or hour < last)
        )

    selection = Selection(tenant="t", since=since, until=until)
    found = sum(holds(part) for part in selection.stretches())
    assert found == holds(selection)
