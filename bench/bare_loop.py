"""The bare decider loop: what a command's round trip costs with nothing of ours in between.

aiokafka and psycopg alone, yet with the same guarantees: a command record, one Kafka transaction
(one event), one Postgres transaction (a row and the checkpoint), an answer record; JSON payloads.
No audit, no outcomes, no states, no read model, no timers, no schemas.
"""

import asyncio
import contextlib
import json
import os
import traceback
from collections.abc import AsyncIterator

import psycopg
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from bench.figure import Call
from infra.config import Settings
from infra.ids import new_id

TOPICS = ("bare.commands", "bare.events", "bare.replies")


@contextlib.asynccontextmanager
async def bare(settings: Settings) -> AsyncIterator[Call]:
    """The loop without us, on topics of its own partitions."""
    servers, ready = settings.kafka_bootstrap_servers, asyncio.Event()
    waiting: dict[str, asyncio.Future[None]] = {}
    source, target = TopicPartition("bare.commands", 0), TopicPartition("bare.replies", 0)
    producer = AIOKafkaProducer(bootstrap_servers=servers, enable_idempotence=True, acks="all")
    await producer.start()
    for topic in TOPICS:
        # A fresh topic has no leader for a moment; a consumer would spin on that.
        await producer.send_and_wait(topic, b"", partition=0)
    loops_ = [
        asyncio.create_task(_decider(settings, source, ready)),
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
        id = new_id("cmd")
        waiting[id] = asyncio.get_running_loop().create_future()
        await producer.send_and_wait("bare.commands", id.encode(), partition=0)
        await waiting[id]
        del waiting[id]

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


async def _decider(settings: Settings, source: TopicPartition, ready: asyncio.Event) -> None:
    servers = settings.kafka_bootstrap_servers
    producer = AIOKafkaProducer(
        bootstrap_servers=servers, transactional_id="bare", acks="all", retry_backoff_ms=3
    )
    answers = AIOKafkaProducer(bootstrap_servers=servers, enable_idempotence=True, acks="all")
    commands = AIOKafkaConsumer(
        source.topic, bootstrap_servers=servers, isolation_level="read_committed"
    )
    async with producer, answers, commands:
        await commands.position(source)
        connection = await psycopg.AsyncConnection.connect(settings.database_url, autocommit=True)
        async with connection:
            await connection.execute("CREATE TABLE bare (id text PRIMARY KEY, body jsonb)")
            await connection.execute("CREATE TABLE bare_checkpoint (next bigint)")
            await connection.execute("INSERT INTO bare_checkpoint VALUES (0)")
            ready.set()
            while True:
                found = await commands.getmany(source, timeout_ms=1000, max_records=500)
                ids = [record.value.decode() for record in found.get(source, [])]
                if ids:
                    await _batch(producer, connection, ids)
                    for id in ids:
                        await answers.send("bare.replies", id.encode(), partition=0)


async def _batch(
    producer: AIOKafkaProducer, connection: psycopg.AsyncConnection, ids: list[str]
) -> None:
    async with producer.transaction():
        sent = [
            await producer.send("bare.events", json.dumps({"id": id}).encode(), partition=0)
            for id in ids
        ]
        await asyncio.gather(*sent)
    async with connection.transaction(), connection.cursor() as cursor:
        await cursor.executemany(
            "INSERT INTO bare VALUES (%s, %s)", [(id, json.dumps({"id": id})) for id in ids]
        )
        await cursor.execute("UPDATE bare_checkpoint SET next = next + %s", (len(ids),))


async def _listener(
    servers: str, target: TopicPartition, waiting: dict[str, asyncio.Future[None]]
) -> None:
    async with AIOKafkaConsumer(target.topic, bootstrap_servers=servers) as answers:
        await answers.position(target)
        while True:
            found = await answers.getmany(target, timeout_ms=1000)
            for record in found.get(target, []):
                answer = waiting.get(record.value.decode())
                if answer is not None and not answer.done():
                    answer.set_result(None)


async def create_topics(bootstrap: str) -> None:
    """The bare loop's topics."""
    from aiokafka.admin import AIOKafkaAdminClient, NewTopic

    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(name, 1, 1) for name in TOPICS])
    await admin.close()
