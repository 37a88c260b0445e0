"""`weir rebuild` of a ClickHouse view: a new table filled from the log, then EXCHANGE TABLES.

The analytics loop goes on meanwhile, in whatever process. The new table is filled to the end of the
log, which may be ahead of the loop: that is harmless, since rows replace their equals. The two are
compared up to where the loop had come when the comparison began, without the rows that have changed
since. Then they change places at once, and what the loop wrote to the former table in the last
moment is read from the log into the new one; for that moment a query may not see the newest rows.
A person who is erased meanwhile is blanked in both.

With `chdb://` the engine belongs to one process: the rebuild needs the folder to itself, so the
stack that uses it has to be stopped (`streams/cli.py` starts the servers that the rebuild needs).
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from infra.clickhouse import POSITIONS_TABLE, ClickHouse, RowsRefused
from projections.batches import Batch
from projections.clickhouse import ClickHouseView
from schemas.codec import Codec
from schemas.topics import topics
from streams.batching import Pending, Router, Unreadable
from streams.observability.blanking import blank_view
from streams.person_keys import PersonKeys
from streams.rebuild_report import (
    DIFFERENCES_MAX,
    Advance,
    CannotRebuild,
    Difference,
    Report,
    Side,
)
from streams.replay import Span, TopicReader
from streams.sealing import Keyring

QUERY_SECONDS = 3_600
NEAR_OFFSETS = 1_000
_FLUSH_ROWS = 50_000
_FLUSH_BYTES = 16 * 1024 * 1024
_ROUNDS_MAX = 100
_COMPARISONS = 3


class ClickHouseRebuild:
    """One rebuild of one view. `engine` should allow long queries (QUERY_SECONDS)."""

    def __init__(
        self,
        bootstrap: str,
        engine: ClickHouse,
        view: ClickHouseView,
        codec: Codec,
        advance: Advance,
        *,
        person_keys: PersonKeys,
    ) -> None:
        self._bootstrap, self._engine, self._view = bootstrap, engine, view
        self._advance = advance
        self._beside = f"{view.table}_rebuild"
        self._aside = f"{view.table}_replaced"
        # Unreadable records are with the dead letters, or have stopped the loop as they stop us.
        dead = frozenset({view.topic}) if f"{view.topic}.dlq" in topics() else frozenset[str]()
        self._keyring = Keyring(person_keys, codec)
        self._router = Router([view], codec, {}, dead, self._keyring)
        self._first: dict[int, int] = {}
        self._next: dict[int, int] = {}
        self.events = 0

    async def run(self, *, switch: bool = True) -> Report:
        """Rebuild, compare, and with `switch` let the rebuilt table go live.

        Raises CannotRebuild, LogUnavailable, AnalyticsUnavailable.
        """
        started = time.monotonic()
        if not await self._exists(self._view.table):
            raise CannotRebuild(f"there is no table {self._view.table} yet: analytics makes it")
        for table in (self._beside, self._aside):
            await self._engine.command(f"DROP TABLE IF EXISTS {table}")
        await self._engine.command(self._view.ddl(self._beside))
        async with TopicReader(self._bootstrap, self._view.topic, "weir-rebuild") as reader:
            await self._fill(reader)
            live, rebuilt = await self._compare(reader)
            differences = [] if live == rebuilt else await self._differences()
            if switch:
                await self._switch(reader)
        aside = await self._tidy(keep=switch and live != rebuilt)
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

    async def _exists(self, table: str) -> bool:
        rows = await self._engine.query(
            "SELECT 1 FROM system.tables "
            "WHERE database = currentDatabase() AND name = {name:String}",
            {"name": table},
        )
        return bool(rows)

    async def _fill(self, reader: TopicReader) -> None:
        """Read the log until little is lacking, then that little too."""
        for _ in range(_ROUNDS_MAX):
            spans = await reader.spans()
            for span in spans:
                self._first.setdefault(span.partition, span.first)
            missing = [
                Span(span.partition, self._next.get(span.partition, span.first), span.end)
                for span in spans
            ]
            await self._read(reader, missing, self._beside)
            if sum(span.length for span in missing) <= NEAR_OFFSETS:
                return
        raise CannotRebuild("the log grows faster than the rebuild: try again at a calmer time")

    async def _read(self, reader: TopicReader, spans: Sequence[Span], table: str) -> None:
        done = sum(at - self._first[partition] for partition, at in self._next.items())
        total = done + sum(max(0, span.length) for span in spans)

        def advance(offsets: int) -> None:
            nonlocal done
            done += offsets
            self._advance(done, total, f"{self.events:,} events")

        pending = Pending([self._view])
        async for records in reader.read(spans, advance):
            await self._keyring.fetch(records)
            try:
                self._router.take(pending, records)
            except Unreadable as error:
                raise CannotRebuild(f"a newer release has to read it: {error}") from error
            self.events += len(records)
            if pending.rows >= _FLUSH_ROWS or pending.bytes >= _FLUSH_BYTES:
                await self._insert(table, pending)
                pending = Pending([self._view])
        await self._insert(table, pending)
        while self._keyring.dropped:
            # Erased while we read: what was read before goes the way of the live table's rows.
            await blank_view(self._engine, self._view, *self._keyring.dropped.pop())
        for span in spans:
            self._next[span.partition] = max(span.end, self._next.get(span.partition, 0))

    async def _insert(self, table: str, pending: Pending) -> None:
        """Insert what was read."""
        self._router.settle(pending)
        await self._insert_batch(table, pending.batches[self._view.table])

    async def _insert_batch(self, table: str, batch: Batch) -> None:
        """Insert a batch; a record that ClickHouse will never take is with the dead letters."""
        if not len(batch):
            return
        try:
            await self._engine.insert(
                table,
                self._view.stored,
                self._view.types,
                batch.columns(),
                token=f"rebuild {batch.token}",
            )
        except RowsRefused:
            for half in batch.split():
                await self._insert_batch(table, half)

    async def _compare(self, reader: TopicReader) -> tuple[Side, Side]:
        """Both sides up to where the loop is. A moment in which it writes may look like a
        difference: one that stays is one.
        """
        for _ in range(_COMPARISONS):
            self._within = self._condition(await self._positions())
            live, rebuilt = [await self._side(name) for name in (self._view.table, self._beside)]
            if live == rebuilt:
                break
            await self._fill(reader)
        return live, rebuilt

    async def _positions(self) -> dict[int, int]:
        """How far both tables are, by partition."""
        rows = await self._engine.query(
            f"SELECT partition, max(next_offset) AS next FROM {POSITIONS_TABLE} "
            "WHERE view = {view:String} GROUP BY partition",
            {"view": self._view.table},
        )
        return {
            row["partition"]: min(row["next"], self._next.get(row["partition"], 0)) for row in rows
        }

    def _condition(self, positions: Mapping[int, int]) -> str:
        """Rows before the positions whose things have not been told anew behind them."""
        parts = [f"(_partition = {p} AND _offset < {at})" for p, at in sorted(positions.items())]
        before = " OR ".join(parts) or "0"
        keys = ", ".join(self._view.order_by)
        later = " UNION ALL ".join(
            f"SELECT {keys} FROM {table} WHERE NOT ({before})"
            for table in (self._view.table, self._beside)
        )
        return f"({before}) AND ({keys}) NOT IN ({later})"

    async def _side(self, table: str) -> Side:
        # As a tuple: of bare columns the hash of a row with a NULL would be NULL, and not count.
        values = f"tuple({', '.join(self._view.stored)})"
        rows = await self._engine.query(
            f"SELECT count() AS n, groupBitXor(sipHash64({values})) AS one, "
            f"sum(cityHash64({values})) AS two FROM {table} WHERE {self._within}"
        )
        row = rows[0]
        return Side(int(row["n"]), f"{int(row['one']):016x}{int(row['two']) & 2**64 - 1:016x}")

    async def _differences(self) -> list[Difference]:
        keys, stored = ", ".join(self._view.order_by), self._view.stored
        columns = ", ".join(stored)
        kinds = ", ".join(f"uniqExact(tuple({name}))" for name in stored)
        sides = " UNION ALL ".join(
            f"SELECT '{side}' AS side, {columns} FROM {table} WHERE {self._within}"
            for side, table in (("live", self._view.table), ("rebuilt", self._beside))
        )
        rows = await self._engine.query(
            f"SELECT {keys}, groupArray(side) AS sides, [{kinds}] AS kinds FROM ({sides}) "
            f"GROUP BY {keys} HAVING count() != 2 OR arrayExists(n -> n > 1, kinds) "
            f"ORDER BY {keys} LIMIT {DIFFERENCES_MAX}"
        )
        return [self._difference(row) for row in rows]

    def _difference(self, row: Mapping[str, Any]) -> Difference:
        key = {name: row[name] for name in self._view.order_by}
        match sorted(row["sides"]):
            case ["live"]:
                return Difference(key, "only in the live table", [])
            case ["rebuilt"]:
                return Difference(key, "only in the rebuilt table", [])
        names = zip(self._view.stored, row["kinds"], strict=True)
        return Difference(key, "differs", [name for name, kinds in names if kinds > 1])

    async def _switch(self, reader: TopicReader) -> None:
        await self._fill(reader)
        live, beside = self._view.table, self._beside
        await self._engine.command(f"EXCHANGE TABLES {live} AND {beside}")
        # From here on the loop writes to the new table. What it wrote to the former one beyond
        # our last reading is not in the new one yet.
        rows = await self._engine.query(
            f"SELECT _partition AS p, max(_offset) + 1 AS next FROM {beside} GROUP BY p "
            "SETTINGS final = 0"
        )
        missing = [
            Span(row["p"], self._next.get(row["p"], 0), row["next"])
            for row in rows
            if row["next"] > self._next.get(row["p"], 0)
        ]
        await self._read(reader, missing, live)
        # An erasure of this moment may have blanked the former table only; the log tells of it.
        await self._fill(reader)

    async def _tidy(self, *, keep: bool) -> str:
        if keep:
            await self._engine.command(f"RENAME TABLE {self._beside} TO {self._aside}")
            return self._aside
        await self._engine.command(f"DROP TABLE IF EXISTS {self._beside}")
        return ""
