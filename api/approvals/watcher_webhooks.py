"""A watcher's webhook endpoint: enabled again once it works, and its secret rotated."""

from typing import Annotated, Any

from msgspec import Meta, Struct

from api.approvals.watchers import item_of, watcher_row
from api.routing import Call, answer_of, data
from commands.platform.webhook_endpoint import (
    OVERLAP_HOURS,
    OVERLAP_HOURS_MAX,
    EnableWebhookEndpoint,
    RotateWebhookSecret,
    WebhookEndpointAnswered,
)
from infra.clock import iso


class RotateSecretBody(Struct, frozen=True):
    """How long the secrets before sign beside the new one; 0 when one of them has leaked."""

    overlap_hours: Annotated[int, Meta(ge=0, le=OVERLAP_HOURS_MAX)] = OVERLAP_HOURS


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
    reply = await call.send(watcher_id, RotateWebhookSecret(call.body.overlap_hours))
    call.headers["cache-control"] = "no-store"
    until = answer_of(reply, WebhookEndpointAnswered).retiring_until
    return data(
        RotatedSecret(
            id=watcher_id,
            webhook_secret=call.services.signer.webhook_secret(call.command_id),
            previous_valid_until=None if until is None else iso(until),
        )
    )
