"""`weir rebuild` in Postgres: the fold of the log beside the live tables, then a switch.

Who writes the live tables goes on meanwhile. The new ones are filled up to where the live ones are,
never beyond, so that at one moment, while the writers are held for an instant, both are folds of
exactly the same events. A snapshot taken then is compared at leisure. Then the writers are held
once more, what came since is folded in, and the tables change places in one transaction.

A new table has the same name as the live one, and so have its indexes, in a schema of its own;
changing places is changing schemas, which carries everything along. A rebuild that is killed leaves
the live tables as they were, and its own are dropped by the next.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import psycopg

from infra.postgres import connect
from streams.rebuild_report import (
    DIFFERENCES_MAX,
    Advance,
    CannotRebuild,
    Difference,
    Report,
    Side,
)
from streams.rebuild_tables import Connection, Place, Tables
from streams.replay import Span, TopicReader

REBUILT, REPLACED = "weir_rebuild", "weir_replaced"
REBUILD_LOCK = 7303
NEAR_OFFSETS = 500
"""The new tables are near enough to the live ones for holding these when they lack no more."""
_HOLD_SECONDS = 5.0
_ROUNDS_MAX = 100


class Rebuild:
    """One rebuild of one read model."""

    def __init__(self, bootstrap: str, database: str, tables: Tables, advance: Advance) -> None:
        self._bootstrap, self._database = bootstrap, database
        self._tables, self._advance = tables, advance
        self._next: dict[Place, int] = {}
        self._first: dict[Place, int] = {}
        self._readers: dict[str, TopicReader] = {}
        self.events = 0

    async def run(self, *, switch: bool = True) -> Report:
        """Rebuild, compare, and with `switch` let the rebuilt tables go live.

        Raises CannotRebuild, LogUnavailable, DatabaseUnavailable, psycopg.Error.
        """
        started = time.monotonic()
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(alone(self._database))
            control = await stack.enter_async_context(_connection(self._database))
            work = await stack.enter_async_context(_connection(self._database))
            home = await self._prepare(control, work)
            for topic in self._tables.topics:
                reader = TopicReader(self._bootstrap, topic, "weir-rebuild")
                self._readers[topic] = await stack.enter_async_context(reader)
                for span in await reader.spans():
                    self._first[topic, span.partition] = span.first
            self._tables.check(self._first)
            await self._fill(control, work)
            live, rebuilt, differences = await self._compare(control, work, home)
            if switch:
                await self._switch(control, work, home)
            aside = await self._tidy(control, keep=switch and live != rebuilt)
        return Report(
            view=self._tables.name,
            events=self.events,
            seconds=time.monotonic() - started,
            live=live,
            rebuilt=rebuilt,
            kept="rebuilt" if switch else "live",
            aside=aside,
            differences=differences,
        )

    async def _prepare(self, control: Connection, work: Connection) -> str:
        """Empty tables beside the live ones; returns the schema where the live ones are."""
        homes = set()
        for table in self._tables.keys:
            row = await _one(
                control,
                "SELECT n.nspname AS home FROM pg_class c JOIN pg_namespace n "
                "ON n.oid = c.relnamespace WHERE c.oid = to_regclass(%s)",
                f'"{table}"',
            )
            if row is None:
                raise CannotRebuild(f"there is no table {table} yet: {self._tables.writer} make it")
            homes.add(str(row["home"]))
        (home,) = homes
        for schema in (REBUILT, REPLACED):
            await control.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}".encode())
            await self._drop(control, schema)
        # Names are found, and made, in the schema of the rebuild first.
        await work.execute(f'SET search_path = {REBUILT}, "{home}"'.encode())
        await self._tables.create(work)
        return home

    async def _drop(self, control: Connection, schema: str) -> None:
        for table in (*self._tables.keys, *self._tables.scratch):
            await control.execute(f'DROP TABLE IF EXISTS {schema}."{table}"'.encode())

    async def _fill(self, control: Connection, work: Connection) -> None:
        """Fold what the live tables hold, until little is lacking."""
        for _ in range(_ROUNDS_MAX):
            missing = self._missing(await self._tables.reached(control))
            if _length(missing) <= NEAR_OFFSETS:
                return
            await self._fold(work, missing)
        raise self._too_fast()

    def _too_fast(self) -> CannotRebuild:
        return CannotRebuild(
            f"{self._tables.writer} are faster than the rebuild: try again at a calmer time"
        )

    def _missing(self, reached: Mapping[Place, int]) -> list[tuple[str, Span]]:
        spans = []
        for (topic, partition), first in self._first.items():
            begin = self._next.get((topic, partition), first)
            end = max(begin, reached.get((topic, partition), 0))
            spans.append((topic, Span(partition, begin, end)))
        return spans

    async def _fold(self, work: Connection, spans: Sequence[tuple[str, Span]]) -> None:
        done = sum(at - self._first[place] for place, at in self._next.items())
        total = done + _length(spans)

        def advance(offsets: int) -> None:
            nonlocal done
            done += offsets
            self._advance(done, total, f"{self.events:,} events")

        for topic, span in spans:
            place, start = (topic, span.partition), span.first
            async for records in self._readers[topic].read([span], advance):
                if records:
                    end = records[-1].offset + 1
                    await self._tables.fold(work, place, start, records, end)
                    start = end
                    self.events += len(records)
            # What is left holds markers and aborted records only.
            await self._tables.fold(work, place, start, (), span.end)
            self._next[place] = span.end

    @asynccontextmanager
    async def _level(self, control: Connection, work: Connection) -> AsyncIterator[None]:
        """Hold the writers while the block runs, with all tables at the same events.

        Raises CannotRebuild when the new tables don't catch up in time.
        """
        for _ in range(_ROUNDS_MAX):
            await self._fill(control, work)
            async with self._tables.held(control):
                missing = self._missing(await self._tables.reached(control))
                if _length(missing) > 4 * NEAR_OFFSETS:
                    continue
                try:
                    async with asyncio.timeout(_HOLD_SECONDS):
                        await self._fold(work, missing)
                        yield
                except TimeoutError:
                    raise CannotRebuild(
                        f"{self._tables.writer} would have been held longer than "
                        f"{_HOLD_SECONDS:.0f} s"
                    ) from None
            return
        raise self._too_fast()

    async def _compare(
        self, control: Connection, work: Connection, home: str
    ) -> tuple[Side, Side, list[Difference]]:
        live = {table: f'"{home}"."{table}"' for table in self._tables.keys}
        new = {table: f'{REBUILT}."{table}"' for table in self._tables.keys}
        async with _connection(self._database) as snapshot:
            async with self._level(control, work):
                await snapshot.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                # The first read takes the snapshot, and all tables are locked.
                for name in (*live.values(), *new.values()):
                    await snapshot.execute(f"SELECT FROM {name} LIMIT 1".encode())
            sides = [await _side(snapshot, names.values()) for names in (live, new)]
            found: list[Difference] = []
            for table in self._tables.keys if sides[0] != sides[1] else ():
                limit = DIFFERENCES_MAX - len(found)
                found += await self._differences(snapshot, table, live[table], new[table], limit)
            await snapshot.execute("COMMIT")
        return sides[0], sides[1], found

    async def _differences(
        self, snapshot: Connection, table: str, live: str, new: str, limit: int
    ) -> list[Difference]:
        keys = ", ".join(f'"{name}"' for name in self._tables.keys[table])
        cursor = await snapshot.execute(
            f"SELECT to_jsonb(l) AS live, to_jsonb(n) AS rebuilt FROM {live} l FULL JOIN {new} n "
            f"USING ({keys}) WHERE to_jsonb(l) IS DISTINCT FROM to_jsonb(n) "
            f"ORDER BY {keys} LIMIT {limit}".encode()
        )
        return [self._difference(table, row) for row in await cursor.fetchall()]

    def _difference(self, table: str, row: Mapping[str, Any]) -> Difference:
        live, rebuilt = row["live"], row["rebuilt"]
        known = live if live is not None else rebuilt
        key = {name: known[name] for name in self._tables.keys[table]}
        name = table if len(self._tables.keys) > 1 else ""
        if live is None:
            return Difference(key, "only in the rebuilt table", [], name)
        if rebuilt is None:
            return Difference(key, "only in the live table", [], name)
        columns = [
            column
            for column in sorted(set(live) | set(rebuilt))
            if live.get(column) != rebuilt.get(column)
        ]
        return Difference(key, "differs", columns, name)

    async def _switch(self, control: Connection, work: Connection, home: str) -> None:
        """Let the tables change places. A reader in their way is not waited for long."""
        for _ in range(_ROUNDS_MAX):
            try:
                async with self._level(control, work), control.transaction():
                    await control.execute("SET LOCAL lock_timeout = '1s'")
                    for table in self._tables.keys:
                        for source, target in ((f'"{home}"', REPLACED), (REBUILT, f'"{home}"')):
                            statement = f'ALTER TABLE {source}."{table}" SET SCHEMA {target}'
                            await control.execute(statement.encode())
                    await self._tables.switched(control, self._next)
                return
            except psycopg.errors.LockNotAvailable:
                await asyncio.sleep(0.2)  # whoever reads a table for long may end meanwhile
        raise CannotRebuild("a live table is being read without a pause: try again later")

    async def _tidy(self, control: Connection, *, keep: bool) -> str:
        """Drop what is not live; with `keep`, leave the replaced tables and say where they are."""
        await self._drop(control, REBUILT)
        if keep:
            return ", ".join(f"{REPLACED}.{table}" for table in self._tables.keys)
        await self._drop(control, REPLACED)
        return ""


def _length(spans: Sequence[tuple[str, Span]]) -> int:
    return sum(span.length for _, span in spans)


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
        await connection.execute("SET transaction_timeout = 0")
        await connection.execute("SET synchronous_commit = off")
        yield connection
    finally:
        await connection.close()


async def _one(connection: Connection, sql: str, *params: Any) -> Any:
    return await (await connection.execute(sql.encode(), params)).fetchone()


async def _side(connection: Connection, tables: Iterable[str]) -> Side:
    """Count the rows and add up two hashes of each: equal sums, equal content (128 bits)."""
    sums = ", ".join(
        f"coalesce(sum(hashtextextended(t::text, {seed})::numeric), 0) AS h{seed}"
        for seed in (0, 1)
    )
    found = [
        await _one(connection, f"SELECT count(*) AS n, {sums} FROM {table} t") for table in tables
    ]
    rows, *hashes = (sum(int(row[column]) for row in found) for column in ("n", "h0", "h1"))
    return Side(rows, "".join(f"{number & 2**64 - 1:016x}" for number in hashes))
