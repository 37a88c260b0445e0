"""What a rebuild in Postgres must know of the tables that it makes anew."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import psycopg

Connection = psycopg.AsyncConnection[Any]
Place = tuple[str, int]
"""A topic and a partition."""


class Tables(Protocol):
    """The tables of one read model: how they are filled, and how their writers are held.

    `work` is a connection on which a table's name means the new one, `control` one on which it
    means the live one. Methods raise psycopg.Error.

    name: what an operator calls it. topics: what is folded. keys: each table's key; these tables
    are compared and change places. scratch: tables that the fold needs and that never go live.
    writer: who fills the live ones.
    """

    @property
    def name(self) -> str: ...
    @property
    def topics(self) -> Sequence[str]: ...
    @property
    def keys(self) -> Mapping[str, Sequence[str]]: ...
    @property
    def scratch(self) -> Sequence[str]: ...
    @property
    def writer(self) -> str: ...

    async def create(self, work: Connection) -> None:
        """Make the new tables, empty."""

    async def reached(self, control: Connection) -> Mapping[Place, int]:
        """By topic and partition, the next offset that the live tables need."""
        ...

    def check(self, first: Mapping[Place, int]) -> None:
        """Raise CannotRebuild when a log that begins at these offsets does not suffice."""

    def held(self, control: Connection) -> AbstractAsyncContextManager[None]:
        """Keep the live tables' writers from writing while the block runs."""
        ...

    async def fold(
        self, work: Connection, place: Place, start: int, records: Sequence[Any], end: int
    ) -> None:
        """Fold all records there are in [start, end) of a partition into the new tables."""

    async def switched(self, control: Connection, reached: Mapping[Place, int]) -> None:
        """The new tables go live with this transaction; `reached` is how far they are."""
