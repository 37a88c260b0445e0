"""`platform.webhook_endpoint`: where webhooks go, for whatever domain wants them sent.

A domain that has endpoints emits what is made here from its own decider, in the same transaction
as its own event, under an id of its own: `opened`, `moved`, `closed`, `requested`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, assert_never

import msgspec
from msgspec import Struct

from commands.decider import Context, Decider, Emit
from commands.refusals import ActorForbidden, AlreadyDone, NotFound
from schemas.instants import iso
from schemas.platform.webhook import (
    WebhookEndpointClosed,
    WebhookEndpointDisabled,
    WebhookEndpointEvent,
    WebhookEndpointMoved,
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
    url: str = ""


class WebhookEndpointAnswered(Struct, frozen=True):
    """What a caller is told of an endpoint."""

    id: str
    status: str


def opened(endpoint_id: str, url: str, context: Context) -> Emit:
    """The event that opens an endpoint for the caller; its secret derives from the command's id."""
    event = WebhookEndpointOpened(url, context.command_id, context.actor.id, context.now)
    return Emit(STREAM, endpoint_id, event)


def moved(
    endpoint_id: str, endpoint: WebhookEndpoint, url: str, context: Context
) -> Sequence[Emit]:
    """The event that sends an endpoint's webhooks to another URL, none where that changes nothing.

    Its secret stays.
    """
    if endpoint.status in ("absent", "closed") or endpoint.url == url:
        return []
    return [Emit(STREAM, endpoint_id, WebhookEndpointMoved(url, context.now))]


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


def body_of(event_type: str, at: int, data: Mapping[str, Any]) -> Json:
    """A webhook's body, as Standard Webhooks recommends it. at: microseconds UTC."""
    return msgspec.json.encode({"type": event_type, "timestamp": iso(at), "data": data}).decode()


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
            return WebhookEndpoint(event.owner_id, "active", url=event.url)
        case WebhookEndpointMoved():
            return msgspec.structs.replace(endpoint, url=event.url)
        case WebhookEndpointDisabled():
            return msgspec.structs.replace(endpoint, status="disabled")
        case WebhookEndpointClosed():
            return msgspec.structs.replace(endpoint, status="closed")
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
        WebhookEndpointMoved,
        WebhookEndpointDisabled,
        WebhookEndpointClosed,
        WebhookRequested,
        WebhookRedriven,
    ),
    version=2,
    initial=WebhookEndpoint(),
    decide=decide,
    evolve=evolve,
    answer=_answer,
    describe=msgspec.structs.asdict,
)
