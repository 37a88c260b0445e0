"""Appends that share batches: each learns its own offset, and no failure outlives its cause."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError

from infra.config import Settings
from infra.embedded.stack import Stack
from infra.ids import new_id
from infra.kafka import LogUnavailable, Record, bounds, consumer
from infra.kafka_batches import BatchingLog
from infra.partitioning import partition_for
from schemas.envelope import Position

TOPIC = "test.batches"  # of its own: no loop has to read what lies here


@pytest.fixture
async def log(settings: Settings) -> AsyncIterator[BatchingLog]:
    await create_topic(settings)
    made = BatchingLog(settings.kafka_bootstrap_servers, "test")
    await made.start()
    yield made
    await made.stop()


async def create_topic(settings: Settings) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers)
    await admin.start()
    try:
        with contextlib.suppress(TopicAlreadyExistsError):
            await admin.create_topics([NewTopic(TOPIC, settings.partitions, 1)])
    finally:
        await admin.close()


async def read(settings: Settings, positions: list[Position]) -> dict[Position, bytes | None]:
    """The values at these positions."""
    reader = consumer(settings.kafka_bootstrap_servers, "test")
    await reader.start()
    found: dict[Position, bytes | None] = {}
    try:
        for partition in {position.partition for position in positions}:
            place = TopicPartition(TOPIC, partition)
            wanted = [p.offset for p in positions if p.partition == partition]
            reader.assign([place])
            _, end = await bounds(reader, place)
            assert max(wanted) < end
            reader.seek(place, min(wanted))
            while await reader.position(place) <= max(wanted):
                for records in (await reader.getmany(timeout_ms=500)).values():
                    for record in records:
                        found[Position(TOPIC, partition, record.offset)] = record.value
    finally:
        await reader.stop()
    return found


def records(prefix: str, count: int) -> list[Record]:
    return [Record(f"{prefix}-{n}".encode(), f"{prefix}/{n}".encode(), []) for n in range(count)]


async def test_each_of_many_appends_at_once_learns_its_own_positions(
    settings: Settings, log: BatchingLog
) -> None:
    prefix = new_id("x")
    asked = [records(f"{prefix}.{n}", n % 4 + 1) for n in range(200)]
    answers = await asyncio.gather(*(log.append(TOPIC, wanted) for wanted in asked))
    expected = {
        position: record.value
        for wanted, positions in zip(asked, answers, strict=True)
        for record, position in zip(wanted, positions, strict=True)
    }
    assert len(expected) == sum(len(wanted) for wanted in asked)
    found = await read(settings, list(expected))
    assert {position: found[position] for position in expected} == expected
    for wanted, positions in zip(asked, answers, strict=True):
        for record, position in zip(wanted, positions, strict=True):
            assert position.partition == partition_for(record.key, settings.partitions)


async def test_appends_of_one_key_keep_their_order(log: BatchingLog) -> None:
    appends = [log.append(TOPIC, [Record(b"key", str(n).encode(), [])]) for n in range(50)]
    answers = await asyncio.gather(*appends)
    offsets = [position.offset for (position,) in answers]
    assert offsets == sorted(offsets)


async def test_records_that_fill_batches_and_do_not_compress_are_all_taken(
    log: BatchingLog,
) -> None:
    big = [Record(b"key", os.urandom(300_000), []) for _ in range(8)]
    big.append(Record(b"key", os.urandom(899_000), []))
    positions = await log.append(TOPIC, big, timeout=30)
    assert len({position.offset for position in positions}) == 9


async def test_a_record_that_no_broker_takes_fails_alone(log: BatchingLog) -> None:
    with pytest.raises(LogUnavailable):
        await log.append(TOPIC, [Record(b"key", os.urandom(12_000_000), [])])
    async with asyncio.timeout(30):
        assert await log.append(TOPIC, records(new_id("x"), 3))


async def test_without_an_answer_the_caller_is_told_in_time_and_later_all_is_well(
    settings: Settings, log: BatchingLog, stack: Stack
) -> None:
    await log.append(TOPIC, records(new_id("x"), 3))
    stack.pause("kafka")
    try:
        asked = [log.append(TOPIC, records(new_id("x"), 2), timeout=0.5) for _ in range(5)]
        async with asyncio.timeout(20):
            found = await asyncio.gather(*asked, return_exceptions=True)
        assert all(isinstance(item, LogUnavailable) for item in found)
    finally:
        stack.resume("kafka")
    prefix = new_id("x")
    positions = await log.append(TOPIC, records(prefix, 4), timeout=60)
    found_values = await read(settings, positions)
    assert [found_values[position] for position in positions] == [
        record.value for record in records(prefix, 4)
    ]


async def test_a_killed_broker_is_outlived(log: BatchingLog, stack: Stack) -> None:
    await log.append(TOPIC, records(new_id("x"), 3))
    stack.kill("kafka")
    await asyncio.to_thread(stack.wait_ready, "kafka", 60)
    appended = 0
    async with asyncio.timeout(60):
        while appended < 5:
            try:
                await log.append(TOPIC, records(new_id("x"), 1))
                appended += 1
            except LogUnavailable:
                continue
    assert appended == 5


async def test_a_caller_that_goes_away_disturbs_nobody(log: BatchingLog) -> None:
    prefix = new_id("x")
    going = asyncio.create_task(log.append(TOPIC, records(prefix, 1)))
    staying = asyncio.create_task(log.append(TOPIC, records(prefix, 1)))
    await asyncio.sleep(0)
    going.cancel()
    assert len(await staying) == 1
    with pytest.raises(asyncio.CancelledError):
        await going


async def test_nothing_piles_up_without_bound(log: BatchingLog, stack: Stack) -> None:
    stack.pause("kafka")
    try:
        load = [Record(b"key", bytes(1_000_000), []) for _ in range(30)]
        asked = [log.append(TOPIC, load, timeout=1) for _ in range(4)]
        found = await asyncio.gather(*asked, return_exceptions=True)
    finally:
        stack.resume("kafka")
    assert [str(item) for item in found].count("too many bytes wait for the log") == 2
    async with asyncio.timeout(60):
        assert await log.append(TOPIC, records(new_id("x"), 1), timeout=60)
