"""An independent client reads our topics, given only the broker and the registry's URL."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from confluent_kafka import Consumer, KafkaError, Message, TopicPartition
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

from commands.billing.usage import RecordUsage
from commands.tenancy.tenant import CreateTenant
from infra.config import Settings
from infra.embedded.ports import free_port
from infra.ids import new_id
from schemas.platform.audit import AuditRecorded
from schemas.platform.audit_chain import verify
from tests.api.harness import Harness
from tests.loops import loops

REMEMBERED = 5


@contextmanager
def served() -> Iterator[str]:
    """The API's address, served by a thread."""
    port = free_port()
    config = uvicorn.Config(Harness().app, port=port, log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


def read_all(bootstrap: str, topic: str, deserialize: AvroDeserializer) -> list[tuple[Any, Any]]:
    """Every record of a topic from the beginning: headers and decoded value."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": new_id("independent"),
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }
    )
    partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
    consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
    found, ended = [], set()
    while len(ended) < len(partitions):
        message: Message | None = consumer.poll(30)
        assert message is not None, "the broker gave nothing for 30 s"
        error = message.error()
        if error is not None:
            assert error.code() == KafkaError._PARTITION_EOF, error
            ended.add(message.partition())
            continue
        context = SerializationContext(topic, MessageField.VALUE, message.headers())
        found.append((dict(message.headers() or []), deserialize(message.value(), context)))
    consumer.close()
    return found


async def test_confluents_deserializer_reads_audit_and_billing_from_the_beginning(
    settings: Settings,
) -> None:
    tenant = new_id("ten")
    async with loops(settings) as running:
        await running.send(tenant, tenant, CreateTenant("Acme"))
        for number in range(REMEMBERED):
            usage = RecordUsage(meter="api.requests", quantity=number + 1)
            await running.send(tenant, new_id("use"), usage)
        await running.send(tenant, tenant, CreateTenant("Again"))
    with served() as url:
        client = SchemaRegistryClient({"url": f"{url}/schema-registry"})
        deserialize = AvroDeserializer(client)
        bootstrap = settings.kafka_bootstrap_servers
        audit = await asyncio.to_thread(read_all, bootstrap, "audit", deserialize)
        billing = await asyncio.to_thread(read_all, bootstrap, "billing", deserialize)
    mine = [value for headers, value in audit if headers["ce_tenant"] == tenant.encode()]
    assert [(item["seq"], item["outcome"]) for item in mine] == [
        *((seq, "accepted") for seq in range(1, REMEMBERED + 2)),
        (REMEMBERED + 2, "refused"),
    ]
    # What the independent client read is all that it takes to verify the chain.
    assert verify([AuditRecorded(**item) for item in mine]) is None
    used = [value for headers, value in billing if headers["ce_tenant"] == tenant.encode()]
    assert [(item["meter"], item["quantity"]) for item in used] == [
        ("api.requests", number + 1) for number in range(REMEMBERED)
    ]


async def test_confluents_client_finds_its_way_around() -> None:
    with served() as url:
        client = SchemaRegistryClient(
            {"url": f"{url}/schema-registry", "basic.auth.user.info": "anybody:wax_sk_ignored"}
        )

        def look() -> None:
            latest = client.get_latest_version("audit-value")
            assert latest.version == 1
            assert "audit-value" in client.get_subjects()
            assert client.get_versions("audit-value") == [1]
            assert client.get_schema(latest.schema_id).schema_str == latest.schema.schema_str
            places = client.get_schema_versions(latest.schema_id)
            assert ("audit-value", 1) in [(place.subject, place.version) for place in places]
            schema = Schema(latest.schema.schema_str, "AVRO")
            assert client.lookup_schema("audit-value", schema).schema_id == latest.schema_id
            assert client.register_schema("audit-value", schema) == latest.schema_id
            assert client.get_compatibility("audit-value") == "BACKWARD"

        await asyncio.to_thread(look)
