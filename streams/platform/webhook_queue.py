"""An endpoint's webhooks in order: the fold of what `deliveries` says of it. Pure.

Only the first that waits is ever tried, so an endpoint is told things in the order in which they
were requested, and a process that dies between an attempt and its record tries the first again.
"""

from typing import Literal, NamedTuple, assert_never

import msgspec
from msgspec import Struct

from schemas.platform.webhook import WebhookAttempted, WebhookRedriven, WebhookRequested

QUEUE_MAX = 10_000
"""How many may wait for an endpoint; what comes then is dead at once."""

WebhookRecord = WebhookRequested | WebhookRedriven | WebhookAttempted
DeliveryStatus = Literal["waiting", "delivered", "dead", "dropped"]


class Waiting(NamedTuple):
    """A delivery that waits. since: when it was requested or redriven, microseconds UTC."""

    event_id: str
    since: int
    attempts: int = 0


class Queue(Struct, frozen=True):
    """What waits for an endpoint, and how the endpoint does.

    due_at: when the first may be tried. failures: attempts that failed since the last that did not;
    failing_since: when the first of them did, 0 without any. Instants are microseconds UTC.
    """

    waiting: tuple[Waiting, ...] = ()
    due_at: int = 0
    failures: int = 0
    failing_since: int = 0

    @property
    def forgettable(self) -> bool:
        """Whether it is as if it had never been."""
        return not self.waiting and not self.failures


class Change(NamedTuple):
    """What became of a delivery. at: when; since: when it joined the queue, if it has just done so.

    Instants are microseconds UTC.
    """

    event_id: str
    status: DeliveryStatus
    attempts: int
    at: int
    retry_at: int | None = None
    reason: str = ""
    since: int | None = None


def fold(queue: Queue, record: WebhookRecord) -> tuple[Queue, list[Change]]:
    """The queue after a record, and the deliveries that it changed.

    What is said twice (a request, or an attempt by two senders) changes nothing the second time.
    """
    match record:
        case WebhookRequested():
            return _joined(queue, record.event_id, record.requested_at)
        case WebhookRedriven():
            return _joined(queue, record.event_id, record.redriven_at)
        case WebhookAttempted():
            return _tried(queue, record)
    assert_never(record)


def _joined(queue: Queue, event_id: str, since: int) -> tuple[Queue, list[Change]]:
    if any(waiting.event_id == event_id for waiting in queue.waiting):
        return queue, []
    if len(queue.waiting) >= QUEUE_MAX:
        reason = f"{QUEUE_MAX} webhooks wait for the endpoint already"
        return queue, [Change(event_id, "dead", 0, since, reason=reason)]
    joined = msgspec.structs.replace(
        queue,
        waiting=(*queue.waiting, Waiting(event_id, since)),
        due_at=queue.due_at if queue.waiting else since,
    )
    return joined, [Change(event_id, "waiting", 0, since, since=since)]


def _tried(queue: Queue, record: WebhookAttempted) -> tuple[Queue, list[Change]]:
    if not queue.waiting or queue.waiting[0].event_id != record.event_id:
        return queue, []
    first, *behind = queue.waiting
    at = record.attempted_at
    if record.outcome == "delivered":
        # Whichever sender's it is: what was delivered need not be tried again.
        delivered = Change(first.event_id, "delivered", first.attempts + 1, at)
        return Queue(tuple(behind), at), [delivered]
    if record.number != first.attempts + 1:
        return queue, []
    tried = first._replace(attempts=record.number)
    reason = record.error or f"the endpoint answered {record.status_code}"
    failed = Queue(tuple(behind), at, queue.failures + 1, queue.failing_since or at)
    match record.outcome:
        case "failed":
            retry_at = record.retry_at or at
            after = msgspec.structs.replace(failed, waiting=(tried, *behind), due_at=retry_at)
            return after, [Change(tried.event_id, "waiting", tried.attempts, at, retry_at, reason)]
        case "dead":
            return failed, [Change(tried.event_id, "dead", tried.attempts, at, reason=reason)]
        case "dropped":
            dropped = [
                Change(one.event_id, "dropped", one.attempts, at, reason=reason)
                for one in (tried, *behind)
            ]
            return Queue(), dropped
    assert_never(record.outcome)
