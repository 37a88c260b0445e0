"""One child as its parent sees it: a process, its pipes, and the memory shared with it."""

import asyncio
import contextlib
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from signal import SIGKILL, Signals
from typing import NamedTuple

import msgspec
from msgspec import Struct

from fhe_workers import frames, messages
from fhe_workers.messages import ChildLimits
from fhe_workers.refusals import JobRefused
from fhe_workers.region import SLOTS, Blob, Region, make_region
from infra.sandbox import child_environment
from schemas.fhe.parameters import CIPHERTEXT_BYTES_MAX

# What takes a child milliseconds: a job behind it is better off than with whoever is free first.
_QUICK = frozenset({"add", "multiply"})

_decode_answer = msgspec.msgpack.Decoder(messages.Answer).decode

KeySource = Callable[[], Awaitable[list[bytes]]]
# What hears how many steps of how many are done, while a long job is computed.
ProgressSink = Callable[[int, int], None]


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


class ChildDied(Exception):
    """The child ended, was killed, or had to be killed, in the middle of a job."""


class Turn:
    """A job that waits for a child, or has one.

    child: the one that it gets. staged_on: whose free slot its operands are in, or on their way to
    (`staging`); `ready` is the request to send to that child once they are there. was_sent: the
    child has it, and is at it or will be after the one that it is at.
    """

    def __init__(self, work: messages.Work, operands: Operands) -> None:
        self.work, self.operands = work, operands
        self.child: asyncio.Future[Child] = asyncio.get_running_loop().create_future()
        self.staged_on: Child | None = None
        self.staging: asyncio.Task[None] | None = None
        self.ready: messages.Work | None = None
        self.was_sent = False
        self.tries = 0


class Child:
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
        self.staged: Turn | None = None

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

    async def place(self, turn: Turn) -> messages.Work | None:
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
        """Give the process a job whose operands are in place. Raises `ChildDied`."""
        try:
            self._write(work, ())
        except OSError as error:
            raise ChildDied(type(error).__name__) from None

    def turn_to(self, work: messages.Work) -> None:
        """Of the jobs that were sent, the process is at this one now."""
        self._current, self.owes_answer = work, True

    async def begin(self, turn: Turn) -> None:
        """Start the process if need be and give it a job; raises as `place` and `send`."""
        try:
            await self.start()
        except OSError as error:
            raise ChildDied(f"did not start: {error}") from None
        ready = turn.ready if turn.staged_on is self else None
        turn.staged_on = turn.ready = None
        ready = ready or await self.place(turn)
        if ready is None:
            raise ChildDied("was stopped")
        self.send(ready)
        self.turn_to(ready)

    async def answer(
        self, work: messages.Work, key_source: KeySource, progress: ProgressSink
    ) -> messages.Computed:
        """What the process answers to the job that it was given; `progress` hears what it tells.

        Raises `JobRefused`, or `ChildDied` after which the child must be stopped. Whatever else it
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
            raise ChildDied("answered another question")
        if isinstance(answer, messages.Computed) and not (
            0 < answer.result_bytes <= CIPHERTEXT_BYTES_MAX
        ):
            raise ChildDied(f"gave a result of {answer.result_bytes} bytes")
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
            raise ChildDied("took too long") from None
        except (asyncio.IncompleteReadError, OSError) as error:
            raise ChildDied(type(error).__name__) from None
        except (frames.FrameBroken, msgspec.DecodeError) as error:
            raise ChildDied(f"broke the protocol: {error}") from None

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
