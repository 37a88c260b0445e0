"""The decider's tables in Postgres: states, look-ups, outcomes, audit heads, timers, checkpoints.

They are a cache of the log like every read model: drop them and the deciders fold them anew. All
that one batch changes is written in one transaction, whose compare-and-set on the checkpoint fails
for a process that no longer owns the partition.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

import msgspec
import psycopg
from msgspec import Struct

from infra.postgres import execute_ddl
from projections import VIEWS
from projections.billing import usage_windows
from projections.platform import webhook_deliveries
from projections.runner import VIEWS_LOCK, create_table
from schemas.codec import Codec
from schemas.platform.audit_chain import Link
from schemas.platform.outcome import CommandHandled
from streams.deciding import Registry
from streams.effects import Effects, LookupKey, StateKey
from streams.writes import Writes, writes

Connection = psycopg.AsyncConnection[Any]

OUTCOMES_KEPT_HOURS = 24

ANSWER_SECONDS = 8.0
"""How long a batch's reads or writes may take. A frozen server gives no answer at all, and letting
go of its connection can take as long again: both within the watchdog's patience."""

_DDL = """
CREATE TABLE IF NOT EXISTS decider_checkpoints (
  partition int PRIMARY KEY, commands_next bigint NOT NULL, events_next bigint NOT NULL,
  outcomes_next bigint NOT NULL, audit_next bigint NOT NULL, fold_version text NOT NULL);
CREATE TABLE IF NOT EXISTS decider_states (
  tenant text, stream text, id text, partition int NOT NULL, version bigint NOT NULL,
  state bytea NOT NULL, PRIMARY KEY (tenant, stream, id));
CREATE TABLE IF NOT EXISTS decider_lookups (
  tenant text, index text, key text, partition int NOT NULL, stream_id text NOT NULL,
  PRIMARY KEY (tenant, index, key));
CREATE TABLE IF NOT EXISTS decider_outcomes (
  tenant text, command_id text, partition int NOT NULL, at bigint NOT NULL, outcome bytea NOT NULL,
  PRIMARY KEY (tenant, command_id));
CREATE INDEX IF NOT EXISTS decider_outcomes_at ON decider_outcomes (partition, at);
CREATE TABLE IF NOT EXISTS decider_audit_heads (
  tenant text PRIMARY KEY, partition int NOT NULL, seq bigint NOT NULL, hash text NOT NULL);
CREATE TABLE IF NOT EXISTS timers (
  tenant text, stream text, name text, partition int NOT NULL, due_at bigint NOT NULL,
  command bytea NOT NULL, PRIMARY KEY (tenant, stream, name));
CREATE INDEX IF NOT EXISTS timers_due ON timers (due_at);
CREATE TABLE IF NOT EXISTS view_fills (
  view_table text, partition int, events_next bigint NOT NULL, PRIMARY KEY (view_table, partition));
"""
_TABLES = ("decider_states", "decider_lookups", "decider_outcomes", "decider_audit_heads", "timers")
_DDL_LOCK = 7302
_BEGIN = f"BEGIN; SELECT pg_advisory_xact_lock_shared({VIEWS_LOCK})".encode()


class Superseded(Exception):
    """Another process has moved this partition's checkpoint: this one must let go."""


class Checkpoint(Struct, frozen=True):
    """Where a partition's tables stand: the next offset of each topic that they don't hold yet."""

    commands_next: int = 0
    events_next: int = 0
    outcomes_next: int = 0
    audit_next: int = 0


async def create_tables(connection: Connection) -> None:
    """Make every table, the views' too; safe from many processes at once."""
    async with connection.transaction():
        of_views = [statement for view in VIEWS for statement in create_table(view)]
        await execute_ddl(connection, _DDL_LOCK, [_DDL, *of_views])
        # The usage processor's and the sender's, so that they can be asked before those ever ran.
        for tables in (usage_windows, webhook_deliveries):
            await execute_ddl(connection, tables.DDL_LOCK, tables.DDL)


class Store:
    """One partition's rows.

    All methods raise psycopg.Error when Postgres is away, and TimeoutError when it does not answer
    (but for `checkpoint`, which may have much to drop).
    """

    def __init__(
        self, connection: Connection, partition: int, registry: Registry, codec: Codec
    ) -> None:
        self._connection, self._partition = connection, partition
        self._registry, self._codec = registry, codec

    async def checkpoint(self) -> Checkpoint:
        """Where the tables stand. Rows folded by another version of the deciders are dropped."""
        async with self._connection.transaction():
            row = await self._one(
                "SELECT * FROM decider_checkpoints WHERE partition = %s", self._partition
            )
            version = self._registry.fold_version()
            if row is not None and row["fold_version"] == version:
                return Checkpoint(
                    row["commands_next"],
                    row["events_next"],
                    row["outcomes_next"],
                    row["audit_next"],
                )
            for table in _TABLES:
                await self._execute(f"DELETE FROM {table} WHERE partition = %s", self._partition)
            await self._execute(
                "INSERT INTO decider_checkpoints VALUES (%s, 0, 0, 0, 0, %s) ON CONFLICT "
                "(partition) DO UPDATE SET commands_next = 0, events_next = 0, outcomes_next = 0, "
                "audit_next = 0, fold_version = EXCLUDED.fold_version",
                self._partition,
                version,
            )
        return Checkpoint()

    async def states(self, keys: Iterable[StateKey]) -> dict[StateKey, tuple[int, Any]]:
        """The stored states among the keys."""
        keys = list(keys)
        if not keys:
            return {}
        rows = await self._all(
            "SELECT s.tenant, s.stream, s.id, version, state FROM decider_states s JOIN "
            "unnest(%s::text[], %s::text[], %s::text[]) AS k(tenant, stream, id) "
            "ON (s.tenant, s.stream, s.id) = (k.tenant, k.stream, k.id)",
            *_columns(keys, 3),
        )
        return {
            (row["tenant"], row["stream"], row["id"]): (
                row["version"],
                self._decode_state(row["stream"], row["state"]),
            )
            for row in rows
        }

    async def lookups(self, keys: Iterable[LookupKey]) -> dict[LookupKey, str | None]:
        """Who holds each key; None for a free one."""
        keys = list(keys)
        if not keys:
            return {}
        rows = await self._all(
            "SELECT l.tenant, l.index, l.key, stream_id FROM decider_lookups l JOIN "
            "unnest(%s::text[], %s::text[], %s::text[]) AS k(tenant, index, key) "
            "ON (l.tenant, l.index, l.key) = (k.tenant, k.index, k.key)",
            *_columns(keys, 3),
        )
        found: dict[LookupKey, str | None] = dict.fromkeys(keys)
        for row in rows:
            found[row["tenant"], row["index"], row["key"]] = row["stream_id"]
        return found

    async def outcomes(
        self, keys: Iterable[tuple[str, str]]
    ) -> dict[tuple[str, str], CommandHandled]:
        """The outcomes of commands that were handled in the last day."""
        keys = list(keys)
        if not keys:
            return {}
        rows = await self._all(
            "SELECT o.tenant, o.command_id, outcome FROM decider_outcomes o JOIN "
            "unnest(%s::text[], %s::text[]) AS k(tenant, command_id) "
            "ON (o.tenant, o.command_id) = (k.tenant, k.command_id)",
            *_columns(keys, 2),
        )
        return {
            (row["tenant"], row["command_id"]): msgspec.msgpack.decode(
                row["outcome"], type=CommandHandled
            )
            for row in rows
        }

    async def heads(self, tenants: Iterable[str]) -> dict[str, Link]:
        """The ends of the tenants' audit chains."""
        rows = await self._all(
            "SELECT tenant, seq, hash FROM decider_audit_heads WHERE tenant = ANY(%s)",
            list(tenants),
        )
        return {row["tenant"]: Link(row["seq"], row["hash"]) for row in rows}

    def writes(self, effects: Effects) -> Writes:
        """What a batch does to the tables, ready for `apply`. Pure."""
        return writes(effects, self._codec)

    async def apply(self, batch: Writes, before: Checkpoint, after: Checkpoint) -> None:
        """Write all that a batch does, in one transaction. Raises Superseded."""
        async with asyncio.timeout(ANSWER_SECONDS), self._writing():
            moved = await self._one(
                batch.sql,
                *(after.commands_next, after.events_next, after.outcomes_next, after.audit_next),
                self._partition,
                *(before.events_next, before.outcomes_next, before.audit_next),
                *batch.rows,
            )
            if moved is None or moved["moved"] != 1:
                raise Superseded(f"partition {self._partition}")
            for sql, rows in batch.views:
                await self._connection.execute(sql, (rows,))

    @contextlib.asynccontextmanager
    async def _writing(self) -> AsyncIterator[None]:
        """A transaction that shares VIEWS_LOCK, begun and locked in one round trip."""
        try:
            await self._connection.execute(_BEGIN)
            yield
            await self._connection.execute(b"COMMIT")
        except BaseException:
            with contextlib.suppress(psycopg.Error):
                await self._connection.rollback()
            raise

    async def prune(self, now: int) -> int:
        """Drop outcomes older than a day; returns how many."""
        async with asyncio.timeout(ANSWER_SECONDS):
            return await self._execute(
                "DELETE FROM decider_outcomes WHERE partition = %s AND at < %s",
                self._partition,
                now - OUTCOMES_KEPT_HOURS * 3_600_000_000,
            )

    def _decode_state(self, stream: str, data: bytes) -> Any:
        decider = self._registry.by_stream[stream]
        return msgspec.msgpack.decode(data, type=decider.shape or type(decider.initial))

    async def _execute(self, sql: str, *params: Any) -> int:
        return (await self._connection.execute(sql.encode(), params)).rowcount

    async def _one(self, sql: str | bytes, *params: Any) -> Mapping[str, Any] | None:
        query = sql.encode() if isinstance(sql, str) else sql
        return await (await self._connection.execute(query, params)).fetchone()

    async def _all(self, sql: str, *params: Any) -> list[Any]:
        async with asyncio.timeout(ANSWER_SECONDS):
            return await (await self._connection.execute(sql.encode(), params)).fetchall()


def _columns(keys: list[Any], width: int) -> list[list[Any]]:
    return [[key[index] for key in keys] for index in range(width)]
