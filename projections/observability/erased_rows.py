"""SQL that blanks the rows of a person in a ClickHouse table, and that shows what is left to blank.

The rows stay, so that calls, tokens and costs add up to what they did. All statements take the
parameters `tenant` and `key`.
"""

import re
from collections.abc import Collection

from projections.clickhouse import ClickHouseView

_OF_PERSON = "tenant = {tenant:String} AND sealed_for = {key:String}"

# Tables that can hold a person's rows, with the columns of each.
TABLES = """
SELECT table AS held_in, groupArray(name) AS columns FROM system.columns
WHERE database = currentDatabase() GROUP BY held_in HAVING has(columns, 'sealed_for')
ORDER BY held_in
"""


def is_of(view: ClickHouseView, table: str) -> bool:
    """Whether a table holds rows of the view: of any version, or of a rebuild's."""
    return re.fullmatch(rf"{view.name}_v[0-9]+(_[a-z]+)?", table) is not None


def blank_rows(view: ClickHouseView, table: str, columns: Collection[str]) -> str:
    """Blank what is personal; a mutation, which goes on after the statement. `columns`: the
    table's."""
    changes = ", ".join(_values(view, columns))
    return f"ALTER TABLE {table} UPDATE {changes} WHERE {_OF_PERSON}"


def count_rows(view: ClickHouseView, table: str, columns: Collection[str]) -> str:
    """How many `rows` the person has, and how many of them are `full`: duplicates included."""
    blank = " AND ".join(_values(view, columns))
    return (
        f"SELECT count() AS rows, countIf(NOT ({blank})) AS full FROM {table} WHERE {_OF_PERSON}"
        " SETTINGS final = 0"
    )


def find_full(view: ClickHouseView) -> str:
    """Which of the `keys` of `tenants` (two lists of one length) have rows that are not blank."""
    blank = " AND ".join(_values(view, view.columns))
    return (
        f"SELECT DISTINCT tenant, sealed_for FROM {view.table} WHERE (tenant, sealed_for) IN"
        " (SELECT arrayJoin(arrayZip({tenants:Array(String)}, {keys:Array(String)})))"
        f" AND NOT ({blank}) SETTINGS final = 0"
    )


def _values(view: ClickHouseView, columns: Collection[str]) -> list[str]:
    return [f"{name} = {value}" for name, value in view.personal.items() if name in columns]


# Mutations of a table that are not done. Parameter: table.
UNFINISHED = """
SELECT latest_fail_reason AS failed FROM system.mutations
WHERE database = currentDatabase() AND table = {table:String} AND NOT is_done
"""
