"""How the log and its readers stand: ends of topics, offsets and members of consumer groups."""

import asyncio
import contextlib
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError, KafkaError
from msgspec import Struct

from infra.kafka import consumer, stop_consumer


class Group(Struct, frozen=True):
    """A consumer group: how many members it has, and the next offset it will read, by partition."""

    members: int
    offsets: dict[tuple[str, int], int]


class LogView:
    """Asks Kafka, over connections that are made anew when they fail.

    Every method raises KafkaError, OSError or TimeoutError when the broker does not answer.
    """

    def __init__(self, bootstrap: str, client_id: str) -> None:
        self._bootstrap, self._client_id = bootstrap, client_id
        self._consumer: AIOKafkaConsumer | None = None
        self._admin: AIOKafkaAdminClient | None = None
        self._lock = asyncio.Lock()

    async def ends(self, topic: str) -> dict[int, int]:
        """Partition -> the next offset to be written; transactions' markers count too."""
        async with self._lock:
            try:
                reader = await self._reader()
                # Asking for one partition's end makes the client learn all of the topic's.
                await reader.end_offsets([TopicPartition(topic, 0)])
                numbers = sorted(reader.partitions_for_topic(topic) or ())
                ends = await reader.end_offsets([TopicPartition(topic, item) for item in numbers])
            except BaseException:
                await self._close()
                raise
        return {partition.partition: offset for partition, offset in ends.items()}

    async def group(self, name: str) -> Group:
        """A group; one that nobody has joined yet has no members and no offsets."""
        async with self._lock:
            try:
                admin = await self._asker()
                (described,) = await admin.describe_consumer_groups([name])
                committed = await admin.list_consumer_group_offsets(name)
            except GroupCoordinatorNotAvailableError:
                return Group(0, {})  # no group has been there since the broker is
            except BaseException:
                await self._close()
                raise
        offsets = {
            (partition.topic, partition.partition): found.offset
            for partition, found in committed.items()
            if found.offset >= 0
        }
        return Group(_members(described), offsets)

    async def stop(self) -> None:
        """Close the connections."""
        async with self._lock:
            await self._close()

    async def _reader(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            fresh = consumer(self._bootstrap, self._client_id)
            try:
                await fresh.start()
            except BaseException:
                await stop_consumer(fresh)
                raise
            self._consumer = fresh
        return self._consumer

    async def _asker(self) -> AIOKafkaAdminClient:
        if self._admin is None:
            fresh = AIOKafkaAdminClient(
                bootstrap_servers=self._bootstrap, client_id=self._client_id
            )
            try:
                await fresh.start()
            except BaseException:
                await fresh.close()
                raise
            self._admin = fresh
        return self._admin

    async def _close(self) -> None:
        reader, self._consumer = self._consumer, None
        asker, self._admin = self._admin, None
        if reader is not None:
            await stop_consumer(reader)
        if asker is not None:
            with contextlib.suppress(KafkaError, OSError):
                await asker.close()


def _members(described: Any) -> int:
    """The members in a DescribeGroups response: its groups' last field, or the one before it."""
    (group,) = described.groups
    return len(next(field for field in group if isinstance(field, list)))
