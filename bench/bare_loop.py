"""The bare decider loop: what a command's round trip costs with nothing of ours in between.

aiokafka and psycopg alone, yet with the same guarantees: a command record, one Kafka transaction,
one Postgres transaction (rows and the checkpoint), an answer record. What it writes is a `Work`:
here the least there can be, one event and one row; `bench.same_writes` has the other.
"""

import asyncio
import contextlib
import json
import os
import traceback
from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

import psycopg
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from bench.figure import Call
from infra.config import Settings
from infra.ids import new_id

Message = tuple[bytes, list[tuple[str, bytes]]]
"""A record's value and headers. Its key is the command's id."""


class Work(Protocol):
    """What a command makes the loop write. topics: where `records` go, one partition each."""

    name: str
    topics: Sequence[str]

    def command(self, id: str) -> Message: ...

    def reply(self, id: str) -> Message: ...

    def records(self, ids: list[str]) -> dict[str, list[Message]]: ...

    async def prepare(self, connection: psycopg.AsyncConnection[Any]) -> None:
        """Make tables, once."""
        ...

    async def rows(self, connection: psycopg.AsyncConnection[Any], ids: list[str]) -> None:
        """Write a batch's rows and the checkpoint, in the caller's transaction."""
        ...


class Least:
    """One event, one row."""

    name = "bare"
    topics = ("bare.events",)

    def command(self, id: str) -> Message:
        return id.encode(), []

    def reply(self, id: str) -> Message:
        return id.encode(), []

    def records(self, ids: list[str]) -> dict[str, list[Message]]:
        return {"bare.events": [(json.dumps({"id": id}).encode(), []) for id in ids]}

    async def prepare(self, connection: psycopg.AsyncConnection[Any]) -> None:
        await connection.execute("CREATE TABLE bare (id text PRIMARY KEY, body jsonb)")
        await connection.execute("CREATE TABLE bare_checkpoint (next bigint)")
        await connection.execute("INSERT INTO bare_checkpoint VALUES (0)")

    async def rows(self, connection: psycopg.AsyncConnection[Any], ids: list[str]) -> None:
        async with connection.cursor() as cursor:
            await cursor.executemany(
                "INSERT INTO bare VALUES (%s, %s)", [(id, json.dumps({"id": id})) for id in ids]
            )
            await cursor.execute("UPDATE bare_checkpoint SET next = next + %s", (len(ids),))


@contextlib.asynccontextmanager
async def bare(settings: Settings, work: Work) -> AsyncIterator[Call]:
    """The loop without us, on topics of its own."""
    servers, ready = settings.kafka_bootstrap_servers, asyncio.Event()
    await _create_topics(servers, work)
    waiting: dict[bytes, asyncio.Future[None]] = {}
    source, target = (TopicPartition(f"{work.name}.{end}", 0) for end in ("commands", "replies"))
    producer = AIOKafkaProducer(bootstrap_servers=servers, enable_idempotence=True, acks="all")
    await producer.start()
    for topic in (source.topic, target.topic, *work.topics):
        # A fresh topic has no leader for a moment; a consumer would spin on that.
        await producer.send_and_wait(topic, b"", partition=0)
    loops_ = [
        asyncio.create_task(_decider(settings, work, source, target, ready)),
        asyncio.create_task(_listener(servers, target, waiting)),
    ]
    for task in loops_:
        task.add_done_callback(_report)
    starting = asyncio.create_task(ready.wait())
    await asyncio.wait({starting, *loops_}, return_when=asyncio.FIRST_COMPLETED)
    for task in loops_:
        if task.done():
            task.result()

    async def call() -> None:
        id = new_id("ci")
        key = id.encode()
        value, headers = work.command(id)
        waiting[key] = asyncio.get_running_loop().create_future()
        await producer.send_and_wait(source.topic, value, key=key, headers=headers, partition=0)
        await waiting[key]
        del waiting[key]

    try:
        yield call
    finally:
        for task in loops_:
            task.cancel()
        await asyncio.gather(*loops_, return_exceptions=True)
        await producer.stop()


def _report(task: asyncio.Task[None]) -> None:
    """A bare loop that fails would leave its callers waiting: say so and end."""
    if not task.cancelled() and task.exception() is not None:
        traceback.print_exception(task.exception())
        os._exit(1)


async def _decider(
    settings: Settings,
    work: Work,
    source: TopicPartition,
    target: TopicPartition,
    ready: asyncio.Event,
) -> None:
    servers = settings.kafka_bootstrap_servers
    producer = AIOKafkaProducer(
        bootstrap_servers=servers,
        transactional_id=work.name,
        acks="all",
        retry_backoff_ms=3,
        max_batch_size=1024 * 1024,
    )
    answers = AIOKafkaProducer(bootstrap_servers=servers, enable_idempotence=True, acks="all")
    commands = AIOKafkaConsumer(
        source.topic,
        bootstrap_servers=servers,
        isolation_level="read_committed",
        max_partition_fetch_bytes=4 * 1024 * 1024,
    )
    async with producer, answers, commands:
        await commands.position(source)
        connection = await psycopg.AsyncConnection.connect(settings.database_url, autocommit=True)
        async with connection:
            await work.prepare(connection)
            ready.set()
            while True:
                found = await commands.getmany(source, timeout_ms=1000, max_records=500)
                ids = [record.key.decode() for record in found.get(source, [])]
                if ids:
                    async with producer.transaction():
                        await _produce(producer, work.records(ids))
                    async with connection.transaction():
                        await work.rows(connection, ids)
                    for id in ids:
                        value, headers = work.reply(id)
                        await answers.send(
                            target.topic, value, key=id.encode(), headers=headers, partition=0
                        )


async def _produce(producer: AIOKafkaProducer, records: dict[str, list[Message]]) -> None:
    """Send records in as few batches as they fit, and wait for all."""
    sent = []
    for topic, messages in records.items():
        batch = producer.create_batch()
        for value, headers in messages:
            if not batch.append(timestamp=None, key=b"", value=value, headers=headers):
                batch.close()
                sent.append(await producer.send_batch(batch, topic, partition=0))
                batch = producer.create_batch()
                batch.append(timestamp=None, key=b"", value=value, headers=headers)
        batch.close()
        sent.append(await producer.send_batch(batch, topic, partition=0))
    await asyncio.gather(*sent)


async def _listener(
    servers: str, target: TopicPartition, waiting: dict[bytes, asyncio.Future[None]]
) -> None:
    async with AIOKafkaConsumer(target.topic, bootstrap_servers=servers) as answers:
        await answers.position(target)
        while True:
            found = await answers.getmany(target, timeout_ms=1000)
            for record in found.get(target, []):
                answer = waiting.get(record.key)
                if answer is not None and not answer.done():
                    answer.set_result(None)


async def _create_topics(bootstrap: str, work: Work) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    names = (f"{work.name}.commands", f"{work.name}.replies", *work.topics)
    await admin.create_topics([NewTopic(name, 1, 1) for name in names])
    await admin.close()
