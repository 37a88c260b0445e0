"""Holding a status question open until the check-in is settled, on the live tail of the log."""

import asyncio
from typing import Any

import msgspec

from api.approvals.visible import check_in_row, is_task
from api.live import TooManyListeners
from api.routing import Call
from api.subscription import LiveEvent, Resync, Subscription
from api.views import position_of_views
from commands.approvals.check_in import STREAM as CHECK_IN
from commands.approvals.task_state import STREAM as TASK
from infra.kafka import LogUnavailable
from projections.approvals.check_ins import CHECK_INS
from projections.approvals.tasks import TASKS
from projections.statements import Set


async def settled_within(call: Call[Any, Any], check_in_id: str, seconds: int) -> dict[str, Any]:
    """The row of a check-in, once it is decided or `seconds` have passed.

    The log is followed from where the views stood before the row was read. Where there is no tail,
    or too many listen, the answer comes at once, which every client copes with. Raises Problem
    (404).
    """
    hub = call.services.live
    if hub is None:
        return await check_in_row(call, check_in_id)
    shown = await position_of_views(call)
    row = await check_in_row(call, check_in_id)
    if row["decision"] is not None:
        return row
    kind = TASK if is_task(check_in_id) else CHECK_IN
    stream = f"{kind}/{check_in_id}"
    try:
        subscription = await hub.subscribe(
            call.tenant,
            wants=lambda event: event.envelope.stream == stream,
            after=shown,
            credential=call.principal.key_id or call.principal.session_id,
            holder=call.actor.id,
        )
    except (TooManyListeners, LogUnavailable):
        return row
    async with subscription:
        return await _follow(call, subscription, row, seconds)


async def _follow(
    call: Call[Any, Any], subscription: Subscription, row: dict[str, Any], seconds: int
) -> dict[str, Any]:
    """The row as the events that come in change it, until it is settled or time is up."""
    clock = asyncio.get_running_loop().time
    ends_at = clock() + seconds
    while row["decision"] is None and not subscription.ended and clock() < ends_at:
        try:
            items = await subscription.batch(ends_at - clock())
        except LogUnavailable:
            break
        for item in items:
            if isinstance(item, Resync):
                return await check_in_row(call, row["id"])
            row = _changed(row, item)
    return row


def _changed(row: dict[str, Any], item: LiveEvent) -> dict[str, Any]:
    # The view's own reducer, so that the answer is the row as it will be.
    view = TASKS if is_task(row["id"]) else CHECK_INS
    for statement in view.reduce(item.event, item.envelope):
        if isinstance(statement, Set):
            row = {**row, **statement.values}
            if isinstance(row["decision"], str):
                row["decision"] = msgspec.json.decode(row["decision"])
    return row
