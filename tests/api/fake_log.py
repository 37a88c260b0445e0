"""A log in memory with the part of aiokafka's consumer that the hub uses, faults included."""

import asyncio
from collections.abc import Iterable
from typing import Any, NamedTuple

from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError, OffsetOutOfRangeError

from api.live import LiveHub
from schemas.envelope import Actor, Envelope, to_headers


class FakeRecord(NamedTuple):
    topic: str
    partition: int
    offset: int
    headers: tuple[tuple[str, bytes], ...]
    value: bytes


class FakeLog:
    """Partitions with gaps (as transaction markers leave), retention and outages."""

    def __init__(self, partitions: int = 4, topics: Iterable[str] = ("events", "billing")) -> None:
        self.partitions = partitions
        self.records: dict[TopicPartition, list[FakeRecord]] = {
            TopicPartition(topic, number): [] for topic in topics for number in range(partitions)
        }
        self.first = dict.fromkeys(self.records, 0)
        self.end = dict.fromkeys(self.records, 0)
        self.changed = asyncio.Condition()
        self.up = True
        self.reads = 0
        self.opened = 0

    async def append(
        self, partition: TopicPartition, tenant: str, type: str = "test.thing_done.v1", gap: int = 0
    ) -> int:
        """Append one record, `gap` offsets after the last one; returns its offset."""
        offset = self.end[partition] + gap
        envelope = Envelope(f"evt_{offset}", type, tenant, "test.thing/1", 1, 0, Actor("user", "u"))
        headers = tuple(to_headers(envelope))
        self.records[partition].append(FakeRecord(*partition, offset, headers, b"x"))
        self.end[partition] = offset + 1
        async with self.changed:
            self.changed.notify_all()
        return offset

    async def set_up(self, up: bool) -> None:
        """Whether the broker answers."""
        self.up = up
        async with self.changed:
            self.changed.notify_all()

    def forget(self, partition: TopicPartition, before: int) -> None:
        """Retention: drop what lies before an offset."""
        kept = [item for item in self.records[partition] if item.offset >= before]
        self.records[partition] = kept
        self.first[partition] = before

    def consumer(self) -> "FakeConsumer":
        self.opened += 1
        return FakeConsumer(self)


class FakeConsumer:
    def __init__(self, log: FakeLog) -> None:
        self.log = log
        self._positions: dict[TopicPartition, int] = {}

    def _answer(self) -> None:
        if not self.log.up:
            raise KafkaConnectionError("the broker is away")

    async def start(self) -> None:
        self._answer()

    async def stop(self) -> None:
        self._positions = {}

    async def end_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        await asyncio.sleep(0)
        self._answer()
        return {item: self.log.end[item] for item in partitions}

    async def beginning_offsets(
        self, partitions: list[TopicPartition]
    ) -> dict[TopicPartition, int]:
        await asyncio.sleep(0)
        self._answer()
        return {item: self.log.first[item] for item in partitions}

    def partitions_for_topic(self, topic: str) -> set[int]:
        return {item.partition for item in self.log.records if item.topic == topic}

    def assignment(self) -> set[TopicPartition]:
        return set(self._positions)

    def assign(self, partitions: list[TopicPartition]) -> None:
        self._positions = dict.fromkeys(partitions, 0)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self._positions[partition] = offset

    async def position(self, partition: TopicPartition) -> int:
        await asyncio.sleep(0)
        return self._positions[partition]

    def _ready(self, limit: int | None) -> dict[TopicPartition, list[FakeRecord]]:
        found: dict[TopicPartition, list[FakeRecord]] = {}
        for partition, position in self._positions.items():
            if not self.log.first[partition] <= position <= self.log.end[partition]:
                raise OffsetOutOfRangeError({partition: position})
            records = [item for item in self.log.records[partition] if item.offset >= position]
            if records:
                found[partition] = records[:limit]
                self._positions[partition] = found[partition][-1].offset + 1
            elif position < self.log.end[partition]:
                self._positions[partition] = self.log.end[partition]
        return found

    async def getmany(self, *, timeout_ms: int, max_records: int | None = None) -> Any:
        await asyncio.sleep(0)
        self.log.reads += 1
        self._answer()
        found = self._ready(max_records)
        if not found:
            async with self.log.changed:
                try:
                    async with asyncio.timeout(timeout_ms / 1000):
                        await self.log.changed.wait()
                except TimeoutError:
                    return {}
            self._answer()
            found = self._ready(max_records)
        return found


async def dispatched(hub: LiveHub, log: FakeLog, partition: TopicPartition) -> None:
    """Wait until the tail has handed out all of a partition."""
    handed = asyncio.Event()
    hub.on_event(lambda event: handed.set())
    async with asyncio.timeout(5):
        while hub.next_offset(partition) < log.end[partition]:
            handed.clear()
            await handed.wait()
