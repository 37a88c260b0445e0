"""Statements: what a Postgres projection's pure `reduce` yields, and the views that own them.

Applied in order, twice equals once. Within a batch the runner folds the statements of one key into
one, so a hot row costs one write a batch.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from schemas.envelope import Envelope

Values = Mapping[str, Any]


class Put(Struct, frozen=True):
    """Insert the row, or replace the columns given of the row that has this key."""

    key: Values
    values: Values


class Set(Struct, frozen=True):
    """Change columns of the row that has this key; nothing when there is none."""

    key: Values
    values: Values


class Delete(Struct, frozen=True):
    """Remove the row that has this key."""

    key: Values


Statement = Put | Set | Delete


def json_text(value: Any) -> str:
    """What a `jsonb` column takes."""
    return msgspec.json.encode(value).decode()


Reduce = Callable[[Any, Envelope], Sequence[Statement]]


class View(Struct, frozen=True, kw_only=True):
    """A Postgres read model, one table.

    name: plural (`rooms`); its table is `<name>_v<version>`: a new version fills a new table from
    the start of the log and goes live when it has caught up. events: the structs it wants.
    columns: name -> SQL type, in order. key: the primary key's columns; the first is always
    `tenant`. indexes: SQL expressions in parentheses (`(tenant, status, created_at)`), optionally
    starting with `unique`.
    reduce(event, envelope): pure; `event` is one of `events`.
    json columns (`jsonb`) take text that is JSON. Instants are `bigint` microseconds.
    """

    name: str
    version: int
    events: tuple[type[Struct], ...]
    columns: Mapping[str, str]
    key: tuple[str, ...]
    reduce: Reduce
    indexes: tuple[str, ...] = ()

    @property
    def table(self) -> str:
        """The live table of this version."""
        return f"{self.name}_v{self.version}"
