"""The parent's side: a fixed number of children, replaced when they die, each job tried twice.

Guarantees: a job ends in a result, in a refusal that would repeat itself, or in `EngineFailed`
after two children died on it; nothing a child does ends the parent. Blocking: `run` waits for a
free child, prefers one that has the key loaded, and is bounded by `wall_seconds_max` per try.

A child computes one job at a time. While it does, the operands of a job that waits are put beside
those of the first (`region.py` has two slots). Behind a job of milliseconds the next one is then
sent ahead, and the child goes on to it without waiting for us to be scheduled. Behind a longer one
it stays here: whichever child is free first takes it.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from msgspec import Struct

from fhe_workers import messages
from fhe_workers.child_process import (
    Child,
    ChildDied,
    KeySource,
    Operands,
    PoolLimits,
    ProgressSink,
    Turn,
)

logger = logging.getLogger(__name__)

_TRIES = 2


def _nobody(done: int, total: int) -> None:
    """Nobody wants to know."""


class Result(Struct, frozen=True):
    """A computed ciphertext and what it took."""

    data: bytes
    computed: messages.Computed
    tries: int


class EngineFailed(Exception):
    """Two children died on the same job; a third try is not worth a child."""


class Pool:
    """`limits.children` children behind one `run`. Use as an async context manager."""

    def __init__(self, limits: PoolLimits) -> None:
        self._children = [Child(limits) for _ in range(limits.children)]
        self._idle = list(self._children)
        self._waiting: list[Turn] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Pool":
        # One is warm for the first job; the others start when there is work for them.
        await self._children[0].start()
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(child.stop() for child in self._children))

    @property
    def pids(self) -> list[int]:
        """The process ids of the children that run at this moment."""
        return [child.pid for child in self._children if child.pid is not None]

    async def run(
        self,
        work: messages.Work,
        operands: Operands,
        key_source: KeySource,
        progress: ProgressSink = _nobody,
    ) -> Result:
        """The result of `work`; `key_source` is asked only when no child has the key loaded, and
        `progress` hears how far a long one is.

        Raises `JobRefused` (would fail again), `EngineFailed` (two deaths), and whatever
        `key_source` and operands that write themselves raise. Cancelling kills the child, which is
        how a job is cancelled.
        """
        turn = Turn(work, operands)
        child = self._pick_idle(work) or await self._wait(turn)
        try:
            computed, take = await self._run_on(child, turn, key_source, progress)
        except BaseException:
            await self._give_up(child)
            raise
        # The child has its next job before this thread copies for a while.
        self._release(child)
        return Result(take(computed.result_bytes), computed, turn.tries)

    def _pick_idle(self, work: messages.Work) -> Child | None:
        if not self._idle:
            return None
        hot = [idle for idle in self._idle if work.key_name in idle.keys_seen]
        warm = [idle for idle in self._idle if idle.pid is not None]
        child = (hot or warm or self._idle)[0]
        self._idle.remove(child)
        return child

    async def _wait(self, turn: Turn) -> Child:
        """The child for a job that has to wait; its operands go ahead to one that is busy."""
        self._waiting.append(turn)
        for child in self._children:
            self._stage_next(child)
        try:
            child = await turn.child
            if turn.staging is not None:
                # It was free sooner than the operands were there.
                await asyncio.wait({turn.staging})
        except BaseException:
            self._unstage(turn)
            if turn in self._waiting:
                self._waiting.remove(turn)
            elif not turn.child.cancelled() and turn.child.exception() is None:
                await self._give_up(turn.child.result())
            raise
        return child

    async def _run_on(
        self, child: Child, turn: Turn, key_source: KeySource, progress: ProgressSink
    ) -> tuple[messages.Computed, Callable[[int], bytes]]:
        """What the child answered, and what copies the result of the length that it says."""
        death = ""
        for turn.tries in range(1, _TRIES + 1):
            try:
                if not turn.was_sent:
                    await child.begin(turn)
                turn.was_sent = False
                self._stage_next(child)
                computed = await child.answer(turn.work, key_source, progress)
                return computed, child.results()
            except ChildDied as died:
                ended = await self._stopped(child)
                death = f"{died}, {ended}"
                logger.warning(
                    "a child died",
                    extra={"job_id": turn.work.job_id, "try": turn.tries, "death": death},
                )
        raise EngineFailed(f"the engine died twice on this job ({death})")

    async def _stopped(self, child: Child) -> str:
        """Stop a child, and take back what was put there for the job after this one."""
        if child.staged is not None:
            self._unstage(child.staged)
        return await child.stop()

    async def _give_up(self, child: Child) -> None:
        """Nobody waits for the child's answer any more.

        After a refusal it owes none. Cancelled, or the key could not be fetched: it waits for the
        rest of a conversation that will not come.
        """
        try:
            if child.owes_answer:
                await self._stopped(child)
        finally:
            self._release(child)

    def _release(self, child: Child) -> None:
        if not child.is_worn_out:
            self._hand_over(child)
            return
        # The result is on its way already; the replacement starts behind its back.
        self._spawn(self._replace(child))

    async def _replace(self, child: Child) -> None:
        try:
            await self._stopped(child)
            await child.start()
        finally:
            self._hand_over(child)

    def _hand_over(self, child: Child) -> None:
        """Give a free child to the job that is staged on it, else to the one that waits longest."""
        staged = [turn for turn in self._waiting if turn.staged_on is child]
        turn = next(iter(staged or [one for one in self._waiting if not one.was_sent]), None)
        if turn is None:
            self._idle.append(child)
            return
        self._waiting.remove(turn)
        if turn.staged_on is not child:
            self._unstage(turn)
        elif turn.ready is not None:
            self._send(turn, child)
            if turn.was_sent:
                child.turn_to(turn.ready)
            child.staged = turn.staged_on = turn.ready = None
        turn.child.set_result(child)

    def _send(self, turn: Turn, child: Child) -> None:
        """Send a job that is staged on the child, unless it was sent ahead."""
        assert turn.ready is not None
        with contextlib.suppress(ChildDied):  # it is found dead by its job, then
            if not turn.was_sent:
                child.send(turn.ready)
            turn.was_sent = True

    def _stage_next(self, child: Child) -> None:
        """Bring the operands of a job that waits to a child that computes."""
        if not child.owes_answer or child.staged is not None:
            return
        unstaged = [turn for turn in self._waiting if turn.staged_on is None and not turn.staging]
        if not unstaged:
            return
        turn = unstaged[0]
        child.staged, turn.staged_on = turn, child
        turn.staging = self._spawn(self._bring(turn, child))
        turn.staging.add_done_callback(partial(self._brought, turn, child))

    async def _bring(self, turn: Turn, child: Child) -> None:
        try:
            turn.ready = await child.place(turn)
        except Exception as error:
            # With a child already, it meets the same error there.
            if turn in self._waiting:
                self._waiting.remove(turn)
                turn.child.set_exception(error)

    def _brought(self, turn: Turn, child: Child, _: "asyncio.Task[None]") -> None:
        turn.staging = None
        is_there = turn.ready is not None and turn.staged_on is child and turn in self._waiting
        if is_there and child.is_quick:
            self._send(turn, child)
        elif child.staged is turn and not is_there:
            child.staged = None
            self._stage_next(child)

    def _unstage(self, turn: Turn) -> None:
        """Take a job's operands back from where they are, or are on their way to."""
        child, turn.staged_on, turn.ready = turn.staged_on, None, None
        if child is not None and turn.was_sent:
            child.is_spoiled, turn.was_sent = True, False
        if turn.staging is not None:
            turn.staging.cancel()  # until it has ended, nobody else's operands go there
        elif child is not None:
            child.staged = None

    def _spawn(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
