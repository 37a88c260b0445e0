"""A watcher's webhook endpoint: enabled again once it works, and its secret rotated."""

from typing import Any

from msgspec import Struct

from api.approvals.declaring import route
from api.approvals.envelopes import Data, data
from api.approvals.watchers import WatcherItem, item_of, watcher_row
from api.platform.webhook_secrets import RotateSecretBody, rotated
from api.routing import Call, Who
from commands.platform.webhook_endpoint import EnableWebhookEndpoint


class RotatedSecret(Struct, frozen=True):
    """What a watcher's webhooks are signed with from now on, never shown again.

    previous_valid_until: when the last of the secrets before stops signing; null when none signs.
    """

    id: str
    webhook_secret: str
    previous_valid_until: str | None


async def enable(call: Call[None, None]) -> Any:
    """Send webhooks to a disabled watcher again; what was dropped can be redelivered."""
    row = await watcher_row(call)
    await call.send(row["id"], EnableWebhookEndpoint())
    return data(item_of(row | {"endpoint_status": "active", "endpoint_reason": ""}))


async def rotate_secret(call: Call[RotateSecretBody, None]) -> Any:
    """Give a watcher's webhooks a new secret; a repeat of the request shows it again."""
    watcher_id = (await watcher_row(call))["id"]
    return data(RotatedSecret(watcher_id, *await rotated(call, watcher_id)))


ROUTES = [
    route(
        "POST",
        "/v1/watchers/{id}/enable",
        enable,
        Who.ANY,
        "Send webhooks to a disabled watcher again",
        response=Data[WatcherItem],
        refusals=(403, 404),
    ),
    route(
        "POST",
        "/v1/watchers/{id}/rotate-secret",
        rotate_secret,
        Who.ANY,
        "Rotate the secret of a watcher's webhooks",
        body=RotateSecretBody,
        response=Data[RotatedSecret],
        refusals=(403, 404),
    ),
]
