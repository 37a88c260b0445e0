"""The parent's side: a fixed number of children, replaced when they die, each job tried twice.

Guarantees: a job ends in a result, in a refusal that would repeat itself, or in `EngineFailed`
after two children died on it; nothing a child does ends the parent. Blocking: `run` waits for a
free child, prefers one that has the key loaded, and is bounded by `wall_seconds_max` per try.
"""

import asyncio
import contextlib
import logging
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Callable, Sequence
from signal import SIGKILL, Signals
from typing import NamedTuple

import msgspec
from msgspec import Struct

from fhe_workers import frames, messages
from fhe_workers.messages import ChildLimits
from fhe_workers.refusals import JobRefused
from fhe_workers.region import Blob, Region, make_region

logger = logging.getLogger(__name__)

# What a child may know of our environment: nothing that opens anything.
_CHILD_ENVIRONMENT = ("PATH", "PYTHONPATH", "LANG", "LC_ALL", "TZ")
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
_TRIES = 2

_decode_answer = msgspec.msgpack.Decoder(messages.Answer).decode

KeySource = Callable[[], Awaitable[list[bytes]]]


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


class _Child:
    """One process and its pipes; started on first use and again after each death."""

    def __init__(self, limits: PoolLimits) -> None:
        self._limits = limits
        self._process: Process | None = None
        self._region: Region | None = None
        self._jobs_done = 0
        self._resident_bytes = 0
        self.keys_seen: set[str] = set()
        self.owes_answer = False

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    @property
    def is_worn_out(self) -> bool:
        """Whether it should be replaced: the engine's memory pool never shrinks."""
        return self._process is not None and (
            self._jobs_done >= self._limits.jobs_per_child_max
            or self._resident_bytes > self._limits.resident_bytes_max
        )

    async def start(self) -> None:
        if self._process is not None:
            return
        environment = {name: os.environ[name] for name in _CHILD_ENVIRONMENT if name in os.environ}
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
                env=environment | _ONE_THREAD,
                pass_fds=[shared],
            )
        finally:
            os.close(shared)
        self._jobs_done, self._resident_bytes = 0, 0
        self.keys_seen = set()
        self.owes_answer = False

    async def stop(self) -> str:
        """Kill the process, wait for its end, and say how it ended."""
        process, self._process = self._process, None
        self.owes_answer = False
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

    async def attempt(
        self, work: messages.Work, operands: Operands, key_source: KeySource
    ) -> tuple[messages.Computed, bytes]:
        """One try; raises `JobRefused`, or `_ChildDied` after which the child must be stopped.

        Whatever else it raises, the child must be stopped only when it still `owes_answer`.
        """
        try:
            await self.start()
        except OSError as error:
            raise _ChildDied(f"did not start: {error}") from None
        assert self._region is not None
        lengths = await _put(self._region, operands)
        work = msgspec.structs.replace(work, operand_bytes=lengths)
        self.owes_answer = True
        answer = await self._ask(work)
        if isinstance(answer, messages.KeyWanted):
            answer = await self._ask(messages.KeyMaterial(), await key_source())
        if isinstance(answer, messages.KeyWanted) or answer.job_id != work.job_id:
            raise _ChildDied("answered another question")
        self.owes_answer = False
        self._jobs_done += 1
        self._resident_bytes = answer.resident_bytes
        self.keys_seen.add(work.key_name)
        if isinstance(answer, messages.Refused):
            raise JobRefused(answer.reason, answer.message)
        try:
            return answer, self._region.take_result(answer.result_bytes)
        except ValueError as error:
            raise _ChildDied(f"gave {error}") from None

    async def _ask(self, request: messages.Request, blobs: Sequence[bytes] = ()) -> messages.Answer:
        try:
            async with asyncio.timeout(self._limits.wall_seconds_max):
                return await self._exchange(request, blobs)
        except TimeoutError:
            raise _ChildDied("took too long") from None
        except (asyncio.IncompleteReadError, OSError) as error:
            raise _ChildDied(type(error).__name__) from None
        except (frames.FrameBroken, msgspec.DecodeError) as error:
            raise _ChildDied(f"broke the protocol: {error}") from None

    async def _exchange(self, request: messages.Request, blobs: Sequence[bytes]) -> messages.Answer:
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        if process.stdin.is_closing():
            # To write now is a RuntimeError in uvloop, and nothing at all in asyncio.
            raise BrokenPipeError
        process.stdin.writelines(frames.pack(msgspec.msgpack.encode(request), blobs))
        await process.stdin.drain()
        message, _ = await frames.read_async(process.stdout)
        answer: messages.Answer = _decode_answer(message)
        return answer


async def _put(region: Region, operands: Operands) -> tuple[int, ...]:
    """Write the operands into the region; returns their lengths."""
    try:
        if not isinstance(operands, InPlace):
            return region.put_operands(operands)
        with region.operand_places(operands.lengths) as places:
            await operands.write(places)
        return operands.lengths
    except ValueError as error:
        raise JobRefused("ciphertext_invalid", str(error)) from None


class Pool:
    """`limits.children` children behind one `run`. Use as an async context manager."""

    def __init__(self, limits: PoolLimits) -> None:
        self._children = [_Child(limits) for _ in range(limits.children)]
        self._idle = list(self._children)
        self._permits = asyncio.Semaphore(limits.children)
        self._replacements: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Pool":
        # One is warm for the first job; the others start when there is work for them.
        await self._children[0].start()
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._replacements:
            task.cancel()
        await asyncio.gather(*self._replacements, return_exceptions=True)
        await asyncio.gather(*(child.stop() for child in self._children))

    @property
    def pids(self) -> list[int]:
        """The process ids of the children that run at this moment."""
        return [child.pid for child in self._children if child.pid is not None]

    async def run(self, work: messages.Work, operands: Operands, key_source: KeySource) -> Result:
        """The result of `work`; `key_source` is asked only when no child has the key loaded.

        Raises `JobRefused` (would fail again), `EngineFailed` (two deaths), and whatever
        `key_source` and operands that write themselves raise. Cancelling kills the child, which is
        how a job is cancelled.
        """
        await self._permits.acquire()
        child = self._pick(work)
        try:
            return await self._run_on(child, work, operands, key_source)
        finally:
            self._give_back(child)

    async def _run_on(
        self, child: _Child, work: messages.Work, operands: Operands, key_source: KeySource
    ) -> Result:
        death = ""
        for number in range(1, _TRIES + 1):
            try:
                computed, data = await child.attempt(work, operands, key_source)
                return Result(data, computed, number)
            except _ChildDied as died:
                ended = await child.stop()
                death = f"{died}, {ended}"
                logger.warning(
                    "a child died", extra={"job_id": work.job_id, "try": number, "death": death}
                )
            finally:
                # Cancelled, or the key could not be fetched: the child waits for the rest of a
                # conversation that will not come.
                if child.owes_answer:
                    await child.stop()
        raise EngineFailed(f"the engine died twice on this job ({death})")

    def _pick(self, work: messages.Work) -> _Child:
        hot = [idle for idle in self._idle if work.key_name in idle.keys_seen]
        warm = [idle for idle in self._idle if idle.pid is not None]
        child = (hot or warm or self._idle)[0]
        self._idle.remove(child)
        return child

    def _give_back(self, child: _Child) -> None:
        if not child.is_worn_out:
            self._idle.append(child)
            self._permits.release()
            return
        # The result is on its way already; the replacement starts behind its back.
        task = asyncio.create_task(self._replace(child))
        self._replacements.add(task)
        task.add_done_callback(self._replacements.discard)

    async def _replace(self, child: _Child) -> None:
        try:
            await child.stop()
            await child.start()
        finally:
            self._idle.append(child)
            self._permits.release()
