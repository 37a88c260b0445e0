"""`platform.webhook_endpoint`: where webhooks go, for whatever domain wants them sent.

A domain that has endpoints emits what is made here from its own decider, in the same transaction
as its own event, under an id of its own: `opened`, `closed`, `requested`.
"""

from collections.abc import Sequence
from typing import Literal, assert_never

import msgspec
from msgspec import Struct

from commands.decider import Context, Decider, Emit
from commands.refusals import ActorForbidden, AlreadyDone, NotFound
from schemas.platform.webhook import (
    WebhookEndpointClosed,
    WebhookEndpointDisabled,
    WebhookEndpointEvent,
    WebhookEndpointOpened,
    WebhookRedriven,
    WebhookRequested,
)
from schemas.types import Json, Text

STREAM = "platform.webhook_endpoint"


class DisableWebhookEndpoint(Struct, frozen=True, tag="platform.disable_webhook_endpoint.v1"):
    """Send nothing there any more: it is gone, or has failed for days. The sender's command."""

    reason: Text


class RedriveWebhook(Struct, frozen=True, tag="platform.redrive_webhook.v1"):
    """Send a settled delivery again. That there is one, whoever asks has looked up."""

    event_id: str


WebhookEndpointCommand = DisableWebhookEndpoint | RedriveWebhook


class WebhookEndpointNotFound(NotFound):
    """There is no such endpoint, or it was closed."""


class WebhookEndpointIsDisabled(AlreadyDone):
    """Nothing is sent to the endpoint any more."""


class WebhookEndpoint(Struct, frozen=True):
    """The state of an endpoint."""

    owner_id: str = ""
    status: Literal["absent", "active", "disabled", "closed"] = "absent"


class WebhookEndpointAnswered(Struct, frozen=True):
    """What a caller is told of an endpoint."""

    id: str
    status: str


def opened(endpoint_id: str, url: str, context: Context) -> Emit:
    """The event that opens an endpoint for the caller; its secret derives from the command's id."""
    event = WebhookEndpointOpened(url, context.command_id, context.actor.id, context.now)
    return Emit(STREAM, endpoint_id, event)


def closed(endpoint_id: str, endpoint: WebhookEndpoint, context: Context) -> Sequence[Emit]:
    """The event that closes an endpoint, none where there is none to close."""
    if endpoint.status in ("absent", "closed"):
        return []
    return [Emit(STREAM, endpoint_id, WebhookEndpointClosed(context.now))]


def requested(
    endpoint_id: str,
    endpoint: WebhookEndpoint,
    context: Context,
    *,
    event_id: str,
    event_type: str,
    body: Json,
) -> Sequence[Emit]:
    """The event that has a body sent, none where the endpoint is not active."""
    if endpoint.status != "active":
        return []
    event = WebhookRequested(endpoint_id, event_id, event_type, body, context.now)
    return [Emit(STREAM, endpoint_id, event)]


def decide(
    command: WebhookEndpointCommand, endpoint: WebhookEndpoint, context: Context
) -> Sequence[WebhookEndpointEvent]:
    """Raises WebhookEndpointNotFound, WebhookEndpointIsDisabled, ActorForbidden."""
    if endpoint.status in ("absent", "closed"):
        raise WebhookEndpointNotFound("no such webhook endpoint")
    match command:
        case DisableWebhookEndpoint():
            if context.actor.kind != "system":
                raise ActorForbidden("endpoints are disabled by the sender only")
            if endpoint.status == "disabled":
                return []
            return [WebhookEndpointDisabled(command.reason, context.now)]
        case RedriveWebhook():
            if context.actor.kind == "agent" and context.actor.id != endpoint.owner_id:
                raise ActorForbidden("only its owner may have a webhook sent again")
            if endpoint.status == "disabled":
                raise WebhookEndpointIsDisabled("nothing is sent to this endpoint any more")
            return [WebhookRedriven(context.stream_id, command.event_id, context.now)]
    assert_never(command)


def evolve(endpoint: WebhookEndpoint, event: WebhookEndpointEvent) -> WebhookEndpoint:
    match event:
        case WebhookEndpointOpened():
            return WebhookEndpoint(event.owner_id, "active")
        case WebhookEndpointDisabled():
            return WebhookEndpoint(endpoint.owner_id, "disabled")
        case WebhookEndpointClosed():
            return WebhookEndpoint(endpoint.owner_id, "closed")
        case WebhookRequested() | WebhookRedriven():
            return endpoint
    assert_never(event)


def _answer(
    command: WebhookEndpointCommand, endpoint: WebhookEndpoint, context: Context
) -> WebhookEndpointAnswered:
    return WebhookEndpointAnswered(context.stream_id, endpoint.status)


DECIDER: Decider[WebhookEndpointCommand, WebhookEndpoint, WebhookEndpointEvent] = Decider(
    stream=STREAM,
    commands=(DisableWebhookEndpoint, RedriveWebhook),
    events=(
        WebhookEndpointOpened,
        WebhookEndpointDisabled,
        WebhookEndpointClosed,
        WebhookRequested,
        WebhookRedriven,
    ),
    initial=WebhookEndpoint(),
    decide=decide,
    evolve=evolve,
    answer=_answer,
    describe=msgspec.structs.asdict,
)
