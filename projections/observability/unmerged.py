"""Queries on rows as they lie, which are exact where no row is a duplicate at that instant.

Replacing duplicates when reading (FINAL) costs little where a few numbers are read, as the tables
are ordered. But the engine then asks few indexes, and reads every column that a condition is on for
every row. So where that matters, a query is asked `unmerged` first: of the rows as they lie,
together with whether any row of its tables is a duplicate (`settled`), all of it on one snapshot.
If one is, that answer does not count, and the same is asked with FINAL.
"""

from projections.clickhouse import ClickHouseView
from projections.observability.ordering import Query

OF_TENANT = "tenant = {tenant:String}"


def settled(*views: ClickHouseView, within: str = OF_TENANT) -> str:
    """SQL: whether no row that fits is a duplicate, in none of the tables.

    within: a condition that the rows have to fit which the query reads.
    """
    same = (
        f"(SELECT count() FROM {view.table} WHERE {within})"
        f" = (SELECT count() FROM {view.table} FINAL WHERE {within})"
        for view in views
    )
    return " AND ".join(same)


def settled_runs(*views: ClickHouseView, runs: str) -> str:
    """SQL: whether no row of these runs is a duplicate, in none of the tables.

    runs: a SELECT of the numbers of all runs that the query may read.
    """
    same = (
        f"(SELECT count() = uniqExact({', '.join(('run', *view.order_by[3:]))})"
        f" FROM {view.table} WHERE {OF_TENANT} AND run IN ({runs}))"
        for view in views
    )
    return " AND ".join(same)


def as_they_lie(query: Query) -> Query:
    """The query, asked of the rows as they lie; it has the column `settled`."""
    return Query(f"{query.sql} SETTINGS final = 0", query.params)
