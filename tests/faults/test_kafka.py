"""`infra.kafka` by itself against a real broker: what it does when something is refused or gone."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from infra import kafka
from infra.embedded.stack import Stack
from infra.ids import new_id
from infra.kafka import (
    MAX_RECORD_BYTES,
    Log,
    LogUnavailable,
    Record,
    bounds,
    consumer,
    read_range,
    stop_consumer,
)
from infra.kafka_transactions import TransactionLost, Transactions

SMALL_BYTES = 1000


@pytest.fixture
def bootstrap(stack: Stack) -> str:
    return stack.settings.kafka_bootstrap_servers


async def make_topic(bootstrap: str, **configs: str) -> str:
    """A topic of one partition that is this test's own."""
    name = new_id("faults").replace("_", "-")
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=15_000)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, 1, -1, {}, configs)])
    finally:
        await admin.close()
    return name


async def small_topic(bootstrap: str) -> str:
    """A topic whose broker refuses what the client lets through."""
    return await make_topic(bootstrap, **{"max.message.bytes": str(SMALL_BYTES)})


async def committed(bootstrap: str, topic: str) -> list[bytes]:
    """What a reader of committed records sees."""
    reader = consumer(bootstrap, "faults")
    await reader.start()
    try:
        partition = TopicPartition(topic, 0)
        reader.assign([partition])
        first, end = await bounds(reader, partition)
        return [
            record.value
            async for records in read_range(reader, partition, first, end)
            for record in records
        ]
    finally:
        await stop_consumer(reader)


def record(value: bytes, partition: int | None = 0) -> Record:
    return Record(b"key", value, [], partition)


def incompressible(size: int) -> bytes:
    return random.Random(7).randbytes(size)


@contextlib.asynccontextmanager
async def log_on(bootstrap: str) -> AsyncIterator[Log]:
    log = Log(bootstrap, "faults")
    await log.start()
    try:
        yield log
    finally:
        await log.stop()


@contextlib.asynccontextmanager
async def owner(bootstrap: str, name: str) -> AsyncIterator[Transactions]:
    """A fenced-in owner of a transactional id."""
    transactions = Transactions(bootstrap, name)
    await transactions.fence()
    try:
        yield transactions
    finally:
        await transactions.discard()


async def write(transactions: Transactions, topic: str, *values: bytes) -> None:
    async with transactions.txn() as txn:
        for value in values:
            await txn.send(topic, record(value))


@pytest.mark.parametrize(
    "refused", [incompressible(2 * SMALL_BYTES), bytes(2 * MAX_RECORD_BYTES)], ids=["broker", "us"]
)
async def test_a_transaction_with_a_refused_record_leaves_nothing(
    bootstrap: str, refused: bytes
) -> None:
    topic, beside = await small_topic(bootstrap), await make_topic(bootstrap)
    async with owner(bootstrap, new_id("txn")) as transactions:
        with pytest.raises(TransactionLost):
            async with transactions.txn() as txn:
                await txn.send(beside, record(b"beside"))
                await txn.send(topic, record(b"before"))
                await txn.send(topic, record(refused))
                await txn.send(topic, record(b"after"))
        with pytest.raises(TransactionLost, match="not fenced in"):
            await write(transactions, topic, b"without a fence")
        await transactions.fence()
        await write(transactions, topic, b"next")
        await write(transactions, beside, b"next")
    assert await committed(bootstrap, topic) == [b"next"]
    assert await committed(bootstrap, beside) == [b"next"]


async def test_an_error_in_the_block_leaves_nothing(bootstrap: str) -> None:
    topic = await make_topic(bootstrap)
    async with owner(bootstrap, new_id("txn")) as transactions:
        with pytest.raises(ZeroDivisionError):
            async with transactions.txn() as txn:
                await txn.send(topic, record(b"lost"))
                raise ZeroDivisionError
        await transactions.fence()
        await write(transactions, topic, b"kept")
    assert await committed(bootstrap, topic) == [b"kept"]


async def test_a_fenced_owner_can_neither_begin_nor_commit(bootstrap: str) -> None:
    topic, name = await make_topic(bootstrap), new_id("txn")
    async with owner(bootstrap, name) as old, owner(bootstrap, name) as older:
        # `older` was fenced in last: it is the owner now.
        with pytest.raises(TransactionLost):
            await write(old, topic, b"old")
        with pytest.raises(TransactionLost):
            async with older.txn() as txn:
                await (await txn.send(topic, record(b"open")))
                async with owner(bootstrap, name) as newest:
                    await write(newest, topic, b"newest")
    assert await committed(bootstrap, topic) == [b"newest"]


async def test_letting_go_before_the_sender_has_run_is_not_a_cancellation(bootstrap: str) -> None:
    """As when Postgres refuses at once what was just fenced in: the loop must go on."""
    topic = await make_topic(bootstrap)
    transactions = Transactions(bootstrap, new_id("txn"))
    for _ in range(3):
        await transactions.fence()
        await transactions.discard()
    async with owner(bootstrap, transactions.transactional_id) as next_owner:
        await write(next_owner, topic, b"on it goes")
    assert await committed(bootstrap, topic) == [b"on it goes"]


async def test_the_log_heals_after_a_refused_record(bootstrap: str) -> None:
    topic, beside = await small_topic(bootstrap), await make_topic(bootstrap)
    async with log_on(bootstrap) as log:
        await log.append(topic, [record(b"1")])
        await log.append(beside, [record(b"1")])
        for refused in (incompressible(2 * SMALL_BYTES), bytes(2 * MAX_RECORD_BYTES)):
            with pytest.raises(LogUnavailable, match="refused"):
                await log.append(topic, [record(refused)])
            await log.append(topic, [record(b"2")])
            await log.append(beside, [record(b"2")])
    assert await committed(bootstrap, topic) == [b"1", b"2", b"2"]
    assert await committed(bootstrap, beside) == [b"1", b"2", b"2"]


async def test_one_partition_that_does_not_exist_is_refused_and_healed(bootstrap: str) -> None:
    topic = await make_topic(bootstrap)
    async with log_on(bootstrap) as log:
        with pytest.raises(LogUnavailable):
            await log.append(topic, [record(b"nowhere", partition=99)], timeout=3.0)
        await log.append(topic, [record(b"here")])
    assert await committed(bootstrap, topic) == [b"here"]


async def outcome(log: Log, topic: str, size: int) -> Any:
    """Append one record with little patience; the error, if any."""
    try:
        return await log.append(topic, [record(bytes(size))], timeout=1.0)
    except LogUnavailable as error:
        return error


async def test_a_frozen_broker_is_told_in_time_and_nothing_piles_up(
    stack: Stack, bootstrap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka, "_PENDING_BYTES_MAX", 8 * MAX_RECORD_BYTES)
    topic = await make_topic(bootstrap)
    async with log_on(bootstrap) as log:
        await log.append(topic, [record(b"warm")])
        stack.pause("kafka")
        try:
            async with asyncio.timeout(20):
                answers = await asyncio.gather(
                    *(outcome(log, topic, MAX_RECORD_BYTES // 2) for _ in range(40))
                )
                assert all(isinstance(answer, LogUnavailable) for answer in answers)
                too_many = [answer for answer in answers if "too many bytes" in str(answer)]
                assert 20 < len(too_many) < 40
                # What was given up does not count against those who come later.
                assert "in time" in str(await outcome(log, topic, MAX_RECORD_BYTES // 2))
        finally:
            stack.resume("kafka")
        await log.append(topic, [record(b"again")], timeout=30.0)
    assert (await committed(bootstrap, topic))[-1] == b"again"
