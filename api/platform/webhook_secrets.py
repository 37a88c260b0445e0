"""A new secret for an endpoint's webhooks, whatever domain it is of."""

from typing import Annotated, Any

from msgspec import Meta, Struct

from api.routing import Call, answer_of
from commands.platform.webhook_endpoint import (
    OVERLAP_HOURS,
    OVERLAP_HOURS_MAX,
    RotateWebhookSecret,
    WebhookEndpointAnswered,
)
from schemas.instants import iso_or_none


class RotateSecretBody(Struct, frozen=True):
    """How long the secrets before sign beside the new one; 0 when one of them has leaked."""

    overlap_hours: Annotated[int, Meta(ge=0, le=OVERLAP_HOURS_MAX)] = OVERLAP_HOURS


async def rotated(call: Call[RotateSecretBody, Any], endpoint_id: str) -> tuple[str, str | None]:
    """The new secret, the same for a repeat of the request; and when the last of the secrets before
    stops signing, None when none signs. Raises Problem as `Call.send`."""
    reply = await call.send(endpoint_id, RotateWebhookSecret(call.body.overlap_hours))
    call.headers["cache-control"] = "no-store"
    until = answer_of(reply, WebhookEndpointAnswered).retiring_until
    secret = call.services.signer.webhook_secret(call.command_id)
    return secret, iso_or_none(until)
