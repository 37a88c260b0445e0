"""The loops run inside a test: a decider role and a command bus on the session's servers."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from aiokafka import TopicPartition
from msgspec import Struct

from infra.clock import SYSTEM_CLOCK, Clock
from infra.config import Settings
from infra.ids import new_id
from infra.kafka import (
    as_mapping,
    bounds,
    create_topics,
    range_reader,
    read_range,
    stop_consumer,
)
from schemas.envelope import SYSTEM, Actor
from schemas.topics import topics
from streams.bus import CommandRequest, KafkaCommandBus, Reply
from streams.decider_role import DeciderRole
from streams.deciding import Registry
from streams.runtime import codec, command_bus, registry


class Loops:
    """What a test sees of the running loops."""

    def __init__(self, settings: Settings, bus: KafkaCommandBus) -> None:
        self.settings, self.bus = settings, bus

    async def send(
        self,
        tenant: str,
        stream_id: str,
        command: Struct,
        *,
        command_id: str = "",
        fingerprint: str = "",
        actor: Actor = SYSTEM,
        timeout: float = 20.0,
    ) -> Reply:
        """Send a command and wait for its answer."""
        request = CommandRequest(
            tenant=tenant,
            stream_id=stream_id,
            command=command,
            actor=actor,
            command_id=command_id or new_id("cmd"),
            fingerprint=fingerprint,
        )
        return await self.bus.send(request, timeout)


@contextlib.asynccontextmanager
async def deciding(
    settings: Settings, deciders: Registry | None = None, clock: Clock = SYSTEM_CLOCK
) -> AsyncIterator[DeciderRole]:
    """A decider role that has taken all partitions."""
    role = DeciderRole(
        bootstrap=settings.kafka_bootstrap_servers,
        database=settings.database_url,
        partitions=settings.partitions,
        registry=deciders or registry(),
        codec=codec(),
        clock=clock,
        owner=new_id("test"),
    )
    task = asyncio.create_task(role.run())
    try:
        async with asyncio.timeout(60):
            await role.serving()
        yield role
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextlib.asynccontextmanager
async def loops(
    settings: Settings, deciders: Registry | None = None, clock: Clock = SYSTEM_CLOCK
) -> AsyncIterator[Loops]:
    """Topics, a decider role and a bus."""
    await create_topics(settings.kafka_bootstrap_servers, settings.partitions)
    async with deciding(settings, deciders, clock), talking(settings) as bus:
        yield Loops(settings, bus)


@contextlib.asynccontextmanager
async def talking(settings: Settings) -> AsyncIterator[KafkaCommandBus]:
    """A bus."""
    bus = command_bus(settings)
    await bus.start()
    try:
        yield bus
    finally:
        await bus.stop()


async def read_topic(settings: Settings, topic: str, tenant: str) -> list[Any]:
    """Every committed record of a tenant on a topic: `(headers, decoded value)` in order."""
    reader = range_reader(settings.kafka_bootstrap_servers, "test-reader")
    await reader.start()
    found = []
    try:
        for number in range(topics()[topic].partition_count(settings.partitions)):
            partition = TopicPartition(topic, number)
            reader.assign([partition])
            first, end = await bounds(reader, partition)
            async for records in read_range(reader, partition, first, end):
                for record in records:
                    headers = as_mapping(record.headers)
                    if headers.get("ce_tenant") == tenant:
                        found.append((headers, codec().decode(record.value)))
    finally:
        await stop_consumer(reader)
    return found
