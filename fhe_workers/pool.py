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
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from signal import SIGKILL, Signals
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from fhe_workers import frames, messages
from fhe_workers.messages import ChildLimits
from fhe_workers.refusals import JobRefused
from fhe_workers.region import SLOTS, Blob, Region, make_region
from infra.sandbox import child_environment
from schemas.fhe.parameters import CIPHERTEXT_BYTES_MAX

logger = logging.getLogger(__name__)

_TRIES = 2
# What takes a child milliseconds: a job behind it is better off than with whoever is free first.
_QUICK = frozenset({"add", "multiply"})

_decode_answer = msgspec.msgpack.Decoder(messages.Answer).decode

KeySource = Callable[[], Awaitable[list[bytes]]]
# What hears how many steps of how many are done, while a long job is computed.
ProgressSink = Callable[[int, int], None]


def _nobody(done: int, total: int) -> None:
    """Nobody wants to know."""


class InPlace(NamedTuple):
    """Operands that are written where the child reads them, once there is a child for the job."""

    lengths: tuple[int, ...]
    write: Callable[[Sequence[memoryview]], Awaitable[None]]


Operands = Sequence[Blob] | InPlace


class PoolLimits(Struct, frozen=True):
    """How many children, and what one job and one child's life may cost."""

    children: int
    child: ChildLimits = ChildLimits()
    cpu_seconds_max: int = 60
    wall_seconds_max: float = 120.0
    jobs_per_child_max: int = 5_000
    resident_bytes_max: int = 1536 * 1024**2


class Result(Struct, frozen=True):
    """A computed ciphertext and what it took."""

    data: bytes
    computed: messages.Computed
    tries: int


class EngineFailed(Exception):
    """Two children died on the same job; a third try is not worth a child."""


class _ChildDied(Exception):
    """The child ended, was killed, or had to be killed, in the middle of a job."""


class _Turn:
    """A job that waits for a child, or has one.

    child: the one that it gets. staged_on: whose free slot its operands are in, or on their way to
    (`staging`); `ready` is the request to send to that child once they are there. was_sent: the
    child has it, and is at it or will be after the one that it is at.
    """

    def __init__(self, work: messages.Work, operands: Operands) -> None:
        self.work, self.operands = work, operands
        self.child: asyncio.Future[_Child] = asyncio.get_running_loop().create_future()
        self.staged_on: _Child | None = None
        self.staging: asyncio.Task[None] | None = None
        self.ready: messages.Work | None = None
        self.was_sent = False
        self.tries = 0


class _Child:
    """One process and its pipes; started on first use and again after each death.

    staged: the job whose operands are in the slot that the process is not at. current: what it is
    at, or was at last. is_spoiled: it has a job that nobody wants any more.
    """

    def __init__(self, limits: PoolLimits) -> None:
        self._limits = limits
        self._process: Process | None = None
        self._region: Region | None = None
        self._current: messages.Work | None = None
        self._jobs_done = 0
        self._resident_bytes = 0
        self.keys_seen: set[str] = set()
        self.owes_answer = self.is_spoiled = False
        self.staged: _Turn | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    @property
    def is_worn_out(self) -> bool:
        """Whether it should be replaced: for one, the engine's memory pool never shrinks."""
        return self._process is not None and (
            self.is_spoiled
            or self._jobs_done >= self._limits.jobs_per_child_max
            or self._resident_bytes > self._limits.resident_bytes_max
        )

    @property
    def is_quick(self) -> bool:
        """Whether it will have answered in milliseconds."""
        work = self._current
        if work is None or not self.owes_answer or self.is_spoiled:
            return False
        is_hot = work.key_name in self.keys_seen or not work.needs_key
        return is_hot and work.operation in _QUICK

    async def start(self) -> None:
        if self._process is not None:
            return
        shared = make_region()
        try:
            self._region = Region(shared)
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "fhe_workers.child",
                msgspec.json.encode(self._limits.child).decode(),
                str(shared),
                stdin=PIPE,
                stdout=PIPE,
                env=child_environment(),
                pass_fds=[shared],
            )
        finally:
            os.close(shared)
        self._jobs_done, self._resident_bytes = 0, 0
        self.keys_seen = set()
        self.owes_answer = self.is_spoiled = False

    async def stop(self) -> str:
        """Kill the process, wait for its end, and say how it ended."""
        process, self._process = self._process, None
        self.owes_answer = self.is_spoiled = False
        if self._region is not None:
            self._region.close()
            self._region = None
        if process is None:
            return "was not running"
        # Not process.kill(): it would reap a child that is dead already, and lose how it died.
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, SIGKILL)
        # Reading to the end lets the transport notice the exit whatever is still in the pipe.
        await process.communicate()
        code = process.returncode
        return f"signal {Signals(-code).name}" if code is not None and code < 0 else f"exit {code}"

    async def place(self, turn: _Turn) -> messages.Work | None:
        """Put a job's operands into the slot that the process is not at.

        Returns the request to send, None when the process ended meanwhile. Raises JobRefused for
        operands that do not fit, and what operands that write themselves raise.
        """
        region, slot = self._region, (self._current.slot + 1) % SLOTS if self._current else 0
        assert region is not None
        operands = turn.operands
        if isinstance(operands, InPlace):
            lengths, write = operands
        else:
            lengths, write = tuple(len(data) for data in operands), partial(_copy, operands)
        try:
            with region.operand_places(slot, lengths) as places:
                await write(places)
        except ValueError as error:
            raise JobRefused("ciphertext_invalid", str(error)) from None
        if region is not self._region:
            return None
        return msgspec.structs.replace(turn.work, operand_bytes=lengths, slot=slot)

    def send(self, work: messages.Work) -> None:
        """Give the process a job whose operands are in place. Raises `_ChildDied`."""
        try:
            self._write(work, ())
        except OSError as error:
            raise _ChildDied(type(error).__name__) from None

    def turn_to(self, work: messages.Work) -> None:
        """Of the jobs that were sent, the process is at this one now."""
        self._current, self.owes_answer = work, True

    async def begin(self, turn: _Turn) -> None:
        """Start the process if need be and give it a job; raises as `place` and `send`."""
        try:
            await self.start()
        except OSError as error:
            raise _ChildDied(f"did not start: {error}") from None
        ready = turn.ready if turn.staged_on is self else None
        turn.staged_on = turn.ready = None
        ready = ready or await self.place(turn)
        if ready is None:
            raise _ChildDied("was stopped")
        self.send(ready)
        self.turn_to(ready)

    async def answer(
        self, work: messages.Work, key_source: KeySource, progress: ProgressSink
    ) -> messages.Computed:
        """What the process answers to the job that it was given; `progress` hears what it tells.

        Raises `JobRefused`, or `_ChildDied` after which the child must be stopped. Whatever else it
        raises, the child must be stopped only when it still `owes_answer`.
        """
        answer = await self._bounded(self._read())
        if isinstance(answer, messages.KeyWanted):
            key = await key_source()
            answer = await self._bounded(self._told(messages.KeyMaterial(), key))
        for _ in range(messages.PROGRESS_MAX):
            if not isinstance(answer, messages.Progressed):
                break
            progress(answer.done, answer.total)
            answer = await self._bounded(self._read())
        if (
            isinstance(answer, messages.KeyWanted | messages.Progressed)
            or answer.job_id != work.job_id
        ):
            raise _ChildDied("answered another question")
        if isinstance(answer, messages.Computed) and not (
            0 < answer.result_bytes <= CIPHERTEXT_BYTES_MAX
        ):
            raise _ChildDied(f"gave a result of {answer.result_bytes} bytes")
        self.owes_answer = False
        self._jobs_done += 1
        self._resident_bytes = answer.resident_bytes
        self.keys_seen.add(work.key_name)
        if isinstance(answer, messages.Refused):
            raise JobRefused(answer.reason, answer.message)
        return answer

    def results(self) -> Callable[[int], bytes]:
        """What copies the result of the job that was answered last, given its length.

        Of use until the process answers again.
        """
        assert self._region is not None and self._current is not None
        return partial(self._region.take_result, self._current.slot)

    async def _bounded(self, talk: Awaitable[messages.Answer]) -> messages.Answer:
        try:
            async with asyncio.timeout(self._limits.wall_seconds_max):
                return await talk
        except TimeoutError:
            raise _ChildDied("took too long") from None
        except (asyncio.IncompleteReadError, OSError) as error:
            raise _ChildDied(type(error).__name__) from None
        except (frames.FrameBroken, msgspec.DecodeError) as error:
            raise _ChildDied(f"broke the protocol: {error}") from None

    async def _told(self, request: messages.Request, blobs: Sequence[bytes]) -> messages.Answer:
        await self._write(request, blobs).drain()
        return await self._read()

    async def _read(self) -> messages.Answer:
        process = self._process
        assert process is not None and process.stdout is not None
        message, _ = await frames.read_async(process.stdout)
        answer: messages.Answer = _decode_answer(message)
        return answer

    def _write(self, request: messages.Request, blobs: Sequence[bytes]) -> asyncio.StreamWriter:
        process = self._process
        assert process is not None and process.stdin is not None
        if process.stdin.is_closing():
            # To write now is a RuntimeError in uvloop, and nothing at all in asyncio.
            raise BrokenPipeError
        process.stdin.writelines(frames.pack(msgspec.msgpack.encode(request), blobs))
        return process.stdin


async def _copy(operands: Sequence[Blob], places: Sequence[memoryview]) -> None:
    for place, data in zip(places, operands, strict=True):
        place[:] = data


class Pool:
    """`limits.children` children behind one `run`. Use as an async context manager."""

    def __init__(self, limits: PoolLimits) -> None:
        self._children = [_Child(limits) for _ in range(limits.children)]
        self._idle = list(self._children)
        self._waiting: list[_Turn] = []
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
        turn = _Turn(work, operands)
        child = self._pick_idle(work) or await self._wait(turn)
        try:
            computed, take = await self._run_on(child, turn, key_source, progress)
        except BaseException:
            await self._give_up(child)
            raise
        # The child has its next job before this thread copies for a while.
        self._release(child)
        return Result(take(computed.result_bytes), computed, turn.tries)

    def _pick_idle(self, work: messages.Work) -> _Child | None:
        if not self._idle:
            return None
        hot = [idle for idle in self._idle if work.key_name in idle.keys_seen]
        warm = [idle for idle in self._idle if idle.pid is not None]
        child = (hot or warm or self._idle)[0]
        self._idle.remove(child)
        return child

    async def _wait(self, turn: _Turn) -> _Child:
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
        self, child: _Child, turn: _Turn, key_source: KeySource, progress: ProgressSink
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
            except _ChildDied as died:
                ended = await self._stopped(child)
                death = f"{died}, {ended}"
                logger.warning(
                    "a child died",
                    extra={"job_id": turn.work.job_id, "try": turn.tries, "death": death},
                )
        raise EngineFailed(f"the engine died twice on this job ({death})")

    async def _stopped(self, child: _Child) -> str:
        """Stop a child, and take back what was put there for the job after this one."""
        if child.staged is not None:
            self._unstage(child.staged)
        return await child.stop()

    async def _give_up(self, child: _Child) -> None:
        """Nobody waits for the child's answer any more.

        After a refusal it owes none. Cancelled, or the key could not be fetched: it waits for the
        rest of a conversation that will not come.
        """
        try:
            if child.owes_answer:
                await self._stopped(child)
        finally:
            self._release(child)

    def _release(self, child: _Child) -> None:
        if not child.is_worn_out:
            self._hand_over(child)
            return
        # The result is on its way already; the replacement starts behind its back.
        self._spawn(self._replace(child))

    async def _replace(self, child: _Child) -> None:
        try:
            await self._stopped(child)
            await child.start()
        finally:
            self._hand_over(child)

    def _hand_over(self, child: _Child) -> None:
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

    def _send(self, turn: _Turn, child: _Child) -> None:
        """Send a job that is staged on the child, unless it was sent ahead."""
        assert turn.ready is not None
        with contextlib.suppress(_ChildDied):  # it is found dead by its job, then
            if not turn.was_sent:
                child.send(turn.ready)
            turn.was_sent = True

    def _stage_next(self, child: _Child) -> None:
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

    async def _bring(self, turn: _Turn, child: _Child) -> None:
        try:
            turn.ready = await child.place(turn)
        except Exception as error:
            # With a child already, it meets the same error there.
            if turn in self._waiting:
                self._waiting.remove(turn)
                turn.child.set_exception(error)

    def _brought(self, turn: _Turn, child: _Child, _: "asyncio.Task[None]") -> None:
        turn.staging = None
        is_there = turn.ready is not None and turn.staged_on is child and turn in self._waiting
        if is_there and child.is_quick:
            self._send(turn, child)
        elif child.staged is turn and not is_there:
            child.staged = None
            self._stage_next(child)

    def _unstage(self, turn: _Turn) -> None:
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
