"""Writing what the analytics loop has collected to ClickHouse, exactly.

For each flush, in this order:
1. records that nobody can read go to the dead letters;
2. one block per table, with a token that names the range of offsets it holds;
3. one block into `log_positions`: how far every table is.
A crash before 2 costs nothing. Between two tables of 2, or before 3: the restart begins at the
stored position, and each table skips what it holds already, by its own greatest `_offset`. A
repeated insert of a lost connection carries the same token. And should a process that lost its
partition still write, its rows replace their equals, since a table is ordered by event identity.
"""

import logging
from collections.abc import Mapping, Sequence

from infra.clickhouse import (
    POSITIONS_COLUMNS,
    POSITIONS_TABLE,
    POSITIONS_TYPES,
    ClickHouse,
    RowsRefused,
)
from infra.failpoints import failpoint
from infra.kafka import Log, Record
from projections.batches import Batch
from projections.clickhouse import ClickHouseView
from schemas.topics import topics
from streams.batching import DeadLetter, Pending
from streams.batching import TopicPartition as Place
from streams.sealing import Opened

logger = logging.getLogger(__name__)


class Flusher:
    """Fills the tables of views.

    dead_letters: takes the records of a topic that has dead letters (`with_dead_letters`). filled:
    by table and partition, the next offset that the table needed when `look_up` asked last.
    """

    def __init__(
        self, clickhouse: ClickHouse, views: Sequence[ClickHouseView], dead_letters: Log
    ) -> None:
        self._clickhouse, self._views, self._dead = clickhouse, views, dead_letters
        self.with_dead_letters = frozenset(
            view.topic for view in views if f"{view.topic}.dlq" in topics()
        )
        self.filled: dict[tuple[str, int], int] = {}
        self.flushes = 0
        self.dead_letters_written = 0

    async def look_up(self) -> None:
        """Ask the tables how far they are. Raises AnalyticsUnavailable."""
        filled: dict[tuple[str, int], int] = {}
        rows = await self._clickhouse.query(
            f"SELECT view, partition, max(next_offset) AS next FROM {POSITIONS_TABLE}"
            " GROUP BY view, partition"
        )
        for row in rows:
            filled[row["view"], row["partition"]] = row["next"]
        for view in self._views:
            # What a table holds beyond the stored position came with a flush that a crash cut off.
            rows = await self._clickhouse.query(
                f"SELECT _partition AS p, max(_offset) + 1 AS next FROM {view.table} GROUP BY p"
                " SETTINGS final = 0"
            )
            for row in rows:
                place = (view.table, row["p"])
                filled[place] = max(filled.get(place, 0), row["next"])
        self.filled = filled

    async def write(self, pending: Pending) -> None:
        """Write one flush. Raises AnalyticsUnavailable or LogUnavailable with nothing lost, and
        RowsRefused for rows of a topic without dead letters."""
        if pending.dead:
            await self._bury(pending.dead)
        for batch in pending.batches.values():
            if len(batch):
                await self._insert(pending, batch)
                failpoint("analytics.inserted")
        await self._store_positions(pending.next)
        failpoint("analytics.positioned")
        self.flushes += 1

    async def _insert(self, pending: Pending, batch: Batch) -> None:
        """Insert a batch. A record whose rows ClickHouse will never take is cut out and put aside.

        Raises RowsRefused for a record of a topic without dead letters.
        """
        view = batch.view
        try:
            await self._clickhouse.insert(
                view.table, view.stored, view.types, batch.columns(), token=batch.token
            )
        except RowsRefused as error:
            halves = batch.split()
            for half in halves:
                await self._insert(pending, half)
            if not halves:
                ((partition, (offset, _)),) = batch.ranges.items()
                record = pending.record_at(view.topic, partition, offset)
                if record is None or view.topic not in self.with_dead_letters:
                    raise
                reason = str(error)
                if isinstance(record, Opened):
                    record, reason = record.written, f"{view.table} refused what was sealed in it"
                await self._bury([DeadLetter(record, reason)])

    async def _store_positions(self, reached: Mapping[Place, int]) -> None:
        rows = [
            (topic, partition, view.table, max(next_offset, self._ahead(view, partition)))
            for (topic, partition), next_offset in sorted(reached.items())
            for view in self._views
            if view.topic == topic
        ]
        token = ",".join(f"{topic}:{p}:{offset}" for (topic, p), offset in sorted(reached.items()))
        await self._clickhouse.insert(
            POSITIONS_TABLE,
            POSITIONS_COLUMNS,
            POSITIONS_TYPES,
            list(zip(*rows, strict=True)),
            token=token,
        )

    def _ahead(self, view: ClickHouseView, partition: int) -> int:
        """Where a table was at the start: beyond the loop while a newer one catches up."""
        return self.filled.get((view.table, partition), 0)

    async def _bury(self, dead: Sequence[DeadLetter]) -> None:
        """Put records aside with the reason. After a crash one may be put aside twice."""
        by_topic: dict[str, list[Record]] = {}
        for record, reason in dead:
            place = f"{record.topic}:{record.partition}:{record.offset}"
            logger.warning("%s is put aside: %s", place, reason)
            headers = [
                *record.headers,
                ("reason", reason[:2000].encode()),
                ("source", place.encode()),
            ]
            letter = Record(record.key or b"", record.value, headers)
            by_topic.setdefault(f"{record.topic}.dlq", []).append(letter)
        for topic, records in by_topic.items():
            await self._dead.append(topic, records)
            self.dead_letters_written += len(records)
