"""The routes about watchers and their webhooks."""

from api.approvals import deliveries, watcher_webhooks, watchers
from api.approvals.declaring import route
from api.approvals.envelopes import Data, Page, PageQuery
from api.platform.webhook_deliveries import DeliveryItem
from api.platform.webhook_secrets import RotateSecretBody
from api.routing import Who

WATCHERS = [
    route(
        "POST",
        "/v1/rooms/{room}/watch",
        watchers.watch,
        Who.AGENT,
        "Subscribe a watcher to events in a room",
        body=watchers.WatchBody,
        response=Data[watchers.CreatedWatcher],
        status=201,
        refusals=(403, 404, 409),
    ),
    route(
        "GET",
        "/v1/rooms/{room}/watchers",
        watchers.list_watchers,
        Who.ANY,
        "List a room's watchers",
        query=PageQuery,
        response=Page[watchers.WatcherItem],
        refusals=(404,),
    ),
    route(
        "GET",
        "/v1/watchers/{id}",
        watchers.get_watcher,
        Who.ANY,
        "Get a watcher",
        response=Data[watchers.WatcherItem],
        refusals=(404,),
    ),
    route(
        "DELETE",
        "/v1/watchers/{id}",
        watchers.remove_watcher,
        Who.AGENT,
        "Remove a watcher",
        response=Data[watchers.WatcherItem],
        refusals=(403, 404),
    ),
    route(
        "POST",
        "/v1/watchers/{id}/enable",
        watcher_webhooks.enable,
        Who.ANY,
        "Send webhooks to a disabled watcher again",
        response=Data[watchers.WatcherItem],
        refusals=(403, 404),
    ),
    route(
        "POST",
        "/v1/watchers/{id}/rotate-secret",
        watcher_webhooks.rotate_secret,
        Who.ANY,
        "Rotate the secret of a watcher's webhooks",
        body=RotateSecretBody,
        response=Data[watcher_webhooks.RotatedSecret],
        refusals=(403, 404),
    ),
    route(
        "GET",
        "/v1/watchers/{id}/deliveries",
        deliveries.list_deliveries,
        Who.ANY,
        "List what became of a watcher's webhooks",
        query=deliveries.DeliveriesQuery,
        response=Page[DeliveryItem],
        refusals=(404,),
    ),
    route(
        "POST",
        "/v1/watchers/{id}/deliveries/{event}/redeliver",
        deliveries.redeliver,
        Who.HUMAN,
        "Send a settled webhook again",
        response=Data[DeliveryItem],
        status=202,
        refusals=(404, 409),
    ),
]
