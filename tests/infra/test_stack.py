"""The embedded servers: they come up, stay at their ports, and keep what they acknowledged."""

import contextlib
import signal

import psycopg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from infra.config import Settings
from infra.embedded.stack import Stack


async def create_topic(settings: Settings, name: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, num_partitions=1, replication_factor=1)])
    finally:
        await admin.close()


async def send(settings: Settings, topic: str, value: bytes) -> None:
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.kafka_bootstrap_servers, acks="all", enable_idempotence=True
    )
    await producer.start()
    try:
        await producer.send_and_wait(topic, value, partition=0)
    finally:
        await producer.stop()


async def read_all(settings: Settings, topic: str) -> list[bytes]:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap_servers, enable_auto_commit=False
    )
    await consumer.start()
    try:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        await consumer.seek_to_beginning(partition)
        end = (await consumer.end_offsets([partition]))[partition]
        found: list[bytes] = []
        while len(found) < end:
            for records in (await consumer.getmany(timeout_ms=1000)).values():
                found += [record.value for record in records]
        return found
    finally:
        await consumer.stop()


async def test_a_killed_broker_comes_back_with_what_it_acknowledged(stack: Stack) -> None:
    await create_topic(stack.settings, "stack.kafka-kill")
    await send(stack.settings, "stack.kafka-kill", b"before")
    port = stack.settings.kafka_bootstrap_servers
    before = stack.pid("kafka")
    stack.kill("kafka", signal.SIGKILL)
    stack.wait_ready("kafka")
    assert stack.pid("kafka") != before
    await send(stack.settings, "stack.kafka-kill", b"after")
    assert await read_all(stack.settings, "stack.kafka-kill") == [b"before", b"after"]
    assert stack.settings.kafka_bootstrap_servers == port


def test_a_killed_database_comes_back_with_what_it_committed(
    stack: Stack, settings: Settings
) -> None:
    with psycopg.connect(settings.database_url) as connection:
        connection.execute("CREATE TABLE kept (n int)")
        connection.execute("INSERT INTO kept VALUES (1)")
    # A backend that is there while its postmaster dies must not hinder the restart.
    with contextlib.closing(psycopg.connect(settings.database_url)) as busy:
        busy.execute("SELECT 1")
        stack.kill("postgres", signal.SIGKILL)
        stack.wait_ready("postgres")
    with psycopg.connect(settings.database_url) as connection:
        assert connection.execute("SELECT n FROM kept").fetchall() == [(1,)]


def test_a_halted_part_is_refused_and_serves_again_after_its_launch(
    stack: Stack, settings: Settings
) -> None:
    stack.halt("postgres")
    try:
        assert stack.pid("postgres") is None
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(settings.database_url, connect_timeout=2)
    finally:
        stack.launch("postgres")
    with psycopg.connect(settings.database_url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_frozen_part_goes_on_where_it_was(stack: Stack, settings: Settings) -> None:
    with psycopg.connect(settings.database_url) as connection:
        pid = stack.pid("postgres")
        stack.pause("postgres")
        stack.resume("postgres")
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert stack.pid("postgres") == pid


def test_the_database_sorts_text_the_same_on_every_machine(settings: Settings) -> None:
    with psycopg.connect(settings.database_url) as connection:
        rows = connection.execute("SELECT x FROM unnest('{b,B,a,ä}'::text[]) x ORDER BY x")
        assert [row[0] for row in rows] == ["B", "a", "b", "ä"]


def test_vectors_are_available(settings: Settings) -> None:
    with psycopg.connect(settings.database_url) as connection:
        connection.execute("CREATE EXTENSION vector")
        found = connection.execute("SELECT '[1,2]'::vector <-> '[1,4]'::vector").fetchone()
        assert found == (2.0,)


def test_the_database_wants_its_password(settings: Settings) -> None:
    password = settings.database_url.split("@")[0].rpartition(":")[2]
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(settings.database_url.replace(password, "wrong"))


async def test_the_broker_is_set_as_the_loops_need_it(stack: Stack) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=stack.settings.kafka_bootstrap_servers)
    await admin.start()
    try:
        answers = await admin.describe_configs([ConfigResource(ConfigResourceType.BROKER, "1")])
    finally:
        await admin.close()
    set_to = {entry[0]: entry[1] for answer in answers for entry in answer.resources[0][4]}
    assert {
        # Old clients' transactions are checked by the broker (KIP-890).
        "transaction.partition.verification.enable": "true",
        "auto.create.topics.enable": "false",
        "message.max.bytes": str(2 * 1024 * 1024),
        # Nothing that a loop has committed may be forgotten while it is off.
        "log.retention.ms": "-1",
        "offsets.retention.minutes": "5256000",
    }.items() <= set_to.items()
