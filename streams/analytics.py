"""The analytics loop: from the log to ClickHouse in columnar batches, exactly.

What is read collects in a `Pending` (`streams/batching.py`) until a flush is due; a `Flusher`
(`streams/flushing.py`) writes it, and says why no crash loses a row or counts one twice. Consumer
groups have no part in this: where to start is asked of ClickHouse alone. What is sealed for a
person is opened before it becomes rows; its key is asked of the object store once. A record whose
key is neither there nor destroyed goes to the dead letters.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from msgspec import Struct

from infra.clickhouse import AnalyticsUnavailable, ClickHouse
from infra.kafka import Log, LogUnavailable, consumer, stop_consumer
from infra.leases import Leases
from infra.memory import tune_arrow
from infra.objects import ObjectsUnavailable
from projections.clickhouse import ClickHouseView
from schemas.codec import Codec
from streams.batching import SLICE_BYTES, SLICE_RECORDS, Pending, Router, Unreadable
from streams.batching import TopicPartition as Place
from streams.flushing import Flusher
from streams.person_keys import PersonKeys
from streams.sealing import Keyring, LogRecord

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
        self._codec, self._leases = codec, leases
        self._person_keys = person_keys
        self._limits = limits or Limits()
        self._topics = sorted({view.topic for view in views})
        self.flusher = Flusher(clickhouse, self._views, dead_letters)
        self._reached: dict[Place, int] = {}
        self._since = 0.0
        self.ready = False
        self._serving = asyncio.Event()
        self.halted: dict[Place, str] = {}

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
            await asyncio.sleep(delay)

    async def serving(self) -> None:
        """Return once the loop fills, or knows that other processes hold every partition."""
        await self._serving.wait()

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
        await self.flusher.look_up()
        filled = self.flusher.filled
        self.halted = {}
        starts: dict[Place, int] = {}
        firsts, ends = await reader.beginning_offsets(places), await reader.end_offsets(places)
        for place in places:
            end = ends[place]
            tables = [view.table for view in self._views if view.topic == place.topic]
            start = min(filled.get((table, place.partition), 0) for table in tables)
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

    async def _read(self, reader: AIOKafkaConsumer, held: set[int] | None) -> None:
        loop, limits = asyncio.get_running_loop(), self._limits
        # Anew with each start: where another process filled, a key may have come to its end.
        keyring = Keyring(self._person_keys, self._codec)
        to = self.flusher
        router = Router(self._views, self._codec, to.filled, to.with_dead_letters, keyring)
        pending = Pending(self._views)
        flush: asyncio.Task[None] | None = None
        fetch: asyncio.Task[dict[TopicPartition, list[Any]]] | None = None
        try:
            while held is None or self._leases is None or self._leases.held == held:
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
        await self.flusher.write(pending)
        self._advance(pending.next)

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
