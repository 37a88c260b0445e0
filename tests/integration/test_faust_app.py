"""Faust, as it is set up here, on real Kafka: committed records only, and a role that works."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import faust
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread

from infra.config import Settings
from infra.ids import new_id
from streams import app as app_module
from streams.app import make_app
from streams.billing.meter import UsageMeter
from streams.runtime import codec
from tests.integration.usage_rig import usage_rig
from tests.loops import talking


@contextlib.asynccontextmanager
async def started(app: Any) -> AsyncIterator[None]:
    await app.start()
    try:
        yield
    finally:
        await app.stop()


async def make_topic(settings: Settings) -> str:
    name = f"test.{new_id('top')}"
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, 1, 1)])
    finally:
        await admin.close()
    return name


async def write_some_and_abort_some(settings: Settings, topic: str) -> None:
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.kafka_bootstrap_servers, transactional_id=new_id("txn")
    )
    await producer.start()
    try:
        for number in range(6):
            await producer.begin_transaction()
            kept = number % 2 == 0
            await producer.send_and_wait(topic, b"kept" if kept else b"aborted", partition=0)
            await (producer.commit_transaction() if kept else producer.abort_transaction())
        # Behind every aborted one there is a committed one, so that all have had their chance.
        await producer.begin_transaction()
        await producer.send_and_wait(topic, b"end", partition=0)
        await producer.commit_transaction()
    finally:
        await producer.stop()


async def test_an_agent_sees_no_aborted_record(settings: Settings, tmp_path: Path) -> None:
    topic = await make_topic(settings)
    await write_some_and_abort_some(settings, topic)
    app = make_app(settings.kafka_bootstrap_servers, tmp_path, group=topic)
    seen: list[bytes] = []
    done = asyncio.Event()

    async def collect(stream: Any) -> AsyncIterator[None]:
        async for value in stream:
            seen.append(value)
            if value == b"end":
                done.set()
            yield

    app.agent(app.topic(topic, value_type=bytes, value_serializer="raw"))(collect)
    async with started(app):
        async with asyncio.timeout(60):
            await done.wait()
    assert seen == [b"kept"] * 3 + [b"end"]


def test_another_faust_is_refused_until_somebody_has_looked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(faust, "__version__", "0.15.4")
    with pytest.raises(RuntimeError, match=r"0\.15\.4"):
        make_app("127.0.0.1:9", tmp_path)


def test_the_patch_is_put_on_once(tmp_path: Path) -> None:
    make_app("127.0.0.1:9", tmp_path)
    patched = AIOKafkaConsumerThread._create_worker_consumer
    make_app("127.0.0.1:9", tmp_path)
    assert AIOKafkaConsumerThread._create_worker_consumer is patched


async def test_the_role_counts_what_comes_and_starts_where_it_stood(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group, taken = f"test.{new_id('grp')}", list[int]()
    take = UsageMeter.take

    async def counted(self: UsageMeter, partition: Any, records: Any) -> None:
        taken.append(len(records))
        await take(self, partition, records)

    monkeypatch.setattr(UsageMeter, "take", counted)
    async with usage_rig(settings) as rig:
        for number in range(2):
            taken.clear()
            role = app_module.Processors(
                settings, codec(), rig.loops.bus, tmp_path / str(number), group
            )
            ready = asyncio.Event()
            task = asyncio.create_task(role.run(ready.set))
            async with asyncio.timeout(60):
                await ready.wait()
            for _ in range(5):
                await rig.use("api.requests", 3)
                await rig.until_counted()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        # The second one was brought nothing of what the first one had counted.
        assert sum(taken) <= 5


async def test_a_faust_that_gives_up_ends_the_role(settings: Settings, tmp_path: Path) -> None:
    async with usage_rig(settings), talking(settings) as bus:
        role = app_module.Processors(settings, codec(), bus, tmp_path, f"test.{new_id('grp')}")
        ready = asyncio.Event()
        task = asyncio.create_task(role.run(ready.set))
        async with asyncio.timeout(60):
            await ready.wait()
            await role.app.crash(RuntimeError("planted"))
            with pytest.raises(RuntimeError, match="planted"):
                await task


async def test_a_faust_that_gives_up_and_does_not_stop_ends_the_role(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_module, "STOP_SECONDS", 0.1)
    async with usage_rig(settings), talking(settings) as bus:
        role = app_module.Processors(settings, codec(), bus, tmp_path, f"test.{new_id('grp')}")
        ready, stop = asyncio.Event(), role.app.stop
        role.app.stop = asyncio.Event().wait
        task = asyncio.create_task(role.run(ready.set))
        async with asyncio.timeout(60):
            await ready.wait()
            await role.app.crash(RuntimeError("planted"))
            with pytest.raises(RuntimeError, match="planted"):
                await task
            await stop()
