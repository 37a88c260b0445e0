"""One listener of the live hub: catches up from the log, then lives on what the tail hands out.

Joining works on one fact: the hub dispatches without suspension, and its `next_offset` is the first
offset not yet dispatched. A listener that resumes reads the log up to that offset and, once there,
attaches in the same breath; what came before it has read, what comes after it is handed.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from aiokafka import TopicPartition

from api.replay import Bounds, Stretch, Truncated
from schemas.codec import Codec
from schemas.envelope import Envelope, Position, from_headers

logger = logging.getLogger(__name__)

QUEUE_MAX = 256


class BadPosition(ValueError):
    """Not a position of this stream: malformed, another topic, or another tenant's partition."""


class LiveEvent:
    """One record of the log; envelope and payload are decoded when somebody looks, then kept."""

    __slots__ = ("_codec", "_envelope", "_event", "_record", "position", "tenant", "type")

    def __init__(self, record: Any, codec: Codec) -> None:
        self._record, self._codec = record, codec
        self.position = Position(record.topic, record.partition, record.offset)
        self.tenant = self.type = ""
        for name, value in record.headers:
            if name == "ce_tenant":
                self.tenant = value.decode()
            elif name == "ce_type":
                self.type = value.decode()
        self._envelope: Envelope | None = None
        self._event: Any = None

    @property
    def envelope(self) -> Envelope:
        """The CloudEvents attributes. Raises KeyError on a record that is not ours."""
        if self._envelope is None:
            self._envelope = from_headers(self._record.headers)
        return self._envelope

    @property
    def event(self) -> Any:
        """The event struct. Raises schemas.codec.Undecodable."""
        if self._event is None:
            self._event = self._codec.decode(self._record.value)
        return self._event


class Resync:
    """What lies between the listener's position and `position` can't be read any more.

    The listener must fetch the state anew, and then goes on live from `position`.
    """

    __slots__ = ("position", "reason")

    def __init__(self, position: Position, reason: str) -> None:
        self.position, self.reason = position, reason


Wants = Callable[[LiveEvent], bool]


def everything(event: LiveEvent) -> bool:
    """The predicate of who wants all of a tenant's events."""
    return True


class Tail(Protocol):
    """What a subscription needs of the hub."""

    codec: Codec

    def next_offset(self, partition: TopicPartition) -> int:
        """The first offset that was not yet dispatched."""
        ...

    async def read(self, partition: TopicPartition, offset: int) -> Stretch:
        """A batch of the log. Raises Truncated, LogUnavailable."""
        ...

    def attach(self, subscription: "Subscription") -> None:
        """Hand it what is dispatched from now on."""
        ...

    def detach(self, subscription: "Subscription") -> None:
        """Forget it."""
        ...


class Subscription:
    """One listener. Use as an async context manager; read with `batch` from one task only.

    ended: why it is over ("" while it isn't). credential: the id of the key or session behind it,
    holder: of the user or agent whose it is, see `LiveHub.revoke`.
    """

    def __init__(
        self,
        tail: Tail,
        tenant: str,
        partition: TopicPartition,
        wants: Wants,
        *,
        credential: str = "",
        holder: str = "",
    ) -> None:
        self.tenant, self.partition = tenant, partition
        self.credential, self.holder = credential, holder
        self.ended = ""
        self._tail, self._wants = tail, wants
        self._queue: deque[LiveEvent | Resync] = deque()
        self._wake = asyncio.Event()
        # The offset to read from the log next, while the listener is behind the tail.
        self._behind: int | None = None
        # Live records below this offset were seen before (by way of another API process).
        self._from = 0

    async def __aenter__(self) -> "Subscription":
        return self

    async def __aexit__(self, *_: object) -> None:
        self._tail.detach(self)

    def start(self, after: int | None, bounds: Bounds | None) -> None:
        """Be live from now on, or go on behind the offset `after` that another connection saw.

        bounds: what the log holds; None when `after` is known to be in it.
        """
        if after is None:
            self._attach()
            return
        self._behind = after + 1
        newest = self._tail.next_offset(self.partition)
        if bounds and not bounds.first <= self._behind <= max(bounds.end, newest):
            self._restart("the log does not hold this position any more")

    def checkpoint(self) -> Position | None:
        """Where a listener that has read everything may resume: all before is done with.

        It moves on over other tenants' records too, so that a quiet listener that comes back has
        little to read. None while something is queued, or when the subscription has ended.
        """
        if self.ended or self._queue:
            return None
        reached = self._behind
        if reached is None:
            reached = max(self._tail.next_offset(self.partition), self._from)
        return Position(self.partition.topic, self.partition.partition, reached - 1)

    async def batch(self, timeout: float, limit: int = 64) -> list[LiveEvent | Resync]:
        """The next events in order, at most `limit`; empty when `timeout` seconds brought none.

        Also empty after each stretch of the log that held nothing for this listener, and when the
        subscription has ended and all was handed out. Suspends at least once, so that a reader in a
        loop starves nobody. Raises LogUnavailable while it must read from a log that is away.
        """
        await asyncio.sleep(0)
        if not self._queue and self._behind is not None and not self.ended:
            await self._catch_up(self._behind)
        elif not self._queue and not self.ended:
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._wake.wait()
        return [self._queue.popleft() for _ in range(min(limit, len(self._queue)))]

    async def _catch_up(self, offset: int) -> None:
        """Read one batch of the log, or attach when the tail is reached."""
        if offset >= self._tail.next_offset(self.partition):
            self._attach()
            return
        try:
            stretch = await self._tail.read(self.partition, offset)
        except Truncated:
            self._restart("the log does not hold this position any more")
            return
        self._behind = stretch.next_offset
        events = (LiveEvent(record, self._tail.codec) for record in stretch.records)
        self._queue.extend(
            event for event in events if event.tenant == self.tenant and self._accepts(event)
        )

    def _attach(self) -> None:
        self._from, self._behind = self._behind or 0, None
        self._tail.attach(self)

    def _restart(self, reason: str) -> None:
        self._behind = None
        self._attach()
        self.lose(reason)

    def lose(self, reason: str) -> None:
        """Tell the listener that it has missed what can't be read any more."""
        offset = self._tail.next_offset(self.partition) - 1
        here = Position(self.partition.topic, self.partition.partition, offset)
        self._queue.append(Resync(here, reason))
        self._wake.set()

    def offer(self, event: LiveEvent) -> None:
        """Queue a live event that is wanted; a full queue ends the subscription."""
        if event.position.offset < self._from or not self._accepts(event):
            return
        if len(self._queue) >= QUEUE_MAX:
            self.end("slow reader")
            return
        self._queue.append(event)
        self._wake.set()

    def _accepts(self, event: LiveEvent) -> bool:
        try:
            return self._wants(event)
        except Exception:
            # A record that a predicate can't judge is for nobody; the stream goes on.
            logger.exception("a listener's predicate failed at %s", event.position)
            return False

    def end(self, reason: str) -> None:
        """No further event; what is queued can still be read."""
        if not self.ended:
            self.ended = reason
            self._tail.detach(self)
            self._wake.set()
