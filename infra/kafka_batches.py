"""A producer for many small appends at once: records become batches here, not in aiokafka.

aiokafka's `send` costs 20-25 us a record (a look-up, a future, a waiter each); a batch filled here
costs 4, and one call for all of them. One sender per partition owns `send_batch`, since several at
once for one partition time each other out (aiokafka 0.14). What holds for `Log` holds here: acks
from all, idempotent, bounded waiting, a producer that met an error is thrown away.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from infra.kafka import SEND_TIMEOUT_SECONDS, Log, LogUnavailable, Record
from infra.partitioning import partition_for
from schemas.envelope import Position

BATCH_BYTES = 900_000
"""Of a batch before compression, which may also add a little: the broker takes 1,048,588."""


class _Batch:
    """Records for one partition, and who waits for each."""

    __slots__ = ("builder", "bytes", "late", "waiters")

    def __init__(self, builder: Any) -> None:
        self.builder = builder
        self.bytes = 0
        self.late: asyncio.TimerHandle | None = None
        self.waiters: list[asyncio.Future[int]] = []

    def acknowledge(self, first: int) -> None:
        """The broker has the batch, its first record at this offset."""
        self._settled()
        for offset, waiter in enumerate(self.waiters, first):
            if not waiter.done():
                waiter.set_result(offset)

    def fail(self, reason: str) -> None:
        """Tell everybody that it is not known whether the broker will have the batch."""
        self._settled()
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_exception(LogUnavailable(reason))
                waiter.exception()  # whoever has gone meanwhile need not hear of it

    def _settled(self) -> None:
        if self.late is not None:
            self.late.cancel()


class _Lane:
    """A partition: batches that wait, the last of them still filling, and whoever sends them."""

    __slots__ = ("partition", "sender", "topic", "waiting")

    def __init__(self, topic: str, partition: int) -> None:
        self.topic, self.partition = topic, partition
        self.waiting: deque[_Batch] = deque()
        self.sender: asyncio.Task[None] | None = None


class BatchingLog(Log):
    """A `Log` whose appends share batches. linger_ms: how long the first of a batch waits."""

    def __init__(self, bootstrap: str, client_id: str, linger_ms: int = 5) -> None:
        super().__init__(bootstrap, client_id, linger_ms)
        self._lanes: dict[tuple[str, int], _Lane] = {}
        self._counts: dict[str, int] = {}

    async def stop(self) -> None:
        """Send what waits, then close."""
        senders = [lane.sender for lane in self._lanes.values() if lane.sender is not None]
        if senders:
            await asyncio.wait(senders, timeout=SEND_TIMEOUT_SECONDS)
        await super().stop()

    async def append(
        self,
        topic: str,
        records: Sequence[Record],
        timeout: float | None = SEND_TIMEOUT_SECONDS,
    ) -> list[Position]:
        """As `Log.append`. A batch's time runs from its first record, so one that joined it may
        wait a few milliseconds less than `timeout`; None stands for the usual time."""
        timeout = SEND_TIMEOUT_SECONDS if timeout is None else timeout
        size = sum(len(record.value or b"") + len(record.key) + 256 for record in records)
        self._reserve(size)
        try:
            producer = self._producer or await self._healthy(timeout)
            count = self._counts.get(topic) or await self._count(producer, topic, timeout)
            places = [
                partition_for(record.key, count) if record.partition is None else record.partition
                for record in records
            ]
            waiters = [
                self._put(producer, topic, partition, record, timeout)
                for partition, record in zip(places, records, strict=True)
            ]
            return [
                Position(topic, partition, await waiter)
                for partition, waiter in zip(places, waiters, strict=True)
            ]
        finally:
            self._release(size)

    async def _count(self, producer: AIOKafkaProducer, topic: str, timeout: float) -> int:
        """How many partitions a topic has; it is asked once, since keys must not move."""
        try:
            async with asyncio.timeout(timeout):
                count = len(await producer.partitions_for(topic))
        except (KafkaError, TimeoutError) as error:
            raise LogUnavailable(f"{topic} is not known: {error!r}") from error
        self._counts[topic] = count
        return count

    def _put(
        self,
        producer: AIOKafkaProducer,
        topic: str,
        partition: int,
        record: Record,
        timeout: float,
    ) -> "asyncio.Future[int]":
        """Add a record to its partition's batch; its offset comes with the acknowledgement."""
        loop = asyncio.get_running_loop()
        lane = self._lanes.get((topic, partition))
        if lane is None:
            lane = self._lanes[topic, partition] = _Lane(topic, partition)
        size = len(record.value or b"") + len(record.key) + 512
        batch = lane.waiting[-1] if lane.waiting else None
        if batch is None or batch.bytes + size > BATCH_BYTES or not self._added(batch, record):
            batch = _Batch(producer.create_batch())
            batch.late = loop.call_later(timeout, _late, lane, batch)
            lane.waiting.append(batch)
            self._added(batch, record)
        batch.bytes += size
        waiter: asyncio.Future[int] = loop.create_future()
        batch.waiters.append(waiter)
        if lane.sender is None:
            lane.sender = asyncio.create_task(self._send(lane), name=f"send-{topic}-{partition}")
        return waiter

    @staticmethod
    def _added(batch: _Batch, record: Record) -> bool:
        added = batch.builder.append(
            timestamp=None, key=record.key, value=record.value, headers=record.headers
        )
        return added is not None

    async def _send(self, lane: _Lane) -> None:
        """Send a partition's batches one after the other until none waits."""
        await asyncio.sleep(self._linger_ms / 1000)
        while lane.waiting:
            batch = lane.waiting.popleft()
            producer = self._producer
            try:
                if producer is None:
                    raise LogUnavailable("the producer was lost")
                batch.builder.close()
                sent = await producer.send_batch(
                    batch.builder, lane.topic, partition=lane.partition
                )
                acknowledged = await sent
            except Exception as error:
                batch.fail(f"the log refused: {error!r}")
                self._abandon(lane, producer, error)
            else:
                batch.acknowledge(acknowledged.offset)
        lane.sender = None

    def _abandon(self, lane: _Lane, producer: AIOKafkaProducer | None, error: Exception) -> None:
        """Fail what waits behind a batch that failed: it was filled for a producer that is gone."""
        while lane.waiting:
            lane.waiting.popleft().fail(f"the log refused: {error!r}")
        if producer is not None:
            self._discard(producer)


def _late(lane: _Lane, batch: _Batch) -> None:
    """A batch's time is over. One that was not sent yet never will be."""
    if batch in lane.waiting:
        lane.waiting.remove(batch)
    batch.fail("the log did not acknowledge in time")
