"""What became of a watcher's webhooks, and having one sent again."""

from typing import Any

from msgspec import Struct

from api.approvals.envelopes import Cursor, Limit, after, cursor_of
from api.approvals.watchers import watcher_row
from api.platform.webhook_deliveries import Status, delivery_page, send_again
from api.routing import Call, data, page


class DeliveriesQuery(Struct, frozen=True):
    """Which deliveries of the watcher."""

    status: Status | None = None
    limit: Limit = 50
    cursor: Cursor = ""


async def list_deliveries(call: Call[None, DeliveriesQuery]) -> Any:
    """The deliveries of a watcher, newest first, each with its attempts."""
    watcher_id, query = (await watcher_row(call))["id"], call.query
    items, last = await delivery_page(
        call, watcher_id, query.status, after(query.cursor), query.limit
    )
    return page(items, cursor_of(*last) if last else None, last is not None)


async def redeliver(call: Call[None, None]) -> Any:
    """Send a settled delivery again, behind what waits, under the same `webhook-id`."""
    watcher_id = (await watcher_row(call))["id"]
    return data(await send_again(call, watcher_id, call.path["event"]))
