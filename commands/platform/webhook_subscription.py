"""`platform.webhook_subscription`: a tenant has events of its own told to a URL, by webhook."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, assert_never

import msgspec
from msgspec import Struct

from commands.decider import Claim, Context, Decider, Emit, Lookup, Ref, Release
from commands.platform import webhook_endpoint
from commands.platform.triggering import trigger
from commands.platform.webhook_endpoint import STREAM as ENDPOINT
from commands.platform.webhook_endpoint import (
    WebhookEndpoint,
    WebhookEndpointIsDisabled,
    WebhookEndpointNotFound,
)
from commands.refusals import AlreadyDone, InvalidCommand
from schemas.platform.announcements import TEST_TYPE, selectable
from schemas.platform.webhook_subscription import (
    WebhookDescribed,
    WebhookSubscribed,
    WebhookSubscriptionEvent,
    WebhookTriggered,
    WebhookTypesChosen,
    WebhookUnsubscribed,
)
from schemas.types import Count, Json, Text
from schemas.unions import members

STREAM = "platform.webhook_subscription"
WEBHOOKS_MAX = 20
"""Of a tenant at a time."""
_SLOTS = "platform.webhook_slot"


class SubscribeWebhook(Struct, frozen=True, tag="platform.subscribe_webhook.v1"):
    """Tell `url` of events of these types; see `schemas/platform/announcements.py`."""

    url: Text
    event_types: list[Text]
    description: Text = ""


class ReviseWebhook(Struct, frozen=True, tag="platform.revise_webhook.v1"):
    """Change what is given and leave the rest."""

    url: Text | None = None
    event_types: list[Text] | None = None
    description: Text | None = None


class SendTestWebhook(Struct, frozen=True, tag="platform.send_test_webhook.v1"):
    """Send an event that tells of nothing."""


class TriggerWebhook(Struct, frozen=True, tag="platform.trigger_webhook.v1"):
    """An event matched; the fan-out's command.

    body: the webhook's body. partition and offset: where the event lies on `events`.
    """

    event_id: str
    event_type: Text
    body: Json
    partition: Count
    offset: Count


class UnsubscribeWebhook(Struct, frozen=True, tag="platform.unsubscribe_webhook.v1"):
    """Tell the URL of nothing any more."""


class WebhooksExhausted(AlreadyDone):
    """The tenant has as many webhooks as it may have."""


WebhookSubscriptionCommand = (
    SubscribeWebhook | ReviseWebhook | SendTestWebhook | TriggerWebhook | UnsubscribeWebhook
)
Emitted = WebhookSubscriptionEvent | Emit


class WebhookSubscription(Struct, frozen=True):
    """The state; partition and offset are of the last event that was told."""

    status: Literal["absent", "open", "closed"] = "absent"
    event_types: tuple[str, ...] = ()
    description: str = ""
    slot: int = 0
    partition: int = -1
    offset: int = -1


class WebhookSubscriptionAnswered(Struct, frozen=True):
    """What a caller is told. event_id: `webhook-id` of the test event, if it was one."""

    id: str
    event_id: str = ""


def loads(command: WebhookSubscriptionCommand, id: str) -> Sequence[Ref | Lookup]:
    if not isinstance(command, SubscribeWebhook):
        return (Ref(ENDPOINT, id),)
    return (Ref(ENDPOINT, id), *(Lookup(_SLOTS, str(slot)) for slot in range(WEBHOOKS_MAX)))


def decide(
    command: WebhookSubscriptionCommand, state: WebhookSubscription, context: Context
) -> Sequence[Emitted]:
    """Raises InvalidCommand, WebhooksExhausted on subscribing; WebhookEndpointNotFound,
    WebhookEndpointIsDisabled, ActorForbidden."""
    endpoint: WebhookEndpoint = context.state(ENDPOINT, context.stream_id)
    match command:
        case SubscribeWebhook():
            return _subscribe(command, state, context)
        case TriggerWebhook():
            return _trigger(command, state, endpoint, context)
    if state.status == "absent":
        raise WebhookEndpointNotFound("no such webhook")
    if isinstance(command, UnsubscribeWebhook):
        if state.status == "closed":
            return []
        closed = webhook_endpoint.closed(context.stream_id, endpoint, context)
        return [WebhookUnsubscribed(state.slot, context.now), *closed]
    if state.status == "closed":
        raise WebhookEndpointNotFound("no such webhook")
    match command:
        case ReviseWebhook():
            return _revise(command, state, endpoint, context)
        case SendTestWebhook():
            return _test(endpoint, context)
    assert_never(command)


def _subscribe(
    command: SubscribeWebhook, state: WebhookSubscription, context: Context
) -> Sequence[Emitted]:
    if state.status != "absent":
        return []  # its id follows from the command's: the same request, made again
    event_types = _checked(command.event_types)
    free = [slot for slot in range(WEBHOOKS_MAX) if context.find(_SLOTS, str(slot)) is None]
    if not free:
        raise WebhooksExhausted(f"there are {WEBHOOKS_MAX} webhooks already", limit=WEBHOOKS_MAX)
    return [
        WebhookSubscribed(event_types, command.description, free[0], context.now),
        webhook_endpoint.opened(context.stream_id, command.url, context),
    ]


def _checked(event_types: Sequence[str]) -> list[str]:
    known = selectable()
    unknown = sorted(set(event_types).difference(known))
    if unknown:
        raise InvalidCommand(
            f"no such event types: {', '.join(unknown)}", field="event_types", known=known
        )
    if not event_types:
        raise InvalidCommand("a webhook names at least one event type", field="event_types")
    return sorted(set(event_types))


def _revise(
    command: ReviseWebhook, state: WebhookSubscription, endpoint: WebhookEndpoint, context: Context
) -> Sequence[Emitted]:
    events: list[Emitted] = []
    if command.event_types is not None:
        chosen = _checked(command.event_types)
        if tuple(chosen) != state.event_types:
            events.append(WebhookTypesChosen(chosen))
    if command.description is not None and command.description != state.description:
        events.append(WebhookDescribed(command.description))
    if command.url is not None:
        events += webhook_endpoint.moved(context.stream_id, endpoint, command.url, context)
    return events


def _test(endpoint: WebhookEndpoint, context: Context) -> Sequence[Emitted]:
    if endpoint.status == "disabled":
        raise WebhookEndpointIsDisabled("nothing is sent to this webhook any more; enable it first")
    return webhook_endpoint.requested(
        context.stream_id,
        endpoint,
        context,
        event_id=id_of_test_event(context.command_id),
        event_type=TEST_TYPE,
        body=webhook_endpoint.body_of(TEST_TYPE, context.now, {"webhook_id": context.stream_id}),
    )


def id_of_test_event(command_id: str) -> str:
    """The `webhook-id` of the test event that a command sends."""
    return "evt_" + command_id.removeprefix("cmd_")


def _trigger(
    command: TriggerWebhook, state: WebhookSubscription, endpoint: WebhookEndpoint, context: Context
) -> Sequence[Emitted]:
    listens = state.status == "open" and endpoint.status == "active"
    return trigger(command, state, endpoint, context, listens=listens, record=WebhookTriggered)


def evolve(state: WebhookSubscription, event: WebhookSubscriptionEvent) -> WebhookSubscription:
    replace = msgspec.structs.replace
    match event:
        case WebhookSubscribed():
            types = tuple(event.event_types)
            return WebhookSubscription("open", types, event.description, event.slot)
        case WebhookTypesChosen():
            return replace(state, event_types=tuple(event.event_types))
        case WebhookDescribed():
            return replace(state, description=event.description)
        case WebhookTriggered():
            return replace(state, partition=event.partition, offset=event.offset)
        case WebhookUnsubscribed():
            return replace(state, status="closed")
    assert_never(event)


def _claims(event: WebhookSubscriptionEvent, stream_id: str) -> Sequence[Claim | Release]:
    match event:
        case WebhookSubscribed():
            return [Claim(_SLOTS, str(event.slot))]
        case WebhookUnsubscribed():
            return [Release(_SLOTS, str(event.slot))]
    return []


def _answer(
    command: WebhookSubscriptionCommand, state: WebhookSubscription, context: Context
) -> WebhookSubscriptionAnswered:
    tested = isinstance(command, SendTestWebhook)
    event_id = id_of_test_event(context.command_id) if tested else ""
    return WebhookSubscriptionAnswered(context.stream_id, event_id)


def _describe(command: WebhookSubscriptionCommand) -> Mapping[str, Any]:
    """Never the URL: its path may hold a secret of the receiver's."""
    match command:
        case SubscribeWebhook():
            return {"event_types": command.event_types}
        case ReviseWebhook():
            return {"event_types": command.event_types, "moves": command.url is not None}
        case TriggerWebhook():
            return {"event_id": command.event_id, "event_type": command.event_type}
        case SendTestWebhook() | UnsubscribeWebhook():
            return {}
    assert_never(command)


DECIDER: Decider[WebhookSubscriptionCommand, WebhookSubscription, WebhookSubscriptionEvent] = (
    Decider(
        stream=STREAM,
        commands=members(WebhookSubscriptionCommand),
        events=members(WebhookSubscriptionEvent),
        initial=WebhookSubscription(),
        decide=decide,
        evolve=evolve,
        loads=loads,
        claims=_claims,
        answer=_answer,
        describe=_describe,
    )
)
