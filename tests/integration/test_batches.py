"""Records that travel as batches: in order, at the positions that are told, all or none."""

from collections.abc import AsyncIterator

import pytest
from aiokafka import TopicPartition

from infra.config import Settings
from infra.ids import new_id
from infra.kafka import Log, Record, bounds, consumer, create_topics, read_range, stop_consumer
from infra.kafka_transactions import TransactionLost, Transactions

# A topic that nothing on the session's stack writes to meanwhile.
HERE = TopicPartition("telemetry.dlq", 0)


@pytest.fixture
async def settled(settings: Settings) -> AsyncIterator[Settings]:
    await create_topics(settings.kafka_bootstrap_servers, settings.partitions)
    yield settings


def records(count: int, size: int) -> list[Record]:
    return [
        Record(b"key", f"{number}:".encode().ljust(size, b"."), [("number", b"%d" % number)])
        for number in range(count)
    ]


async def read_from(settings: Settings, first: int) -> list[tuple[int, bytes]]:
    reader = consumer(settings.kafka_bootstrap_servers, "test-batches")
    await reader.start()
    try:
        reader.assign([HERE])
        _, end = await bounds(reader, HERE)
        return [
            (record.offset, record.value)
            async for found in read_range(reader, HERE, first, end)
            for record in found
        ]
    finally:
        await stop_consumer(reader)


async def end_of(settings: Settings) -> int:
    reader = consumer(settings.kafka_bootstrap_servers, "test-batches")
    await reader.start()
    try:
        reader.assign([HERE])
        return (await bounds(reader, HERE))[1]
    finally:
        await stop_consumer(reader)


async def test_a_transaction_appends_more_than_one_batch_holds(settled: Settings) -> None:
    transactions = Transactions(settled.kafka_bootstrap_servers, new_id("test"))
    first = await end_of(settled)
    await transactions.fence()
    sent = records(count=300, size=10_000)
    async with transactions.txn() as txn:
        tail = await txn.append(HERE.topic, HERE.partition, sent)
    await transactions.stop()
    found = await read_from(settled, first)
    assert [value for _, value in found] == [record.value for record in sent]
    assert tail.next_offset() == found[-1][0] + 1


async def test_an_aborted_transaction_leaves_nothing_to_read(settled: Settings) -> None:
    transactions = Transactions(settled.kafka_bootstrap_servers, new_id("test"))
    first = await end_of(settled)
    await transactions.fence()
    with pytest.raises(RuntimeError, match="on purpose"):
        async with transactions.txn() as txn:
            await txn.append(HERE.topic, HERE.partition, records(count=3, size=10))
            await txn.settle()
            raise RuntimeError("on purpose")
    await transactions.fence()
    await transactions.stop()
    assert await read_from(settled, first) == []


async def test_what_the_broker_refuses_is_a_lost_transaction(settled: Settings) -> None:
    transactions = Transactions(settled.kafka_bootstrap_servers, new_id("test"))
    await transactions.fence()
    with pytest.raises(TransactionLost):
        async with transactions.txn() as txn:
            await txn.append(HERE.topic, HERE.partition, records(count=1, size=3_000_000))
    await transactions.fence()
    await transactions.stop()


async def test_a_log_tells_where_each_record_of_a_batch_is(settled: Settings) -> None:
    log = Log(settled.kafka_bootstrap_servers, "test-batches")
    first = await end_of(settled)
    sent = [record._replace(partition=HERE.partition) for record in records(400, 8_000)]
    positions = await log.append(HERE.topic, sent)
    await log.stop()
    found = await read_from(settled, first)
    assert [value for _, value in found] == [record.value for record in sent]
    assert [(item.topic, item.partition, item.offset) for item in positions] == [
        (HERE.topic, HERE.partition, offset) for offset, _ in found
    ]
