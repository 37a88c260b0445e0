"""`weir rebuild` of a Postgres view: the fold of the log beside the live table, then a switch.

The deciders go on meanwhile. The new table is filled up to their checkpoint, never beyond, so that
at one moment, while they are held for an instant (VIEWS_LOCK), both tables are folds of exactly the
same events. A snapshot taken then is compared at leisure. Then they are held once more, what came
since is folded in, and the tables change places in one transaction.

The new table has the same name, and so have its indexes, in a schema of its own; changing places is
changing schemas, which carries everything along. A rebuild that is killed leaves the live table as
it was, and its own is dropped by the next.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import psycopg

from infra.postgres import connect
from projections.runner import VIEWS_LOCK, apply, create_table, reduce_all
from projections.statements import View
from schemas.codec import Codec
from schemas.envelope import from_headers
from streams.rebuild_report import (
    DIFFERENCES_MAX,
    Advance,
    CannotRebuild,
    Difference,
    Report,
    Side,
)
from streams.replay import Span, TopicReader

Connection = psycopg.AsyncConnection[Any]

REBUILT, REPLACED = "weir_rebuild", "weir_replaced"
REBUILD_LOCK = 7303
TOPIC = "events"
NEAR_OFFSETS = 500
"""The new table is near enough to the deciders for holding them when it lacks no more than this."""
_HOLD_SECONDS = 5.0
_ROUNDS_MAX = 100


class Rebuild:
    """One rebuild of one view."""

    def __init__(
        self, bootstrap: str, database: str, view: View, codec: Codec, advance: Advance
    ) -> None:
        self._bootstrap, self._database = bootstrap, database
        self._view, self._codec, self._advance = view, codec, advance
        self._next: dict[int, int] = {}
        self._first: dict[int, int] = {}
        self.events = 0

    async def run(self, *, switch: bool = True) -> Report:
        """Rebuild, compare, and with `switch` let the rebuilt table go live.

        Raises CannotRebuild, LogUnavailable, DatabaseUnavailable, psycopg.Error.
        """
        started = time.monotonic()
        async with (
            alone(self._database),
            _connection(self._database) as control,
            _connection(self._database) as work,
            TopicReader(self._bootstrap, TOPIC, "weir-rebuild") as reader,
        ):
            home = await self._prepare(control, work)
            self._first = {span.partition: span.first for span in await reader.spans()}
            await self._fill(control, work, reader)
            live, rebuilt, differences = await self._compare(control, work, reader, home)
            if switch:
                await self._switch(control, work, reader, home)
            aside = await self._tidy(control, keep=switch and live != rebuilt)
        return Report(
            view=self._view.name,
            events=self.events,
            seconds=time.monotonic() - started,
            live=live,
            rebuilt=rebuilt,
            kept="rebuilt" if switch else "live",
            aside=aside,
            differences=differences,
        )

    async def _prepare(self, control: Connection, work: Connection) -> str:
        """An empty table beside the live one; returns the schema where the live one is."""
        table = self._view.table
        row = await _one(
            control,
            "SELECT n.nspname AS home FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE c.oid = to_regclass(%s)",
            f'"{table}"',
        )
        if row is None:
            raise CannotRebuild(f"there is no table {table} yet: the deciders make it")
        for schema in (REBUILT, REPLACED):
            await control.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}".encode())
            await control.execute(f'DROP TABLE IF EXISTS {schema}."{table}"'.encode())
        # Names are found, and made, in the schema of the rebuild first.
        await work.execute(f'SET search_path = {REBUILT}, "{row["home"]}"'.encode())
        for statement in create_table(self._view):
            await work.execute(statement.encode())
        return str(row["home"])

    async def _checkpoints(self, control: Connection) -> dict[int, int]:
        cursor = await control.execute("SELECT partition, events_next FROM decider_checkpoints")
        return {row["partition"]: row["events_next"] for row in await cursor.fetchall()}

    async def _fill(self, control: Connection, work: Connection, reader: TopicReader) -> None:
        """Fold what the deciders have applied, until little is lacking."""
        for _ in range(_ROUNDS_MAX):
            missing = self._missing(await self._checkpoints(control))
            if sum(span.length for span in missing) <= NEAR_OFFSETS:
                return
            await self._fold(work, reader, missing)
        raise CannotRebuild("the deciders are faster than the rebuild: try again at a calmer time")

    def _missing(self, checkpoints: Mapping[int, int]) -> list[Span]:
        spans = []
        for partition, first in self._first.items():
            begin = self._next.get(partition, first)
            spans.append(Span(partition, begin, max(begin, checkpoints.get(partition, 0))))
        return spans

    async def _fold(self, work: Connection, reader: TopicReader, spans: Sequence[Span]) -> None:
        done = sum(at - self._first[partition] for partition, at in self._next.items())
        total = done + sum(span.length for span in spans)

        def advance(offsets: int) -> None:
            nonlocal done
            done += offsets
            self._advance(done, total, f"{self.events:,} events")

        async for records in reader.read(spans, advance):
            pairs = reduce_all(
                [self._view],
                [(from_headers(item.headers), self._codec.decode(item.value)) for item in records],
            )
            async with work.transaction():
                await apply(work, pairs)
            self.events += len(records)
        for span in spans:
            self._next[span.partition] = span.end

    @asynccontextmanager
    async def _level(
        self, control: Connection, work: Connection, reader: TopicReader
    ) -> AsyncIterator[None]:
        """Hold the deciders' writes while the block runs, with both tables at the same event.

        Raises CannotRebuild when the new table doesn't catch up in time.
        """
        for _ in range(_ROUNDS_MAX):
            await self._fill(control, work, reader)
            await control.execute("SELECT pg_advisory_lock(%s)", (VIEWS_LOCK,))
            try:
                missing = self._missing(await self._checkpoints(control))
                if sum(span.length for span in missing) <= 4 * NEAR_OFFSETS:
                    async with asyncio.timeout(_HOLD_SECONDS):
                        await self._fold(work, reader, missing)
                        yield
                    return
            except TimeoutError:
                raise CannotRebuild(
                    f"the deciders would have been held longer than {_HOLD_SECONDS:.0f} s"
                ) from None
            finally:
                await control.execute("SELECT pg_advisory_unlock(%s)", (VIEWS_LOCK,))
        raise CannotRebuild("the deciders are faster than the rebuild: try again at a calmer time")

    async def _compare(
        self, control: Connection, work: Connection, reader: TopicReader, home: str
    ) -> tuple[Side, Side, list[Difference]]:
        names = (f'"{home}"."{self._view.table}"', f'{REBUILT}."{self._view.table}"')
        async with _connection(self._database) as snapshot:
            async with self._level(control, work, reader):
                await snapshot.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                for name in names:  # the first read takes the snapshot, and both tables are locked
                    await snapshot.execute(f"SELECT FROM {name} LIMIT 1".encode())
            live, rebuilt = [await _side(snapshot, name) for name in names]
            found = [] if live == rebuilt else await self._differences(snapshot, *names)
            await snapshot.execute("COMMIT")
        return live, rebuilt, found

    async def _differences(self, snapshot: Connection, live: str, new: str) -> list[Difference]:
        keys = ", ".join(f'"{name}"' for name in self._view.key)
        cursor = await snapshot.execute(
            f"SELECT to_jsonb(l) AS live, to_jsonb(n) AS rebuilt FROM {live} l FULL JOIN {new} n "
            f"USING ({keys}) WHERE to_jsonb(l) IS DISTINCT FROM to_jsonb(n) "
            f"ORDER BY {keys} LIMIT {DIFFERENCES_MAX}".encode()
        )
        return [self._difference(row) for row in await cursor.fetchall()]

    def _difference(self, row: Mapping[str, Any]) -> Difference:
        live, rebuilt = row["live"], row["rebuilt"]
        known = live if live is not None else rebuilt
        key = {name: known[name] for name in self._view.key}
        if live is None:
            return Difference(key, "only in the rebuilt table", [])
        if rebuilt is None:
            return Difference(key, "only in the live table", [])
        names = sorted(set(live) | set(rebuilt))
        return Difference(
            key, "differs", [name for name in names if live.get(name) != rebuilt.get(name)]
        )

    async def _switch(
        self, control: Connection, work: Connection, reader: TopicReader, home: str
    ) -> None:
        """Let the tables change places. A reader in their way is not waited for long."""
        for _ in range(_ROUNDS_MAX):
            try:
                async with self._level(control, work, reader), control.transaction():
                    await control.execute("SET LOCAL lock_timeout = '1s'")
                    table = f'"{self._view.table}"'
                    for source, target in ((f'"{home}"', REPLACED), (REBUILT, f'"{home}"')):
                        statement = f"ALTER TABLE {source}.{table} SET SCHEMA {target}"
                        await control.execute(statement.encode())
                    await self._mark_filled(control)
                return
            except psycopg.errors.LockNotAvailable:
                await asyncio.sleep(0.2)  # whoever reads the table for long may end meanwhile
        raise CannotRebuild("the live table is being read without a pause: try again later")

    async def _mark_filled(self, control: Connection) -> None:
        """The new table holds every partition's history: no decider need fill it."""
        for partition, events_next in self._next.items():
            await control.execute(
                "INSERT INTO view_fills VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
                (self._view.table, partition, events_next),
            )

    async def _tidy(self, control: Connection, *, keep: bool) -> str:
        """Drop what is not live; with `keep`, leave the replaced table and say where it is."""
        table = self._view.table
        await control.execute(f'DROP TABLE IF EXISTS {REBUILT}."{table}"'.encode())
        if keep:
            return f"{REPLACED}.{table}"
        await control.execute(f'DROP TABLE IF EXISTS {REPLACED}."{table}"'.encode())
        return ""


@asynccontextmanager
async def alone(database: str) -> AsyncIterator[None]:
    """Keep other rebuilds away while the block runs. Raises CannotRebuild, DatabaseUnavailable."""
    async with _connection(database) as holder:
        row = await _one(holder, "SELECT pg_try_advisory_lock(%s) AS taken", REBUILD_LOCK)
        if not row["taken"]:
            raise CannotRebuild("another rebuild is running")
        yield


@asynccontextmanager
async def _connection(database: str) -> AsyncIterator[Connection]:
    connection = await connect(database, autocommit=True)
    try:
        # The pool's limits are for requests; a rebuild may take as long as the log is long.
        await connection.execute("SET statement_timeout = 0")
        await connection.execute("SET idle_in_transaction_session_timeout = 0")
        await connection.execute("SET synchronous_commit = off")
        yield connection
    finally:
        await connection.close()


async def _one(connection: Connection, sql: str, *params: Any) -> Any:
    return await (await connection.execute(sql.encode(), params)).fetchone()


async def _side(connection: Connection, table: str) -> Side:
    """Count the rows and add up two hashes of each: equal sums, equal content (128 bits)."""
    sums = ", ".join(
        f"coalesce(sum(hashtextextended(t::text, {seed})::numeric), 0) AS h{seed}"
        for seed in (0, 1)
    )
    row = await _one(connection, f"SELECT count(*) AS n, {sums} FROM {table} t")
    mask = 2**64 - 1
    return Side(row["n"], f"{int(row['h0']) & mask:016x}{int(row['h1']) & mask:016x}")
