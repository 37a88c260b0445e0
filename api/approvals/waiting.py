"""Holding a status question open until the check-in is settled, on the live tail of the log."""

import asyncio
from typing import Any

import msgspec

from api.approvals.visible import check_in_row
from api.live import TooManyListeners
from api.routing import Call
from api.subscription import LiveEvent, Resync, Subscription
from infra.kafka import LogUnavailable
from projections.approvals.check_ins import CHECK_INS
from projections.statements import Set

_STREAM = "approvals.check_in/"


async def settled_within(call: Call[Any, Any], check_in_id: str, seconds: int) -> dict[str, Any]:
    """The row of a check-in, once it is not pending or `seconds` have passed.

    It waits on one subscription and asks the database once. Where there is no tail, or too many
    listen, it answers at once, which every client copes with. Raises Problem (404).
    """
    stream = _STREAM + check_in_id
    hub = call.services.live
    if hub is None:
        return await check_in_row(call, check_in_id)
    try:
        # Before the row is read, or what happens in between would be missed.
        subscription = await hub.subscribe(
            call.tenant,
            wants=lambda event: event.envelope.stream == stream,
            credential=call.principal.key_id or call.principal.session_id,
            holder=call.actor.id,
        )
    except (TooManyListeners, LogUnavailable):
        return await check_in_row(call, check_in_id)
    async with subscription:
        row = await check_in_row(call, check_in_id)
        return await _follow(call, subscription, row, seconds)


async def _follow(
    call: Call[Any, Any], subscription: Subscription, row: dict[str, Any], seconds: int
) -> dict[str, Any]:
    """The row as the events that come in change it, until it is settled or time is up."""
    clock = asyncio.get_running_loop().time
    ends_at = clock() + seconds
    while row["status"] == "pending" and not subscription.ended and clock() < ends_at:
        for item in await subscription.batch(ends_at - clock()):
            if isinstance(item, Resync):
                return await check_in_row(call, row["id"])
            row = _changed(row, item)
    return row


def _changed(row: dict[str, Any], item: LiveEvent) -> dict[str, Any]:
    # The event is on the log a moment before the view has it, so the view's reducer is applied.
    for statement in CHECK_INS.reduce(item.event, item.envelope):
        if isinstance(statement, Set):
            row = {**row, **statement.values}
            if isinstance(row["decision"], str):
                row["decision"] = msgspec.json.decode(row["decision"])
    return row
