"""Where the read models stand on the log, for whoever reads a row and follows what changes it."""

from typing import Any

from api.routing import Call

# How far the views hold a partition of `events`; written in the transaction that moves them.
_VIEWS_NEXT = "SELECT events_next FROM decider_checkpoints WHERE partition = %s"


async def position_of_views(call: Call[Any, Any]) -> str | None:
    """The last position of the tenant's partition that its rows show; None without a tail or rows.

    The log is ahead of the views by a moment. Asked for before a row is read, and followed from
    (`LiveHub.subscribe(after=...)`), it leaves out nothing that the row does not show.
    """
    hub = call.services.live
    if hub is None:
        return None
    partition = hub.partition_of(call.tenant)
    views = await call.services.reads.one(_VIEWS_NEXT, partition.partition)
    if views is None:
        return None
    return f"{partition.topic}:{partition.partition}:{views['events_next'] - 1}"
