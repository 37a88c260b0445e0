"""A process for one piece of work on bytes from strangers, or on what nobody else may see.

It has no environment to speak of, no credentials, little memory and little time; it cannot write a
file nor leave a core dump. It gets a request and bytes on its standard input, answers on its
standard output, and ends. Whatever happens in it, the parent lives on.
"""

import asyncio
import contextlib
import ctypes
import os
import resource
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from typing import BinaryIO

import msgspec
from msgspec import Struct

_LENGTH_BYTES = 4
_PR_SET_DUMPABLE = 4
# What a child may know of our environment: nothing that opens anything.
_KEPT = ("PATH", "PYTHONPATH", "LANG", "LC_ALL", "TZ")
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}


class ChildFailed(Exception):
    """The child died, took too long, or answered too much."""


class Limits(Struct, frozen=True):
    """What a child may use."""

    address_space_bytes: int = 2 * 1024**3
    cpu_seconds: int = 30
    wall_seconds: float = 60.0
    answer_bytes: int = 64 * 1024**2


def child_environment() -> dict[str, str]:
    """The environment of a process that works on strangers' bytes, on one thread."""
    return {name: os.environ[name] for name in _KEPT if name in os.environ} | _ONE_THREAD


class Sandbox:
    """Starts children, `at_once` of them; each is `python -m <module>`."""

    def __init__(self, module: str, limits: Limits | None = None, at_once: int = 2) -> None:
        self._module, self._limits = module, limits or Limits()
        self._turn = asyncio.Semaphore(at_once)

    async def ask(self, request: Struct, body: AsyncIterator[bytes] | None = None) -> bytes:
        """The child's whole answer. What `body` raises passes through. Raises ChildFailed."""
        async with self._turn:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", self._module, msgspec.json.encode(self._limits).decode()),
                stdin=PIPE,
                stdout=PIPE,
                env=child_environment(),
            )
            try:
                async with asyncio.timeout(self._limits.wall_seconds):
                    answer = await self._talk(process, request, body)
                    code = await process.wait()
            except TimeoutError:
                raise ChildFailed("it took too long") from None
            finally:
                await _end(process)
        if code != 0:
            raise ChildFailed(f"it ended with {code}")
        return answer

    async def _talk(
        self, process: Process, request: Struct, body: AsyncIterator[bytes] | None
    ) -> bytes:
        telling = asyncio.create_task(_tell(process, request, body))
        answering = asyncio.create_task(self._answer(process))
        try:
            # Should the body fail, the child would wait for the rest of it, and we for its answer.
            await asyncio.wait({telling, answering}, return_when=asyncio.FIRST_EXCEPTION)
            if telling.done():
                telling.result()
            return await answering
        finally:
            telling.cancel()
            answering.cancel()
            await asyncio.gather(telling, answering, return_exceptions=True)

    async def _answer(self, process: Process) -> bytes:
        assert process.stdout is not None
        parts, size = [], 0
        while part := await process.stdout.read(1 << 20):
            size += len(part)
            if size > self._limits.answer_bytes:
                raise ChildFailed("it answered too much")
            parts.append(part)
        return b"".join(parts)


async def _tell(process: Process, request: Struct, body: AsyncIterator[bytes] | None) -> None:
    data = msgspec.json.encode(request)
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(len(data).to_bytes(_LENGTH_BYTES) + data)
        if body is not None:
            async for chunk in body:
                process.stdin.write(chunk)
                await process.stdin.drain()
        process.stdin.close()


async def _end(process: Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


# In the child.


def confine(limits: Limits) -> None:
    """Limit this process for good, before it reads a byte."""
    space, seconds = limits.address_space_bytes, limits.cpu_seconds
    resource.setrlimit(resource.RLIMIT_AS, (space, space))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    forbid_core_dumps()


def forbid_core_dumps() -> None:
    """What this process holds in memory is never written to a disk when it dies."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        # Not even to a program that the kernel pipes core dumps to, which no limit binds.
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def answering() -> BinaryIO:
    """Where to answer; from now on a library that prints does so to standard error."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return answers


def request_of(stream: BinaryIO) -> bytes:
    """The request; what is left of the stream is the body."""
    return stream.read(int.from_bytes(stream.read(_LENGTH_BYTES)))


def packed(parts: Mapping[str, bytes]) -> bytes:
    """Named parts as one answer."""
    head = msgspec.json.encode({name: len(data) for name, data in parts.items()})
    return b"".join([len(head).to_bytes(_LENGTH_BYTES), head, *parts.values()])


def unpacked(answer: bytes) -> dict[str, memoryview]:
    """The named parts of an answer. Raises ChildFailed when it is none."""
    at = _LENGTH_BYTES + int.from_bytes(answer[:_LENGTH_BYTES])
    try:
        lengths = msgspec.json.decode(answer[_LENGTH_BYTES:at], type=dict[str, int])
    except msgspec.DecodeError:
        raise ChildFailed("its answer cannot be read") from None
    if any(length < 0 for length in lengths.values()) or at + sum(lengths.values()) != len(answer):
        raise ChildFailed("its answer is not as long as it says")
    found: dict[str, memoryview] = {}
    for name, length in lengths.items():
        found[name] = memoryview(answer)[at : at + length]
        at += length
    return found
