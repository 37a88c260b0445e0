"""The analytics loop: from the log to ClickHouse in columnar batches, exactly.

For each flush, in this order:
1. records that nobody can read go to the dead letters;
2. one block per table, with a token that names the range of offsets it holds;
3. one block into `log_positions`: how far every table is.
A crash before 2 costs nothing. Between two tables of 2, or before 3: the restart begins at the
stored position, and each table skips what it holds already, by its own greatest `_offset`. A
repeated insert of a lost connection carries the same token. And should a process that lost its
partition still write, its rows replace their equals, since a table is ordered by event identity.
Consumer groups have no part in this: where to start is asked of ClickHouse alone.
What is sealed for a person is opened before it becomes rows; its key is asked of the object store
once. A record whose key is neither there nor destroyed goes to the dead letters.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from msgspec import Struct

from infra.clickhouse import (
    POSITIONS_COLUMNS,
    POSITIONS_TABLE,
    POSITIONS_TYPES,
    AnalyticsUnavailable,
    ClickHouse,
    RowsRefused,
)
from infra.failpoints import failpoint
from infra.kafka import Log, LogUnavailable, Record, consumer, stop_consumer
from infra.leases import Leases
from infra.memory import tune_arrow
from infra.objects import ObjectsUnavailable
from projections.batches import Batch
from projections.clickhouse import ClickHouseView
from schemas.codec import Codec
from schemas.topics import topics
from streams.batching import (
    SLICE_BYTES,
    SLICE_RECORDS,
    DeadLetter,
    Pending,
    Router,
    Unreadable,
)
from streams.batching import TopicPartition as Place
from streams.person_keys import PersonKeys
from streams.sealing import Keyring, LogRecord, Opened

logger = logging.getLogger(__name__)

_FORESEEN = (
    KafkaError,
    LogUnavailable,
    AnalyticsUnavailable,
    ObjectsUnavailable,
    OSError,
    TimeoutError,
)

FETCH_RECORDS = 1_000


class Limits(Struct, frozen=True):
    """When a flush is due, and how much may wait while one is on its way.

    age_seconds: since its first record. rows, bytes: of what is collected (bytes as encoded); so
    much makes an insert that is worth its fixed costs, and waiting longer would only leave the
    engine idle. While one insert runs, what comes collects for the next: with a backlog they grow.
    pending_rows, pending_bytes: beyond either the loop stops reading until the flush in progress is
    done.
    """

    age_seconds: float = 0.25
    rows: int = 10_000
    bytes: int = 8 * 1024 * 1024
    pending_rows: int = 100_000
    pending_bytes: int = 32 * 1024 * 1024


class LogTruncated(Exception):
    """The tables hold offsets that the log doesn't have: it is another log, or it lost its end."""


class AnalyticsLoop:
    """Fills every ClickHouse view of the partitions it holds.

    leases: which partitions are this process's; without them, all. `ready` once it fills.
    """

    def __init__(
        self,
        *,
        bootstrap: str,
        clickhouse: ClickHouse,
        views: Sequence[ClickHouseView],
        codec: Codec,
        dead_letters: Log,
        person_keys: PersonKeys,
        leases: Leases | None = None,
        limits: Limits | None = None,
    ) -> None:
        tune_arrow()
        self._bootstrap, self._clickhouse, self._views = bootstrap, clickhouse, list(views)
        self._codec, self._dead, self._leases = codec, dead_letters, leases
        self._person_keys = person_keys
        self._limits = limits or Limits()
        self._topics = sorted({view.topic for view in views})
        self._with_dead_letters = frozenset(
            topic for topic in self._topics if f"{topic}.dlq" in topics()
        )
        self._filled: dict[tuple[str, int], int] = {}
        self._reached: dict[Place, int] = {}
        self._since = 0.0
        self.ready = False
        self._serving = asyncio.Event()
        self.alive_at = 0.0
        self.halted: dict[Place, str] = {}
        self.rows_written = 0
        self.flushes = 0
        self.dead_letters_written = 0

    async def run(self) -> None:
        """Fill until cancelled; what goes wrong outside is waited out."""
        delay = 0.1
        while True:
            try:
                await self._fill()
                delay = 0.1
            except Exception as error:
                foreseen = isinstance(error, _FORESEEN)
                logger.warning("analytics starts over: %r", error, exc_info=not foreseen)
                delay = 0.1 if self.ready else min(2.0, delay * 2)
            finally:
                self.ready = False
            self._beat()
            await asyncio.sleep(delay)

    async def serving(self) -> None:
        """Return once the loop fills, or knows that other processes hold every partition."""
        await self._serving.wait()

    def _beat(self) -> None:
        self.alive_at = asyncio.get_running_loop().time()

    async def _fill(self) -> None:
        """Read from where the tables are until the leases change. Raises what goes wrong."""
        await self._clickhouse.start()
        for view in self._views:
            await self._clickhouse.command(view.ddl())
        held = None if self._leases is None else set(self._leases.held)
        if held is not None and not held:
            self._serving.set()
            await self._lease_change(held, timeout=1.0)
            return
        reader = consumer(
            self._bootstrap,
            "analytics",
            fetch_max_wait_ms=100,
            max_partition_fetch_bytes=2 * 1024 * 1024,
        )
        await reader.start()
        try:
            places = [
                TopicPartition(topic, partition)
                for topic, partitions in (await _partitions(reader, self._topics)).items()
                for partition in sorted(partitions)
                if held is None or partition in held
            ]
            reader.assign(places)
            await self._seek(reader, places)
            self.ready = True
            self._serving.set()
            await self._read(reader, held)
        finally:
            self._clickhouse.follow(())
            await stop_consumer(reader)

    async def _seek(self, reader: AIOKafkaConsumer, places: Sequence[TopicPartition]) -> None:
        """Start each partition at what its slowest table lacks. Raises LogTruncated."""
        self._filled = await self._stored_positions()
        self.halted = {}
        starts: dict[Place, int] = {}
        firsts, ends = await reader.beginning_offsets(places), await reader.end_offsets(places)
        for place in places:
            end = ends[place]
            tables = [view.table for view in self._views if view.topic == place.topic]
            start = min(self._filled.get((table, place.partition), 0) for table in tables)
            if start > end:
                raise LogTruncated(
                    f"{place.topic}:{place.partition} ends at {end}, the tables are at {start}"
                )
            start = max(firsts[place], start)
            reader.seek(place, start)
            starts[place.topic, place.partition] = start
        self._clickhouse.follow(starts)
        self._reached = {}
        self._advance(starts)

    async def _stored_positions(self) -> dict[tuple[str, int], int]:
        """By table and partition, the next offset that the table needs."""
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
        return filled

    async def _read(self, reader: AIOKafkaConsumer, held: set[int] | None) -> None:
        loop, limits = asyncio.get_running_loop(), self._limits
        # Anew with each start: where another process filled, a key may have come to its end.
        keyring = Keyring(self._person_keys, self._codec)
        router = Router(self._views, self._codec, self._filled, self._with_dead_letters, keyring)
        pending = Pending(self._views)
        flush: asyncio.Task[None] | None = None
        fetch: asyncio.Task[dict[TopicPartition, list[Any]]] | None = None
        try:
            while held is None or self._leases is None or self._leases.held == held:
                self._beat()
                if fetch is None:
                    wait = int(limits.age_seconds / 2 * 1000)
                    fetch = asyncio.create_task(
                        reader.getmany(timeout_ms=wait, max_records=FETCH_RECORDS)
                    )
                # Also when nothing comes, the next flush begins as soon as the last one is done.
                tasks = [fetch] if flush is None else [fetch, flush]
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                if fetch.done():
                    fetched, fetch = fetch.result(), None
                    for place, records in fetched.items():
                        await self._take(router, pending, reader, place, records)
                    if not fetched and not pending and flush is None:
                        await self._pass_markers(reader)
                if flush is not None and flush.done():
                    flush.result()
                    flush = None
                due = (
                    loop.time() - self._since >= limits.age_seconds
                    or pending.bytes >= limits.bytes
                    or pending.rows >= limits.rows
                )
                if pending and due and flush is None:
                    router.settle(pending)
                    flush = asyncio.create_task(self._flush(pending), name="analytics-flush")
                    pending = Pending(self._views)
                elif flush is not None and (
                    pending.bytes >= limits.pending_bytes or pending.rows >= limits.pending_rows
                ):
                    # Backpressure: what Kafka holds is safe there.
                    await asyncio.wait([flush])
        finally:
            if fetch is not None:
                fetch.cancel()
                await asyncio.wait([fetch])
            if flush is not None:
                # An insert runs in a thread and cannot be called back: let it end before anyone
                # asks the tables how far they are.
                with contextlib.suppress(*_FORESEEN):
                    await flush

    async def _take(
        self,
        router: Router,
        pending: Pending,
        reader: AIOKafkaConsumer,
        place: TopicPartition,
        records: Sequence[Any],
    ) -> None:
        """Route records in slices, so that a process that also serves requests keeps answering."""
        if not pending:
            self._since = asyncio.get_running_loop().time()
        for part in _slices(records):
            await router.keyring.fetch(part)
            try:
                router.take(pending, part)
            except Unreadable as error:
                logger.error("partition halted, a newer release has to read it: %s", error)
                self.halted[place.topic, place.partition] = str(error)
                reader.pause(place)
                return
            await asyncio.sleep(0)

    async def _flush(self, pending: Pending) -> None:
        """Write one flush. Raises AnalyticsUnavailable or LogUnavailable with nothing lost."""
        if pending.dead:
            await self._bury(pending.dead)
        for batch in pending.batches.values():
            if len(batch):
                await self._insert(pending, batch)
                failpoint("analytics.inserted")
        await self._store_positions(pending.next)
        failpoint("analytics.positioned")
        self._advance(pending.next)
        self.flushes += 1

    def _advance(self, reached: Mapping[Place, int]) -> None:
        self._reached.update(reached)
        self._clickhouse.advance(reached)

    async def _pass_markers(self, reader: AIOKafkaConsumer) -> None:
        """With nothing pending, all that was read is stored: also the markers of transactions,
        which come as no records, so that a loop at rest has no lag."""
        ahead = {}
        for assigned in reader.assignment():
            place, at = (assigned.topic, assigned.partition), await reader.position(assigned)
            if at > self._reached.get(place, 0) and place not in self.halted:
                ahead[place] = at
        if ahead:
            self._advance(ahead)

    async def _insert(self, pending: Pending, batch: Batch) -> None:
        """Insert a batch. A record whose rows ClickHouse will never take is cut out and put aside.

        Raises RowsRefused for a record of a topic without dead letters.
        """
        view = batch.view
        try:
            await self._clickhouse.insert(
                view.table, view.stored, view.types, batch.columns(), token=batch.token
            )
            self.rows_written += len(batch)
        except RowsRefused as error:
            halves = batch.split()
            for half in halves:
                await self._insert(pending, half)
            if not halves:
                ((partition, (offset, _)),) = batch.ranges.items()
                record = pending.record_at(view.topic, partition, offset)
                if record is None or view.topic not in self._with_dead_letters:
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
        return self._filled.get((view.table, partition), 0)

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

    async def _lease_change(self, held: set[int], timeout: float) -> None:
        leases = self._leases
        assert leases is not None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout), leases.changed:
                await leases.changed.wait_for(lambda: leases.held != held)


def _slices(records: Sequence[LogRecord]) -> Iterator[Sequence[LogRecord]]:
    """Runs of records that take a few milliseconds."""
    start = size = 0
    for index, record in enumerate(records):
        size += len(record.value or b"")
        if size >= SLICE_BYTES or index - start >= SLICE_RECORDS:
            yield records[start : index + 1]
            start, size = index + 1, 0
    if start < len(records):
        yield records[start:]


async def _partitions(reader: AIOKafkaConsumer, wanted: Iterable[str]) -> dict[str, set[int]]:
    """The partitions of topics; waits until the broker knows them all. Raises TimeoutError."""
    async with asyncio.timeout(15):
        while True:
            # `partitions_for_topic` of the consumer knows subscribed topics only.
            cluster = await reader._client.fetch_all_metadata()
            found = {topic: cluster.partitions_for_topic(topic) or set() for topic in wanted}
            if all(found.values()):
                return found
            await asyncio.sleep(0.2)
