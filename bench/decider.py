"""A command's round trip against the bare loop: `python -m bench.decider`.

Bare: aiokafka and psycopg with nothing of ours in between, yet with the same guarantees: a command
record, one Kafka transaction (one event), one Postgres transaction (a row and the checkpoint), an
answer record; JSON payloads. Ours: the command bus, the decider role, audit, outcome, look-ups.
"""

import asyncio
import contextlib
import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import psycopg
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from commands.tenancy.tenant import CreateTenant
from infra.config import Settings
from infra.embedded.stack import Stack
from infra.ids import new_id
from infra.kafka import create_topics, partition_for
from tests.loops import loops
from tests.stack import fresh_stores

Call = Callable[[], Awaitable[Any]]
BARE_TOPICS = ("bare.commands", "bare.events", "bare.replies")
IN_FLIGHT = (1, 32, 256)


async def measure(call: Call, workers: int, seconds: float) -> tuple[float, float, float]:
    """p50 and p99 in ms, and calls per second, with so many workers for so long."""
    spent: list[float] = []
    ends = time.perf_counter() + seconds

    async def work() -> None:
        while (start := time.perf_counter()) < ends:
            await call()
            spent.append(time.perf_counter() - start)

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(workers)))
    took = time.perf_counter() - began
    spent.sort()
    return spent[len(spent) // 2] * 1e3, spent[int(len(spent) * 0.99)] * 1e3, len(spent) / took


@contextlib.asynccontextmanager
async def bare(settings: Settings) -> AsyncIterator[Call]:
    """The loop without us, on topics of its own partitions."""
    servers, ready = settings.kafka_bootstrap_servers, asyncio.Event()
    waiting: dict[str, asyncio.Future[None]] = {}
    source, target = TopicPartition("bare.commands", 0), TopicPartition("bare.replies", 0)
    producer = AIOKafkaProducer(bootstrap_servers=servers, enable_idempotence=True, acks="all")
    await producer.start()
    for topic in BARE_TOPICS:
        # A fresh topic has no leader for a moment; a consumer would spin on that.
        await producer.send_and_wait(topic, b"", partition=0)
    loops_ = [
        asyncio.create_task(_bare_decider(settings, source, ready)),
        asyncio.create_task(_bare_listener(servers, target, waiting)),
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


async def _bare_decider(settings: Settings, source: TopicPartition, ready: asyncio.Event) -> None:
    servers = settings.kafka_bootstrap_servers
    producer = AIOKafkaProducer(
        bootstrap_servers=servers, transactional_id="bare", acks="all", retry_backoff_ms=3
    )
    answers = AIOKafkaProducer(bootstrap_servers=servers, enable_idempotence=True, acks="all")
    commands = AIOKafkaConsumer(
        source.topic, bootstrap_servers=servers, isolation_level="read_committed"
    )
    await producer.start()
    await answers.start()
    await commands.start()
    await commands.position(source)
    connection = await psycopg.AsyncConnection.connect(settings.database_url, autocommit=True)
    await connection.execute("CREATE TABLE bare (id text PRIMARY KEY, body jsonb)")
    await connection.execute("CREATE TABLE bare_checkpoint (next bigint)")
    await connection.execute("INSERT INTO bare_checkpoint VALUES (0)")
    ready.set()
    while True:
        found = await commands.getmany(source, timeout_ms=1000, max_records=500)
        ids = [record.value.decode() for record in found.get(source, [])]
        if not ids:
            continue
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
        for id in ids:
            await answers.send("bare.replies", id.encode(), partition=0)


async def _bare_listener(
    servers: str, target: TopicPartition, waiting: dict[str, asyncio.Future[None]]
) -> None:
    answers = AIOKafkaConsumer(target.topic, bootstrap_servers=servers)
    await answers.start()
    await answers.position(target)
    while True:
        found = await answers.getmany(target, timeout_ms=1000)
        for record in found.get(target, []):
            answer = waiting.get(record.value.decode())
            if answer is not None and not answer.done():
                answer.set_result(None)


async def create_bare_topics(bootstrap: str) -> None:
    """The bare loop's topics."""
    from aiokafka.admin import AIOKafkaAdminClient, NewTopic

    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(name, 1, 1) for name in BARE_TOPICS])
    await admin.close()


@contextlib.asynccontextmanager
async def ours(settings: Settings) -> AsyncIterator[Call]:
    """The product's loop; one partition, so that both sides have one writer."""
    tenant = next(
        id for id in iter(lambda: new_id("ten"), "") if partition_for(id, settings.partitions) == 0
    )
    async with loops(settings) as running:

        async def call() -> None:
            await running.send(tenant, new_id("ten"), CreateTenant("Acme"))

        yield call


async def run(settings: Settings, seconds: float) -> None:
    """Measure both sides in turn and print the ratios."""
    await create_topics(settings.kafka_bootstrap_servers, settings.partitions)
    await create_bare_topics(settings.kafka_bootstrap_servers)
    async with bare(settings) as bare_call, ours(settings) as our_call:
        for call in (bare_call, our_call):
            await measure(call, 32, 2)
        for workers in IN_FLIGHT:
            theirs = await measure(bare_call, workers, seconds)
            mine = await measure(our_call, workers, seconds)
            print(
                f"command round trip, {workers} in flight: "
                f"bare p50 {theirs[0]:.1f} p99 {theirs[1]:.1f} ms {theirs[2]:.0f}/s | "
                f"weir p50 {mine[0]:.1f} p99 {mine[1]:.1f} ms {mine[2]:.0f}/s | "
                f"p50 ratio {mine[0] / theirs[0]:.2f}"
            )


def main() -> None:
    """`python -m bench.decider [SECONDS]`."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 5.0
    with tempfile.TemporaryDirectory() as folder:
        stores = Path(folder, "stores")
        stores.mkdir()
        with Stack(Path(folder, "data")) as stack:
            asyncio.run(run(fresh_stores(stack, stores), seconds))


if __name__ == "__main__":
    main()
