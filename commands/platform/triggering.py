"""What watchers and webhooks have in common: an event of the log is told once, in its order."""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from commands.decider import Context, Emit
from commands.platform.webhook_endpoint import WebhookEndpoint, requested
from commands.refusals import ActorForbidden
from schemas.types import Json

E = TypeVar("E")


class Place(Protocol):
    """Where an event lies on `events`."""

    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...


class Trigger(Place, Protocol):
    """The fan-out's command: this event matched. body: the webhook's."""

    @property
    def event_id(self) -> str: ...
    @property
    def event_type(self) -> str: ...
    @property
    def body(self) -> Json: ...


def trigger(
    command: Trigger,
    last: Place,
    endpoint: WebhookEndpoint,
    context: Context,
    *,
    listens: bool,
    record: Callable[..., E],
) -> Sequence[E | Emit]:
    """The stream's record of an event, and the webhook, if its endpoint is active.

    Quiet, not refused, for what needs no telling, since nobody waits for the answer: `last` (the
    event that was told last) is as late, nobody listens any more, or sending was disabled.
    record: makes the stream's own event of what every record has. Raises ActorForbidden.
    """
    if context.actor.kind != "system":
        raise ActorForbidden("only the log triggers")
    seen = command.partition == last.partition and command.offset <= last.offset
    if seen or not listens or endpoint.status == "disabled":
        return []
    recorded = record(
        event_id=command.event_id,
        event_type=command.event_type,
        partition=command.partition,
        offset=command.offset,
        triggered_at=context.now,
    )
    sent = requested(
        context.stream_id,
        endpoint,
        context,
        event_id=command.event_id,
        event_type=command.event_type,
        body=command.body,
    )
    return [recorded, *sent]
