"""Reading rows as they lie, which is exact where no row is a duplicate.

Replacing duplicates when reading (FINAL) takes most of a query's time, asks few indexes and none of
the sums that the engine keeps (`ClickHouseView.projections`). Yet nearly always there is nothing to
replace. A table consists of parts. They never change, no part has a duplicate within it, and the
rows of a merged one are those of the parts it was made of. So once some parts are found to have no
duplicates among each other, this stays true. Then queries may read rows as they lie, if all that
the tenant had until they were answered is in these parts. Nothing goes away but by a merge, so one
look afterwards tells: whether there are other parts (`covered`), and if there are, whether the
tenant has rows in them (`without_others`).
"""

from collections.abc import Collection, Mapping
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

_UNNAMED = UUID(int=0)


def parts() -> Query:
    """The parts of the tables as they are: table, id, first, last."""
    sql = (
        "SELECT table, uuid AS id, min_block_number AS first, max_block_number AS last"
        " FROM system.parts WHERE active AND database = currentDatabase()"
        " AND table IN {tables:Array(String)} ORDER BY table, first"
    )
    return Query(sql, {"tables": [view.table for view in VIEWS]})


def covered(now: Parts, before: Parts) -> list[UUID]:
    """Which parts have no row that those before did not have. Of one without an id nothing is
    known."""
    known = {part.id for part in before} - {_UNNAMED}
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
        or (
            part.id != _UNNAMED
            and any(first <= part.first and part.last <= last for first, last in stretches)
        )
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


def as_they_lie(query: Query) -> Query:
    """The query, asked of rows as they lie."""
    joint = "," if " SETTINGS " in query.sql else " SETTINGS"
    return Query(f"{query.sql}{joint} final = 0", query.params)


def without_others(tenant: str, among: Mapping[str, Collection[UUID]]) -> Query:
    """Whether the tenant has no rows but those in these parts: `settled`. among: by table."""
    params: dict[str, Any] = {"tenant": tenant}
    others = []
    for number, (table, ids) in enumerate(among.items()):
        params[f"among_{number}"] = list(ids)
        others.append(
            f"SELECT 1 FROM {table} WHERE tenant = {{tenant:String}}"
            f" AND _part_uuid NOT IN {{among_{number}:Array(UUID)}}"
        )
    rows = f"SELECT 1 FROM ({' UNION ALL '.join(others)}) LIMIT 1"
    return Query(f"SELECT count() = 0 AS settled FROM ({rows}) SETTINGS final = 0", params)
