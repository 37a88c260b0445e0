"""The sender's tables: a batch of `deliveries` and its offset change in one transaction.

So they are the fold of the topic up to that offset, whatever is killed; and a process that lost its
partition cannot write, since the offset has moved on (`Superseded`).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import psycopg

from infra.postgres import execute_ddl
from projections.platform.webhook_deliveries import (
    ATTEMPTS,
    DDL,
    DDL_LOCK,
    DELIVERIES,
    OFFSETS,
    QUEUES,
)
from schemas.platform.webhook import WebhookAttempted, WebhookRequested
from streams.platform.webhook_queue import Change, Queue, Waiting, WebhookRecord, fold
from streams.store import Superseded

Connection = psycopg.AsyncConnection[Any]

KEPT_MICROS = 30 * 86_400_000_000
"""How long what was settled can be looked at, and a dead one redriven."""


class EndpointKey(NamedTuple):
    """An endpoint of a tenant."""

    tenant: str
    endpoint_id: str


class Entry(NamedTuple):
    """A record of `deliveries` that was read."""

    offset: int
    tenant: str
    record: WebhookRecord

    @property
    def key(self) -> EndpointKey:
        """Whose it is."""
        return EndpointKey(self.tenant, self.record.endpoint_id)


Queues = Mapping[EndpointKey, Queue]


class _Changes:
    """What a batch comes to for each delivery: its last change, and where it joined the queue."""

    def __init__(self) -> None:
        self.last: dict[tuple[EndpointKey, str], Change] = {}
        self.places: dict[tuple[EndpointKey, str], int] = {}

    def add(self, entry: Entry, change: Change) -> None:
        delivery = (entry.key, change.event_id)
        if change.since is not None:
            self.places[delivery] = entry.offset
        elif delivery in self.last:
            change = change._replace(since=self.last[delivery].since)
        self.last[delivery] = change


async def create_tables(connection: Connection) -> None:
    """Make the tables; safe from many processes at once."""
    async with connection.transaction():
        await execute_ddl(connection, DDL_LOCK, DDL)


class WebhookStore:
    """One partition's rows. Methods raise psycopg.Error when Postgres is away."""

    def __init__(self, connection: Connection, partition: int) -> None:
        self._connection, self._partition = connection, partition

    async def load(self) -> tuple[int, dict[EndpointKey, Queue]]:
        """The next offset to fold, and every queue that is not as if it had never been."""
        await self._connection.execute(
            f"INSERT INTO {OFFSETS} VALUES (%s, 0) ON CONFLICT DO NOTHING".encode(),
            (self._partition,),
        )
        (stands,) = await self._rows(f"SELECT next_offset FROM {OFFSETS} WHERE partition = %s")
        queues = {
            EndpointKey(row["tenant"], row["endpoint_id"]): Queue(
                (), row["due_at"], row["failures"], row["failing_since"]
            )
            for row in await self._rows(f"SELECT * FROM {QUEUES} WHERE partition = %s")
        }
        waiting: dict[EndpointKey, list[Waiting]] = {}
        for row in await self._rows(
            f"SELECT tenant, endpoint_id, event_id, since, attempts FROM {DELIVERIES} "
            "WHERE partition = %s AND status = 'waiting' ORDER BY place"
        ):
            key = EndpointKey(row["tenant"], row["endpoint_id"])
            one = Waiting(row["event_id"], row["since"], row["attempts"])
            waiting.setdefault(key, []).append(one)
        for key, ones in waiting.items():
            queues[key] = msgspec.structs.replace(queues[key], waiting=tuple(ones))
        return int(stands["next_offset"]), queues

    async def apply(
        self, queues: Queues, entries: Sequence[Entry], before: int, end: int
    ) -> Queues:
        """Fold the records of [before, end); returns the queues that changed. Raises Superseded."""
        after: dict[EndpointKey, Queue] = {}
        changes = _Changes()
        for entry in entries:
            queue = after.get(entry.key) or queues.get(entry.key) or Queue()
            after[entry.key], changed = fold(queue, entry.record)
            for change in changed:
                changes.add(entry, change)
        async with self._connection.transaction(), self._connection.cursor() as cursor:
            await cursor.execute(
                f"UPDATE {OFFSETS} SET next_offset = %s "
                "WHERE partition = %s AND next_offset = %s".encode(),
                (end, self._partition, before),
            )
            if cursor.rowcount != 1:
                raise Superseded(f"partition {self._partition} of deliveries is not ours")
            await self._write(cursor, entries, changes)
            await self._write_queues(cursor, after)
        return after

    async def _write(
        self,
        cursor: psycopg.AsyncCursor[Any],
        entries: Iterable[Entry],
        changes: _Changes,
    ) -> None:
        for entry in entries:
            if isinstance(entry.record, WebhookRequested):
                await self._request(cursor, entry, entry.record)
            elif isinstance(entry.record, WebhookAttempted):
                await self._attempt(cursor, entry, entry.record)
        await cursor.executemany(
            f"UPDATE {DELIVERIES} SET status = %s, attempts = %s, updated_at = %s, retry_at = %s, "
            "reason = %s, since = coalesce(%s, since), place = coalesce(%s, place) "
            "WHERE tenant = %s AND endpoint_id = %s AND event_id = %s".encode(),
            [
                (
                    change.status,
                    change.attempts,
                    change.at,
                    change.retry_at,
                    change.reason,
                    change.since,
                    changes.places.get((key, event_id)),
                    *key,
                    event_id,
                )
                for (key, event_id), change in changes.last.items()
            ],
        )

    async def _request(
        self, cursor: psycopg.AsyncCursor[Any], entry: Entry, record: WebhookRequested
    ) -> None:
        await cursor.execute(
            f"INSERT INTO {DELIVERIES} VALUES (%s, %s, %s, %s, %s, 'waiting', '', %s, %s, %s, 0, "
            "%s, %s, NULL) ON CONFLICT DO NOTHING".encode(),
            (
                *entry.key,
                record.event_id,
                record.event_type,
                record.body,
                self._partition,
                entry.offset,
                record.requested_at,
                record.requested_at,
                record.requested_at,
            ),
        )

    async def _attempt(
        self, cursor: psycopg.AsyncCursor[Any], entry: Entry, record: WebhookAttempted
    ) -> None:
        await cursor.execute(
            f"INSERT INTO {ATTEMPTS} VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) "
            "ON CONFLICT DO NOTHING".encode(),
            (
                self._partition,
                entry.offset,
                *entry.key,
                record.event_id,
                record.number,
                record.outcome,
                record.attempted_at,
                record.duration_ms,
                record.status_code,
                record.error,
                record.response,
            ),
        )

    async def _write_queues(self, cursor: psycopg.AsyncCursor[Any], queues: Queues) -> None:
        kept = {key: queue for key, queue in queues.items() if not queue.forgettable}
        await cursor.executemany(
            f"INSERT INTO {QUEUES} VALUES (%s, %s, %s, %s, %s, %s) "
            "ON CONFLICT (tenant, endpoint_id) DO UPDATE SET due_at = EXCLUDED.due_at, "
            "failures = EXCLUDED.failures, failing_since = EXCLUDED.failing_since".encode(),
            [
                (*key, self._partition, queue.due_at, queue.failures, queue.failing_since)
                for key, queue in kept.items()
            ],
        )
        await cursor.executemany(
            f"DELETE FROM {QUEUES} WHERE tenant = %s AND endpoint_id = %s".encode(),
            [key for key in queues if key not in kept],
        )

    async def prune(self, now: int) -> None:
        """Forget what was settled long ago, and attempts as old. now: microseconds UTC."""
        for table, column, more in (
            (DELIVERIES, "updated_at", "AND status <> 'waiting'"),
            (ATTEMPTS, "attempted_at", ""),
        ):
            await self._connection.execute(
                f"DELETE FROM {table} WHERE partition = %s AND {column} < %s {more}".encode(),
                (self._partition, now - KEPT_MICROS),
            )

    async def _rows(self, sql: str) -> list[dict[str, Any]]:
        return await (await self._connection.execute(sql.encode(), (self._partition,))).fetchall()
