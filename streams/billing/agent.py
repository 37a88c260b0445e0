"""The usage processor's Faust agent: hands batches to the meter, and acknowledges them."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

from aiokafka import TopicPartition

from streams.billing.meter import BATCH_MAX, UsageMeter

logger = logging.getLogger(__name__)

TOPICS = ("billing", "telemetry")
WITHIN_SECONDS = 0.1


def attach(app: Any, meter: UsageMeter) -> None:
    """Give the app the agent, and the meter the partitions as they come and go."""
    topic = app.topic(*TOPICS, key_type=bytes, value_type=bytes, value_serializer="raw")
    catching_up: set[asyncio.Task[None]] = set()

    async def usage(stream: Any) -> AsyncIterator[None]:
        async for events in stream.noack_take(BATCH_MAX, within=WITHIN_SECONDS):
            by_partition: dict[TopicPartition, list[Any]] = {}
            for event in events:
                message = event.message
                partition = TopicPartition(message.topic, message.partition)
                by_partition.setdefault(partition, []).append(message)
            for partition, records in by_partition.items():
                await meter.take(partition, records)
            for event in events:
                event.ack()
        # An agent is told by its generator that it yields; this one has nothing to say.
        return
        yield

    async def assigned(_: Any, partitions: Any, **__: Any) -> None:
        # Not awaited: a rebalance must not wait for a rebuild.
        for partition in partitions:
            if partition.topic in TOPICS:
                task = asyncio.create_task(meter.catch_up(TopicPartition(*partition)))
                catching_up.add(task)
                task.add_done_callback(catching_up.discard)

    async def revoked(_: Any, partitions: Any, **__: Any) -> None:
        for partition in partitions:
            meter.lets_go(TopicPartition(*partition))

    app.agent(topic, concurrency=1, name="billing.usage")(usage)
    app.on_partitions_assigned.connect(assigned, weak=False)
    app.on_partitions_revoked.connect(revoked, weak=False)
