"""Requests without an Idempotency-Key: which of them is an earlier one that is sent again.

A request identical to one whose answer was not delivered (it failed with a 5xx, its client was gone
before it was answered, or the process died) within a minute is that request: it gets its command
id, hence the same run and item ids, and counts once. After an answer that was delivered, an
identical request is new. Of several whose answers were lost, a request is the one that fewest are
at, so that each is repeated before any is repeated twice.

What is known is bounded: a minute, and a number of requests. With a journal it outlives the
process; the other processes of the installation are told what is lost, and asked whose it is now
(`api.retries_shared`).
"""

import time
from collections.abc import Callable
from typing import Protocol

from starlette.types import Receive

from api.retries_journal import Journal
from infra.clock import SYSTEM_CLOCK, Clock
from infra.ids import new_id
from infra.postgres import DatabaseUnavailable

WINDOW_SECONDS = 60.0
_MOST = 100_000


class Others(Protocol):
    """The other API processes of an installation, as far as they can be reached."""

    @property
    def name(self) -> str:
        """This process, as the others know it."""
        ...

    def tell(self, fingerprint: str, command_id: str, *, again: bool) -> None:
        """Let them know, soon, that an answer was lost; again: of a command that they know."""
        ...

    async def claim(self, fingerprint: str) -> str | None:
        """The command that a request of this fingerprint repeats, None when it was answered by now.

        Two that claim at once get the same command, unless there are two. Raises
        DatabaseUnavailable within half a second.
        """
        ...

    async def settle(self, command_id: str) -> None:
        """Let nobody claim that command any more; best effort, within half a second."""
        ...


class Lost:
    """A command whose answer was not delivered. claims: how many attempts at it are under way."""

    __slots__ = ("claims", "command_id", "fingerprint", "lost_at", "slot")

    def __init__(self, fingerprint: str, command_id: str, lost_at: float) -> None:
        self.fingerprint, self.command_id, self.lost_at = fingerprint, command_id, lost_at
        self.claims, self.slot = 0, -1


class Attempt:
    """A request that is being answered, and the command that it is.

    delivered: whether its answer reaches the client, as far as a server can know. is_repeat:
    whether others may know its command as lost. told: whether it counts as lost already. settled:
    whether another attempt at the command was answered. begun_at: microseconds since 1970.
    """

    __slots__ = (
        "_receive",
        "_retries",
        "begun_at",
        "command_id",
        "delivered",
        "fingerprint",
        "is_repeat",
        "settled",
        "slot",
        "told",
    )

    def __init__(
        self,
        retries: "Retries",
        fingerprint: str,
        command_id: str,
        receive: Receive,
        *,
        begun_at: int,
        is_repeat: bool,
    ) -> None:
        self._retries, self._receive = retries, receive
        self.fingerprint, self.command_id, self.begun_at = fingerprint, command_id, begun_at
        self.is_repeat, self.slot = is_repeat, -1
        self.delivered = self.told = self.settled = False

    @property
    def mark(self) -> str:
        """`Envelope.attempt` of what it appends to the log."""
        return self._retries.mark(self.fingerprint)

    @property
    def is_alone(self) -> bool:
        """Whether nobody waits for the answer any more: the client has closed its connection."""
        return _is_gone(self._receive)

    async def answer(self, status: int) -> None:
        """It is about to be answered, and before the client knows, the others are told."""
        # What goes to a connection that was closed is dropped without a word.
        self.delivered = status < 500 and not self.is_alone
        if not self.delivered:
            self._retries.lose(self)
        elif self.is_repeat:
            await self._retries.settle(self)


class Retries:
    """The attempts under way, and the commands of the last minute whose answers were lost.

    journal: keeps them for the process that comes after this one. others: who else may get the
    repeats. now: seconds, of a clock that never goes back. clock: the time of day. most: lost ones
    that are remembered; beyond it the oldest are forgotten.
    """

    def __init__(
        self,
        journal: Journal | None = None,
        others: Others | None = None,
        now: Callable[[], float] = time.monotonic,
        clock: Clock = SYSTEM_CLOCK,
        most: int = _MOST,
    ) -> None:
        self._journal, self._others, self._most = journal, others, most
        self._now, self._clock = now, clock
        self._under_way: dict[str, list[Attempt]] = {}
        self._in_order: dict[Attempt, None] = {}  # those under way, the oldest first
        self._lost: dict[str, Lost] = {}  # by command, the oldest first
        self._by_request: dict[str, dict[str, Lost]] = {}
        if journal is not None:
            for slot, fingerprint, command_id in journal.left_behind(WINDOW_SECONDS):
                lost = Lost(fingerprint, command_id, now())
                lost.slot = slot
                self._keep(lost)
                self._tell(lost, again=False)

    @property
    def lost(self) -> int:
        """How many lost commands are known."""
        return len(self._lost)

    def mark(self, fingerprint: str) -> str:
        """What tells of an attempt on the log; empty when nobody would look there."""
        return f"{self._others.name}.{fingerprint}" if self._others is not None else ""

    def unanswered_since(self) -> tuple[int, int]:
        """Now, and the instant before which nothing began that is neither answered nor told.

        Both in microseconds since 1970.
        """
        now, oldest = self._clock.now(), next(iter(self._in_order), None)
        return now, now if oldest is None else oldest.begun_at

    async def begin(self, fingerprint: str, receive: Receive) -> Attempt:
        """An attempt at the request of that fingerprint, whose body has been read whole.

        receive: ASGI's, of that request. Every attempt must be ended.
        """
        for attempt in self._under_way.get(fingerprint, ()):
            self._lose_abandoned(attempt)
        claimed = None
        if self._lost:
            self._forget(self._most)
            if fingerprint in self._by_request:
                claimed = await self._claim(fingerprint)
        attempt = Attempt(
            self,
            fingerprint,
            claimed or new_id("cmd"),
            receive,
            begun_at=self._clock.now(),
            is_repeat=claimed is not None,
        )
        if self._journal is not None:
            attempt.slot = self._journal.put(fingerprint, attempt.command_id)
        self._under_way.setdefault(fingerprint, []).append(attempt)
        self._in_order[attempt] = None
        return attempt

    def end(self, attempt: Attempt) -> None:
        """The attempt is over, its answer delivered or not."""
        same = self._under_way[attempt.fingerprint]
        same.remove(attempt)
        if not same:
            del self._under_way[attempt.fingerprint]
        self._in_order.pop(attempt, None)
        if attempt.delivered:
            self._settled(attempt)
        else:
            self.lose(attempt)
        self._clear(attempt)

    def lose(self, attempt: Attempt) -> None:
        """Its answer does not reach the client; twice is once."""
        if attempt.told or attempt.settled:
            return
        lost = self._lost.pop(attempt.command_id, None)
        if lost is None:
            lost = Lost(attempt.fingerprint, attempt.command_id, 0.0)
        elif attempt.is_repeat:
            lost.claims = max(0, lost.claims - 1)
        lost.lost_at, attempt.told = self._now(), True
        self._in_order.pop(attempt, None)
        self._clear(lost)
        lost.slot, attempt.slot = attempt.slot, -1
        self._keep(lost)
        self._tell(lost, again=attempt.is_repeat)

    async def settle(self, attempt: Attempt) -> None:
        """The answer to an attempt at a lost command is about to go out."""
        if self._others is not None:
            await self._others.settle(attempt.command_id)

    def lose_abandoned(self) -> None:
        """What is under way for clients that are gone is lost, and need not be waited for."""
        for attempt in list(self._in_order):
            self._lose_abandoned(attempt)

    def hear(self, fingerprint: str, command_id: str, age: float = 0.0) -> None:
        """The answer to a command was lost, by this or another process, `age` seconds ago."""
        for attempt in self._under_way.get(fingerprint, ()):
            if attempt.command_id == command_id:
                attempt.is_repeat = True
        lost = self._lost.pop(command_id, None) or Lost(fingerprint, command_id, 0.0)
        lost.lost_at = self._now() - age
        self._keep(lost)

    def _lose_abandoned(self, attempt: Attempt) -> None:
        if not attempt.told and attempt.is_alone:
            self.lose(attempt)

    def _tell(self, lost: Lost, *, again: bool) -> None:
        if self._others is not None:
            self._others.tell(lost.fingerprint, lost.command_id, again=again)

    async def _claim(self, fingerprint: str) -> str | None:
        """The lost command that a request repeats, if it does."""
        known = list(self._by_request[fingerprint].values())
        if self._others is not None:
            try:
                claimed = await self._others.claim(fingerprint)
            except DatabaseUnavailable:
                pass  # it goes by what this process has heard
            else:
                if claimed is None:
                    for lost in known:
                        self._drop(lost.command_id)
                elif claimed in self._lost:
                    self._lost[claimed].claims += 1
                return claimed
        known = [lost for lost in known if lost.command_id in self._lost]
        if not known:
            return None
        found = min(known, key=lambda lost: lost.claims)
        found.claims += 1
        return found.command_id

    def _settled(self, attempt: Attempt) -> None:
        self._drop(attempt.command_id)
        for other in self._under_way.get(attempt.fingerprint, ()):
            if other.command_id == attempt.command_id:
                other.settled = True

    def _keep(self, lost: Lost) -> None:
        self._forget(self._most - 1)
        self._lost[lost.command_id] = lost
        # Those of one request, too, are in the order in which they were lost.
        same = self._by_request.setdefault(lost.fingerprint, {})
        same.pop(lost.command_id, None)
        same[lost.command_id] = lost

    def _forget(self, most: int) -> None:
        """Drop what is too old, and the oldest of more than `most`."""
        oldest = self._now() - WINDOW_SECONDS
        while self._lost:
            first = next(iter(self._lost.values()))
            if first.lost_at >= oldest and len(self._lost) <= most:
                return
            self._drop(first.command_id)

    def _drop(self, command_id: str) -> None:
        lost = self._lost.pop(command_id, None)
        if lost is None:
            return
        self._clear(lost)
        same = self._by_request[lost.fingerprint]
        del same[command_id]
        if not same:
            del self._by_request[lost.fingerprint]

    def _clear(self, noted: Attempt | Lost) -> None:
        if self._journal is not None:
            self._journal.clear(noted.slot)
            noted.slot = -1


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
