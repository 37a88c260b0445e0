"""`weir webhooks redrive`: dead webhooks are sent again, behind what waits for their endpoints."""

from commands.platform.webhook_endpoint import RedriveWebhook
from infra.ids import command_id
from infra.postgres import Reads
from projections.platform.webhook_deliveries import DEAD
from schemas.envelope import SYSTEM
from streams.bus import CommandRequest, KafkaCommandBus

REDRIVE = "redrive-webhook"


async def redrive(
    bus: KafkaCommandBus, reads: Reads, *, tenant: str = "", endpoint: str = "", limit: int = 1000
) -> int:
    """Have dead webhooks of active endpoints sent again, oldest first, at most `limit` of them.

    tenant, endpoint: only theirs. Returns how many. The same death is redriven once, however often
    this is called. Raises DatabaseUnavailable, LogUnavailable.
    """
    rows = await reads.all(DEAD, tenant, tenant, endpoint, endpoint, limit)
    await bus.post_many(
        [
            CommandRequest(
                tenant=row["tenant"],
                stream_id=row["endpoint_id"],
                command=RedriveWebhook(row["event_id"]),
                actor=SYSTEM,
                command_id=command_id(
                    row["tenant"],
                    f"{row['endpoint_id']}\0{row['event_id']}\0{row['updated_at']}",
                    REDRIVE,
                ),
                fingerprint=REDRIVE,
            )
            for row in rows
        ]
    )
    return len(rows)
