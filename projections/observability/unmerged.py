"""Reading rows as they lie, which is exact where no row is a duplicate.

Replacing duplicates when reading (FINAL) takes most of a query's time, asks few indexes and none of
the sums that the engine keeps (`ClickHouseView.projections`). Yet nearly always there is nothing to
replace. A table consists of parts. They never change, no part has a duplicate within it, and the
rows of a merged one are those of the parts it was made of. So once some parts are found to have no
duplicates among each other, this stays true. Then a query may read rows as they lie, if on its own
snapshot all of the tenant's are in these parts, which it says itself (`settled`).
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from projections.clickhouse import ClickHouseView
from projections.observability.llm_calls import LLM_CALLS
from projections.observability.ordering import Query
from projections.observability.run_completions import RUN_COMPLETIONS
from projections.observability.run_starts import RUN_STARTS

VIEWS: tuple[ClickHouseView, ...] = (LLM_CALLS, RUN_STARTS, RUN_COMPLETIONS)
"""Those of which rows may be read as they lie."""


class Part(NamedTuple):
    """A part of a table: the inserts that are in it are numbered `first` to `last`."""

    id: UUID
    first: int
    last: int


Parts = tuple[Part, ...]


def parts() -> Query:
    """The parts of the tables as they are: table, id, first, last."""
    sql = (
        "SELECT table, uuid AS id, min_block_number AS first, max_block_number AS last"
        " FROM system.parts WHERE active AND database = currentDatabase()"
        " AND table IN {tables:Array(String)} ORDER BY table, first"
    )
    return Query(sql, {"tables": [view.table for view in VIEWS]})


def covered(now: Parts, before: Parts) -> list[UUID]:
    """Which parts have no row that those before did not have."""
    known = {part.id for part in before}
    if not any(part.id in known for part in now):
        return []  # It may be another table, of the same name.
    stretches: list[tuple[int, int]] = []
    for _, first, last in sorted(before, key=lambda part: part.first):
        if stretches and first == stretches[-1][1] + 1:
            stretches[-1] = (stretches[-1][0], last)
        else:
            stretches.append((first, last))
    return [
        part.id
        for part in now
        if part.id in known
        or any(first <= part.first and part.last <= last for first, last in stretches)
    ]


def without_duplicates(tenant: str, table: str, but: Collection[UUID]) -> Query:
    """Whether no row of the tenant is a duplicate: `settled`. but: parts that have none."""
    of_tenant = "tenant = {tenant:String}"
    rows = (
        f"{of_tenant} AND filed_period IN (SELECT filed_period FROM {table}"
        f" WHERE {of_tenant} AND _part_uuid NOT IN {{parts:Array(UUID)}})"
    )
    sql = (
        f"SELECT (SELECT count() FROM {table} WHERE {rows})"
        f" = (SELECT count() FROM {table} FINAL WHERE {rows}) AS settled SETTINGS final = 0"
    )
    return Query(sql, {"tenant": tenant, "parts": list(but)})


def tables_of(query: Query) -> list[str]:
    """The tables that a query reads, of those whose rows may be read as they lie."""
    return [view.table for view in VIEWS if view.table in query.sql]


def as_they_lie(query: Query, among: Mapping[str, Sequence[UUID]]) -> Query:
    """The query, asked of rows as they lie, and whether that is exact: `settled`.

    query: of the tenant that its parameter `tenant` names. among: by table, the parts of which none
    has a duplicate of another's.
    """
    params: dict[str, Any] = dict(query.params)
    others = []
    for number, (table, ids) in enumerate(among.items()):
        params[f"among_{number}"] = list(ids)
        others.append(
            f"(SELECT count() FROM (SELECT 1 FROM {table} WHERE tenant = {{tenant:String}}"
            f" AND _part_uuid NOT IN {{among_{number}:Array(UUID)}} LIMIT 1)) = 0"
        )
    selected = query.sql.removeprefix("SELECT ")
    return Query(f"SELECT {' AND '.join(others)} AS settled, {selected} SETTINGS final = 0", params)
