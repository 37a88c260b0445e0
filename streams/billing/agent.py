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
    topic = app.topic(
        *TOPICS,
        key_type=bytes,
        value_type=bytes,
        value_serializer="raw",
        # Nothing is committed to Kafka: Faust's bookkeeping of acknowledgements stands still at
        # the first gap that a transaction's marker leaves, and grows from there.
        acks=False,
    )
    app.agent(topic, concurrency=1, name="billing.usage")(_agent(meter))
    _start_where_counting_stands(app, meter)
    _follow_assignments(app, meter)


def _agent(meter: UsageMeter) -> Any:
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
        # What makes it a generator, which Faust wants; it has nothing to say.
        return
        yield

    return usage


def _start_where_counting_stands(app: Any, meter: UsageMeter) -> None:
    """After every rebalance Faust seeks: to what Kafka has of its group, unless told otherwise."""
    consumer = app.consumer
    seek_elsewhere = consumer.perform_seek

    async def perform_seek() -> None:
        await seek_elsewhere()
        for partition in consumer.assignment():
            if partition.topic not in TOPICS:
                continue
            try:
                offset = await meter.stands(TopicPartition(*partition))
            except Exception as error:
                # From the log's beginning then: what was counted is passed over.
                logger.warning("%s starts where Kafka says: %r", partition, error)
                return
            await consumer.seek(partition, offset)

    consumer.perform_seek = perform_seek


def _follow_assignments(app: Any, meter: UsageMeter) -> None:
    catching_up: set[asyncio.Task[None]] = set()

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

    app.on_partitions_assigned.connect(assigned, weak=False)
    app.on_partitions_revoked.connect(revoked, weak=False)
