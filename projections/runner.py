"""Applies views' statements to Postgres, and makes their tables.

The statements of a batch fold per key first, so that a hot row costs one write a batch; what cannot
fold (a row deleted and put again) starts a new round. Runs inside the caller's transaction.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import psycopg
from msgspec import Struct

from projections.statements import Delete, Put, Set, Statement, Values, View
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
    readers: dict[type[Struct], list[View]] = {}
    for view in views:
        for kind in view.events:
            readers.setdefault(kind, []).append(view)
    return [
        (view, statement)
        for envelope, event in events
        for view in readers.get(type(event), ())
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
    for sql, rows in prepare(pairs, tables):
        await connection.execute(sql, (rows,))


def prepare(
    pairs: Iterable[tuple[View, Statement]], tables: Mapping[str, str] | None = None
) -> list[tuple[bytes, str]]:
    """The SQL statements that have the effect of all, and each one's only parameter. Pure.

    All rows of one kind of write are one statement and travel as one JSON document: one round trip,
    and one plan, however many rows there are.
    """
    by_view: dict[str, tuple[View, list[Statement]]] = {}
    for view, statement in pairs:
        by_view.setdefault(view.name, (view, []))[1].append(statement)
    return [
        (_sql(view, (tables or {}).get(view.name, view.table), *kind), _as_text(rows))
        for view, statements in by_view.values()
        for batch in fold(view, statements)
        for kind, rows in _grouped(batch).items()
        if kind != (Set, ())
    ]


def _grouped(
    batch: Mapping[Key, Statement],
) -> dict[tuple[type[Statement], tuple[str, ...]], list[Values]]:
    """Rows by the kind of write: the sort of statement and the columns it changes."""
    groups: dict[tuple[type[Statement], tuple[str, ...]], list[Values]] = {}
    for statement in batch.values():
        values: Values = {} if isinstance(statement, Delete) else statement.values
        row = {**values, **statement.key}
        groups.setdefault((type(statement), tuple(values)), []).append(row)
    return groups


def _as_text(rows: Sequence[Values]) -> str:
    return msgspec.json.encode(rows).decode()


_written: dict[tuple[int, str, type[Statement], tuple[str, ...]], tuple[View, bytes]] = {}


def _sql(view: View, table: str, kind: type[Statement], changed: tuple[str, ...]) -> bytes:
    """The SQL of a kind of write, made once."""
    known = _written.get((id(view), table, kind, changed))
    if known is None:
        unknown = set(changed) - set(view.columns)
        if unknown:
            raise ValueError(f"{view.name} has no column {sorted(unknown)}")
        columns = [name for name in view.columns if name in changed and name not in view.key]
        # The view is kept along, so that no other can ever have its id.
        known = (view, _write_sql(view, table, kind, columns).encode())
        _written[id(view), table, kind, changed] = known
    return known[1]


def _write_sql(view: View, table: str, kind: type[Statement], columns: Sequence[str]) -> str:
    names = [*view.key, *columns]
    shape = ", ".join(f"{_name(name)} {_wire_type(view, name)}" for name in names)
    rows = f"json_to_recordset(%s::json) AS r ({shape})"
    where = " AND ".join(f"t.{_name(name)} = r.{_name(name)}" for name in view.key)
    if kind is Delete:
        return f"DELETE FROM {_name(table)} AS t USING {rows} WHERE {where}"
    if kind is Set:
        updates = ", ".join(f"{_name(name)} = {_value(view, name)}" for name in columns)
        return f"UPDATE {_name(table)} AS t SET {updates} FROM {rows} WHERE {where}"
    updates = ", ".join(f"{_name(name)} = EXCLUDED.{_name(name)}" for name in columns)
    action = f"DO UPDATE SET {updates}" if updates else "DO NOTHING"
    return (
        f"INSERT INTO {_name(table)} ({', '.join(map(_name, names))}) "
        f"SELECT {', '.join(_value(view, name) for name in names)} FROM {rows} "
        f"ON CONFLICT ({', '.join(map(_name, view.key))}) {action}"
    )


def _type(view: View, column: str) -> str:
    return view.columns[column].split(" ")[0]


def _wire_type(view: View, column: str) -> str:
    """What a value is within the document: a jsonb column's is text that holds JSON."""
    kind = _type(view, column)
    return "text" if kind == "jsonb" else kind


def _value(view: View, column: str) -> str:
    kind = _type(view, column)
    return f"r.{_name(column)}" + ("::jsonb" if kind == "jsonb" else "")


def _name(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'
