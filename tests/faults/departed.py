"""What a process that is gone still holds: leases in Postgres and sessions with Kafka.

A lease ends with its holder's session with Postgres; that of a frozen process runs out after six
seconds, and a session with Kafka after ten. A test that is not about these waits ends them at once;
chaos, `test_usage_kill.py` and `test_webhooks_kill.py` let them run out.
"""

import asyncio

import psycopg
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.group import LeaveGroupRequest
from confluent_kafka.admin import AdminClient

from infra.config import Settings

UNKNOWN_MEMBER = 25


async def forget_the_dead(settings: Settings) -> None:
    """End all leases and all sessions, as time would; whoever lives takes his up again."""
    await asyncio.gather(end_leases(settings), end_sessions(settings))


async def end_leases(settings: Settings) -> None:
    """Let every lease be as old as that of a process which is gone."""
    async with await psycopg.AsyncConnection.connect(
        settings.database_url, autocommit=True
    ) as connection:
        for table in ("leases", "lease_members"):
            await connection.execute(f"UPDATE {table} SET expires_at = now()".encode())


async def end_sessions(settings: Settings) -> None:
    """Let every member of a consumer group leave it, as the broker does for one that is silent."""
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers)
    await admin.start()
    try:
        for group, member in await asyncio.to_thread(_members, settings.kafka_bootstrap_servers):
            # Neither client has a call for it, only the request itself.
            leave = LeaveGroupRequest(group, member)
            answer = await admin._send_request(leave, await admin.find_coordinator(group))
            assert answer.error_code in (0, UNKNOWN_MEMBER), answer
    finally:
        await admin.close()


def _members(bootstrap: str) -> list[tuple[str, str]]:
    """Group and id of each member. By librdkafka: aiokafka cannot read what Faust's say."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    names = [group.group_id for group in admin.list_consumer_groups().result().valid]
    described = admin.describe_consumer_groups(names) if names else {}
    return [
        (name, member.member_id)
        for name, found in described.items()
        for member in found.result().members
    ]
