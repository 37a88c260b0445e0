"""Requests without an Idempotency-Key: which of them is an earlier one that is sent again.

A request identical to one whose answer was not delivered (it failed with a 5xx, its client was gone
before it was answered, or the process died) within a minute is that request: it gets its command
id, hence the same run and item ids, and counts once. After an answer that was delivered, an
identical request is new. What is known is known to one process, and bounded: a minute, and a number
of requests. With a journal it outlives the process.
"""

import time
from collections import deque
from collections.abc import Callable

from starlette.types import Receive

from api.retries_journal import Journal
from infra.ids import new_id

WINDOW_SECONDS = 60.0
_MOST = 100_000


class Attempt:
    """A request that is being answered, or whose answer was lost, and the command that it is.

    delivered: whether its answer reached the client, as far as a server can know. repeated: whether
    another attempt is at the same command by now.
    """

    __slots__ = (
        "_receive",
        "command_id",
        "delivered",
        "fingerprint",
        "lost_at",
        "repeated",
        "slot",
    )

    def __init__(
        self, fingerprint: str, command_id: str, receive: Receive | None, slot: int
    ) -> None:
        self.fingerprint, self.command_id, self._receive = fingerprint, command_id, receive
        self.slot, self.lost_at = slot, 0.0
        self.delivered = self.repeated = False

    @property
    def is_alone(self) -> bool:
        """Whether nobody waits for the answer any more: the client has closed its connection."""
        return self._receive is None or _is_gone(self._receive)


class Retries:
    """The attempts under way, and those of the last minute whose answers were not delivered.

    journal: keeps them for the process that comes after this one. now: seconds, of a clock that
    never goes back. most: lost ones that are remembered; beyond it the oldest are forgotten.
    """

    def __init__(
        self,
        journal: Journal | None = None,
        now: Callable[[], float] = time.monotonic,
        most: int = _MOST,
    ) -> None:
        self._journal, self._now, self._most = journal, now, most
        self._under_way: dict[str, list[Attempt]] = {}
        self._lost: dict[str, deque[Attempt]] = {}
        self._ages: deque[Attempt] = deque()  # the lost ones, and repeated ones that were lost
        if journal is not None:
            for slot, fingerprint, command_id in journal.left_behind(WINDOW_SECONDS):
                self._lose(Attempt(fingerprint, command_id, None, slot))

    def begin(self, fingerprint: str, receive: Receive) -> Attempt:
        """An attempt at the request of that fingerprint, whose body has been read whole.

        receive: ASGI's, of that request. Every attempt must be ended.
        """
        earlier = self._lost_one(fingerprint) or self._abandoned_one(fingerprint)
        command_id = new_id("cmd") if earlier is None else earlier.command_id
        slot = -1 if self._journal is None else self._journal.put(fingerprint, command_id)
        attempt = Attempt(fingerprint, command_id, receive, slot)
        self._under_way.setdefault(fingerprint, []).append(attempt)
        if earlier is not None:
            earlier.repeated = True
            self._clear(earlier)
        return attempt

    def end(self, attempt: Attempt) -> None:
        """The attempt is over, its answer delivered or not."""
        same = self._under_way[attempt.fingerprint]
        same.remove(attempt)
        if not same:
            del self._under_way[attempt.fingerprint]
        if attempt.delivered:
            self._clear(attempt)
        elif not attempt.repeated:
            self._lose(attempt)

    def _lose(self, attempt: Attempt) -> None:
        self._forget(self._most - 1)
        attempt.lost_at = self._now()
        self._lost.setdefault(attempt.fingerprint, deque()).append(attempt)
        self._ages.append(attempt)

    def _lost_one(self, fingerprint: str) -> Attempt | None:
        """Such a request whose answer was lost."""
        if not self._lost:
            return None
        self._forget(self._most)
        return self._take_lost(fingerprint) if fingerprint in self._lost else None

    def _abandoned_one(self, fingerprint: str) -> Attempt | None:
        """Such a request that is still under way, for a client that is gone."""
        for attempt in self._under_way.get(fingerprint, ()):
            if not attempt.repeated and attempt.is_alone:
                return attempt
        return None

    def _forget(self, most: int) -> None:
        """Drop what is too old, and the oldest of more than `most`."""
        ages, oldest = self._ages, self._now() - WINDOW_SECONDS
        while ages and (ages[0].lost_at < oldest or len(ages) > most):
            attempt = ages.popleft()
            if not attempt.repeated:
                self._take_lost(attempt.fingerprint)
                self._clear(attempt)

    def _take_lost(self, fingerprint: str) -> Attempt:
        """The oldest of them, which is then no longer among them."""
        lost = self._lost[fingerprint]
        attempt = lost.popleft()
        if not lost:
            del self._lost[fingerprint]
        return attempt

    def _clear(self, attempt: Attempt) -> None:
        if self._journal is not None:
            self._journal.clear(attempt.slot)
            attempt.slot = -1


def _is_gone(receive: Receive) -> bool:
    """Whether the client of a request has closed its connection; asked without waiting.

    ASGI tells it by a message that would come at once, so one step of the call is enough.
    """
    step = receive().__await__()
    try:
        next(step)
    except StopIteration as told:
        return bool(told.value["type"] == "http.disconnect")
    finally:
        step.close()
    return False
