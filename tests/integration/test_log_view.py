"""What is asked of Kafka about its readers, on a real broker."""

import asyncio
import uuid

from infra.config import Settings
from infra.kafka import Log, Record, consumer, create_topics, stop_consumer
from infra.log_view import LogView


async def test_ends_and_groups(settings: Settings) -> None:
    await create_topics(settings.kafka_bootstrap_servers, settings.partitions)
    bootstrap, name = settings.kafka_bootstrap_servers, f"test-{uuid.uuid4().hex}"
    view, log = LogView(bootstrap, "test-view"), Log(bootstrap, "test-view-log")
    await log.start()
    member = consumer(bootstrap, name, group_id=name, auto_offset_reset="earliest")
    try:
        before = await view.ends("telemetry.dlq")
        (position,) = await log.append("telemetry.dlq", [Record(b"k", b"v", [])])
        assert (await view.ends("telemetry.dlq"))[0] == before[0] + 1
        nobody = await view.group(name)
        assert (nobody.members, nobody.offsets) == (0, {})
        member.subscribe(["telemetry.dlq"])
        await member.start()
        async with asyncio.timeout(30):
            while not await member.getmany(timeout_ms=200):
                pass
        await member.commit()
        joined = await view.group(name)
        assert joined.members == 1
        assert joined.offsets == {("telemetry.dlq", 0): position.offset + 1}
    finally:
        await stop_consumer(member)
        await log.stop()
        await view.stop()
