"""What became of a watcher's webhooks, and having one sent again."""

from typing import Any

from msgspec import Struct

from api.approvals.declaring import route
from api.approvals.envelopes import Cursor, Data, Limit, Page, after, cursor_of, data, page
from api.approvals.watchers import watcher_row
from api.platform.webhook_deliveries import DeliveryItem, Status, delivery_page, send_again
from api.routing import Call, Who


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


ROUTES = [
    route(
        "GET",
        "/v1/watchers/{id}/deliveries",
        list_deliveries,
        Who.ANY,
        "List what became of a watcher's webhooks",
        query=DeliveriesQuery,
        response=Page[DeliveryItem],
        refusals=(404,),
    ),
    route(
        "POST",
        "/v1/watchers/{id}/deliveries/{event}/redeliver",
        redeliver,
        Who.HUMAN,
        "Send a settled webhook again",
        response=Data[DeliveryItem],
        status=202,
        refusals=(404, 409),
    ),
]
