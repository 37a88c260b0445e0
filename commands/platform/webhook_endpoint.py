"""`platform.webhook_endpoint`: where webhooks go, for whatever domain wants them sent.

A domain that has endpoints emits what is made here from its own decider, in the same transaction
as its own event, under an id of its own: `opened`, `moved`, `closed`, `requested`.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, assert_never

import msgspec
from msgspec import Meta, Struct

from commands.decider import Context, Decider, Emit
from commands.refusals import ActorForbidden, AlreadyDone, NotFound
from schemas.instants import iso
from schemas.platform.webhook import (
    RetiringSecret,
    WebhookEndpointClosed,
    WebhookEndpointDisabled,
    WebhookEndpointEnabled,
    WebhookEndpointEvent,
    WebhookEndpointMoved,
    WebhookEndpointOpened,
    WebhookRedriven,
    WebhookRequested,
    WebhookSecretRotated,
)
from schemas.types import Json, Text
from schemas.unions import members

STREAM = "platform.webhook_endpoint"
RETIRING_MAX = 3
"""So many replaced secrets sign beside the new one at most; the oldest goes first."""
OVERLAP_HOURS = 24
OVERLAP_HOURS_MAX = 168
_HOUR = 3_600_000_000


class DisableWebhookEndpoint(Struct, frozen=True, tag="platform.disable_webhook_endpoint.v1"):
    """Send nothing there any more: it is gone, or has failed for days. The sender's command."""

    reason: Text


class EnableWebhookEndpoint(Struct, frozen=True, tag="platform.enable_webhook_endpoint.v1"):
    """Send there again: whoever has it says that it works."""


class RotateWebhookSecret(Struct, frozen=True, tag="platform.rotate_webhook_secret.v1"):
    """Sign with a new secret, which derives from this command's id.

    overlap_hours: how long the secrets that count now go on signing beside it. 0: not at all, and
    none from an earlier rotation either, as when one has leaked.
    """

    overlap_hours: Annotated[int, Meta(ge=0, le=OVERLAP_HOURS_MAX)] = OVERLAP_HOURS


class RedriveWebhook(Struct, frozen=True, tag="platform.redrive_webhook.v1"):
    """Send a settled delivery again. That there is one, whoever asks has looked up."""

    event_id: str


WebhookEndpointCommand = (
    DisableWebhookEndpoint | EnableWebhookEndpoint | RotateWebhookSecret | RedriveWebhook
)


class WebhookEndpointNotFound(NotFound):
    """There is no such endpoint, or it was closed."""


class WebhookEndpointIsDisabled(AlreadyDone):
    """Nothing is sent to the endpoint any more."""


class WebhookEndpoint(Struct, frozen=True):
    """The state of an endpoint. key_seed: of the secret that signs; retiring: of those before."""

    owner_id: str = ""
    status: Literal["absent", "active", "disabled", "closed"] = "absent"
    key_seed: str = ""
    retiring: tuple[RetiringSecret, ...] = ()
    url: str = ""


class WebhookEndpointAnswered(Struct, frozen=True):
    """What a caller is told of an endpoint. retiring_until: when the last of its replaced secrets
    stops signing, microseconds UTC; None when only the newest signs."""

    id: str
    status: str
    retiring_until: int | None = None


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
        case EnableWebhookEndpoint():
            _check_owner(endpoint, context)
            if endpoint.status == "active":
                return []
            return [WebhookEndpointEnabled(context.now)]
        case RotateWebhookSecret():
            _check_owner(endpoint, context)
            return _rotate(command, endpoint, context)
        case RedriveWebhook():
            _check_owner(endpoint, context)
            if endpoint.status == "disabled":
                raise WebhookEndpointIsDisabled("nothing is sent to this endpoint any more")
            return [WebhookRedriven(context.stream_id, command.event_id, context.now)]
    assert_never(command)


def _check_owner(endpoint: WebhookEndpoint, context: Context) -> None:
    """People may, whoever opened it; of agents only the one that did."""
    if context.actor.kind == "agent" and context.actor.id != endpoint.owner_id:
        raise ActorForbidden("an agent has a say over its own webhooks only")


def _rotate(
    command: RotateWebhookSecret, endpoint: WebhookEndpoint, context: Context
) -> Sequence[WebhookEndpointEvent]:
    if context.command_id in (endpoint.key_seed, *(one.key_seed for one in endpoint.retiring)):
        return []
    retiring: list[RetiringSecret] = []
    if command.overlap_hours:
        until = context.now + command.overlap_hours * _HOUR
        counting = [one for one in endpoint.retiring if one.valid_until > context.now]
        retiring = [RetiringSecret(endpoint.key_seed, until), *counting][:RETIRING_MAX]
    return [WebhookSecretRotated(context.command_id, retiring, context.now)]


def evolve(endpoint: WebhookEndpoint, event: WebhookEndpointEvent) -> WebhookEndpoint:
    match event:
        case WebhookEndpointOpened():
            return WebhookEndpoint(event.owner_id, "active", event.key_seed, url=event.url)
        case WebhookEndpointMoved():
            return msgspec.structs.replace(endpoint, url=event.url)
        case WebhookEndpointDisabled():
            return msgspec.structs.replace(endpoint, status="disabled")
        case WebhookEndpointEnabled():
            return msgspec.structs.replace(endpoint, status="active")
        case WebhookEndpointClosed():
            return msgspec.structs.replace(endpoint, status="closed")
        case WebhookSecretRotated():
            retiring = tuple(event.retiring)
            return msgspec.structs.replace(endpoint, key_seed=event.key_seed, retiring=retiring)
        case WebhookRequested() | WebhookRedriven():
            return endpoint
    assert_never(event)


def _answer(
    command: WebhookEndpointCommand, endpoint: WebhookEndpoint, context: Context
) -> WebhookEndpointAnswered:
    until = max((one.valid_until for one in endpoint.retiring), default=None)
    return WebhookEndpointAnswered(context.stream_id, endpoint.status, until)


DECIDER: Decider[WebhookEndpointCommand, WebhookEndpoint, WebhookEndpointEvent] = Decider(
    stream=STREAM,
    commands=members(WebhookEndpointCommand),
    events=members(WebhookEndpointEvent),
    version=2,
    initial=WebhookEndpoint(),
    decide=decide,
    evolve=evolve,
    answer=_answer,
    describe=msgspec.structs.asdict,
)
