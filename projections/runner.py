"""Applies views' statements to Postgres, and makes their tables.

The statements of a batch fold per key first, so that a hot row costs one write a batch; what cannot
fold (a row deleted and put again) starts a new round. Runs inside the caller's transaction.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import psycopg

from projections.statements import Delete, Put, Statement, View
from schemas.envelope import Envelope

Connection = psycopg.AsyncConnection[Any]
Key = tuple[Any, ...]

# Who changes which table is live takes this advisory lock alone; who writes through the names of
# live tables shares it.
VIEWS_LOCK = 7301


def create_table(view: View, table: str | None = None) -> list[str]:
    """DDL of a view's table (or of a table beside it) and its indexes."""
    table = table or view.table
    columns = ", ".join(f"{_name(name)} {kind}" for name, kind in view.columns.items())
    keys = ", ".join(_name(name) for name in view.key)
    statements = [f"CREATE TABLE IF NOT EXISTS {_name(table)} ({columns}, PRIMARY KEY ({keys}))"]
    for number, index in enumerate(view.indexes):
        unique, expression = "", index
        if index.startswith("unique "):
            unique, expression = "UNIQUE ", index.removeprefix("unique ")
        name = _name(f"{table}_{number}")
        statements.append(
            f"CREATE {unique}INDEX IF NOT EXISTS {name} ON {_name(table)} {expression}"
        )
    return statements


def reduce_all(
    views: Iterable[View], events: Iterable[tuple[Envelope, Any]]
) -> list[tuple[View, Statement]]:
    """Every view's statements for every event, in order. Pure."""
    views = list(views)
    return [
        (view, statement)
        for envelope, event in events
        for view in views
        for statement in view.reduce(event, envelope)
    ]


def fold(view: View, statements: Sequence[Statement]) -> list[dict[Key, Statement]]:
    """Rounds of at most one statement a key, with the effect of all in order. Pure."""
    rounds: list[dict[Key, Statement]] = [{}]
    for statement in statements:
        key = tuple(statement.key[name] for name in view.key)
        current = rounds[-1]
        before = current.get(key)
        if before is None or isinstance(statement, Delete):
            current[key] = statement
        elif isinstance(before, Delete):
            if isinstance(statement, Put):
                rounds.append({key: statement})
        elif type(before) is type(statement) or isinstance(before, Put):
            values = {**before.values, **statement.values}
            current[key] = type(before)(before.key, values)
        else:
            rounds.append({key: statement})
    return rounds


async def apply(
    connection: Connection,
    pairs: Iterable[tuple[View, Statement]],
    tables: Mapping[str, str] | None = None,
) -> None:
    """Write statements; `tables` maps a view's name to another table than its live one."""
    by_view: dict[str, tuple[View, list[Statement]]] = {}
    for view, statement in pairs:
        by_view.setdefault(view.name, (view, []))[1].append(statement)
    async with connection.cursor() as cursor:
        for view, statements in by_view.values():
            table = (tables or {}).get(view.name, view.table)
            for batch in fold(view, statements):
                for (sql, _), rows in _grouped(view, table, batch).items():
                    await cursor.executemany(sql.encode(), rows)


def _grouped(
    view: View, table: str, batch: Mapping[Key, Statement]
) -> dict[tuple[str, tuple[str, ...]], list[list[Any]]]:
    """Rows by the SQL that writes them, so that each kind of write is one round trip."""
    groups: dict[tuple[str, tuple[str, ...]], list[list[Any]]] = {}
    for key, statement in batch.items():
        values: Mapping[str, Any] = {} if isinstance(statement, Delete) else statement.values
        columns = tuple(name for name in view.columns if name in values and name not in view.key)
        unknown = set(values) - set(view.columns)
        if unknown:
            raise ValueError(f"{view.name} has no column {sorted(unknown)}")
        sql = _sql(view, table, type(statement), columns)
        changed = [values[name] for name in columns]
        row = [*key, *changed] if isinstance(statement, Put) else [*changed, *key]
        groups.setdefault((sql, columns), []).append(row)
    return groups


def _sql(view: View, table: str, kind: type[Statement], columns: tuple[str, ...]) -> str:
    where = " AND ".join(f"{_name(name)} = {_value(view, name)}" for name in view.key)
    if kind is Delete:
        return f"DELETE FROM {_name(table)} WHERE {where}"
    if kind is Put:
        names = [*view.key, *columns]
        updates = ", ".join(f"{_name(name)} = EXCLUDED.{_name(name)}" for name in columns)
        action = f"DO UPDATE SET {updates}" if updates else "DO NOTHING"
        return (
            f"INSERT INTO {_name(table)} ({', '.join(map(_name, names))}) "
            f"VALUES ({', '.join(_value(view, name) for name in names)}) "
            f"ON CONFLICT ({', '.join(map(_name, view.key))}) {action}"
        )
    updates = ", ".join(f"{_name(name)} = {_value(view, name)}" for name in columns)
    return f"UPDATE {_name(table)} SET {updates} WHERE {where}"


def _value(view: View, column: str) -> str:
    kind = view.columns[column].split(" ")[0]
    return f"%s::{kind}"


def _name(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'
