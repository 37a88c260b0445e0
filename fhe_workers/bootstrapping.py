"""The parent's side of the bootstrapping helper: one process per worker, one job at a time.

An evaluation key of this family is a gigabyte in some two dozen parts, and takes seconds to expand;
so the helper is not one of the pool's children. It is started by the first job, gets the parts of a
key one after another when it has not that key yet, and keeps the last keys that it used. What
`Pool` guarantees holds here, too: a job ends in a result, a refusal that would repeat itself, or
`EngineFailed` after the helper died on it twice.
"""

import asyncio
import contextlib
import logging
import os
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from fhe_workers import frames
from fhe_workers.engines import engine_missing
from fhe_workers.lattigo import ENVIRONMENT, HelperAnswer, HelperRequest
from fhe_workers.messages import Computed, Work
from fhe_workers.pool import EngineFailed, Result
from fhe_workers.refusals import JobRefused
from schemas.fhe.evaluation_key import StoredPart
from schemas.fhe.parameters import CIPHERTEXT_BYTES_MAX, PARAMETER_SETS

logger = logging.getLogger(__name__)

_TRIES = 2
_KEY_WANTED = "key_wanted"

FetchPart = Callable[[StoredPart], Awaitable[bytes]]


class HelperLimits(Struct, frozen=True):
    """What the helper may use. An expanded key takes 2.5 GB, and so does what computes with it."""

    keys: int = 1
    address_space_bytes: int = 8 * 1024**3
    wall_seconds_max: float = 120.0


DEFAULT_LIMITS = HelperLimits()


class _HelperDied(Exception):
    """The helper ended, or had to be killed, in the middle of a job."""


class Bootstrapper:
    """Computes with the sets of Lattigo. Use as an async context manager.

    program: the helper, None when it is not built here. set_name: which set the helper serves.
    """

    def __init__(
        self,
        program: Path | None,
        limits: HelperLimits = DEFAULT_LIMITS,
        *,
        set_name: str = "ckks-boot-n15",
    ) -> None:
        self._program, self._limits, self._set_name = program, limits, set_name
        self._process: Process | None = None
        self._turn = asyncio.Lock()

    async def __aenter__(self) -> "Bootstrapper":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop()

    @property
    def pid(self) -> int | None:
        """Of the helper, while it runs."""
        return self._process.pid if self._process is not None else None

    async def run(
        self, work: Work, operands: Sequence[bytes], parts: Sequence[StoredPart], fetch: FetchPart
    ) -> Result:
        """Do one job; those that come meanwhile wait their turn.

        fetch: gets one part of the key. Raises JobRefused, EngineFailed, and what `fetch` raises.
        """
        if self._program is None:
            raise engine_missing(PARAMETER_SETS[work.params_id])
        death = ""
        async with self._turn:
            for tries in range(1, _TRIES + 1):
                try:
                    return await self._computed(work, operands, parts, fetch, tries)
                except _HelperDied as died:
                    death = f"{died}, {await self._stop()}"
                    logger.warning(
                        "the bootstrapping helper died",
                        extra={"job_id": work.job_id, "try": tries, "death": death},
                    )
                except JobRefused:
                    raise
                except BaseException:
                    # Cancelled, or without the key: the helper waits for what will not come.
                    await self._stop()
                    raise
        raise EngineFailed(f"the engine died twice on this job ({death})")

    async def _computed(
        self,
        work: Work,
        operands: Sequence[bytes],
        parts: Sequence[StoredPart],
        fetch: FetchPart,
        tries: int,
    ) -> Result:
        await self._start()
        request = HelperRequest(do=work.operation, key=work.key_name, kinds=work.operand_kinds)
        was_loaded = True
        answer, results = await self._ask(request, operands)
        if answer.reason == _KEY_WANTED:
            was_loaded = False
            await self._load(work.key_name, parts, fetch)
            answer, results = await self._ask(request, operands)
        if answer.reason:
            raise JobRefused(answer.reason, answer.message)
        if len(results) != 1 or not 0 < len(results[0]) <= CIPHERTEXT_BYTES_MAX:
            raise _HelperDied("gave no result, or a huge one")
        computed = Computed(
            job_id=work.job_id,
            level=answer.level,
            scale=answer.scale,
            cpu_us=answer.cpu_us,
            key_was_loaded=was_loaded,
            resident_bytes=0,
            result_bytes=len(results[0]),
        )
        return Result(results[0], computed, tries)

    async def _load(self, key: str, parts: Sequence[StoredPart], fetch: FetchPart) -> None:
        for part in parts:
            data = await fetch(part)
            request = HelperRequest(do="part", key=key, part=part.kind, sha256=part.sha256)
            await self._told(request, [data])
        await self._told(HelperRequest(do="finish", key=key))

    async def _told(self, request: HelperRequest, blobs: Sequence[bytes] = ()) -> None:
        answer, _ = await self._ask(request, blobs)
        if answer.reason:
            raise JobRefused(answer.reason, answer.message)

    async def _ask(
        self, request: HelperRequest, blobs: Sequence[bytes] = ()
    ) -> tuple[HelperAnswer, list[bytes]]:
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        try:
            async with asyncio.timeout(self._limits.wall_seconds_max):
                if process.stdin.is_closing():
                    raise BrokenPipeError
                process.stdin.writelines(frames.pack(msgspec.json.encode(request), blobs))
                await process.stdin.drain()
                message, results = await frames.read_async(process.stdout)
                return msgspec.json.decode(message, type=HelperAnswer), results
        except TimeoutError:
            raise _HelperDied("took too long") from None
        except (asyncio.IncompleteReadError, OSError) as error:
            raise _HelperDied(type(error).__name__) from None
        except (frames.FrameBroken, msgspec.DecodeError) as error:
            raise _HelperDied(f"broke the protocol: {error}") from None

    async def _start(self) -> None:
        if self._process is not None:
            return
        keys, memory = str(self._limits.keys), str(self._limits.address_space_bytes)
        try:
            self._process = await asyncio.create_subprocess_exec(
                *(str(self._program), "serve", self._set_name, keys, memory),
                stdin=PIPE,
                stdout=PIPE,
                env=ENVIRONMENT,
            )
        except OSError as error:
            raise _HelperDied(f"did not start: {error}") from None

    async def _stop(self) -> str:
        process, self._process = self._process, None
        if process is None:
            return "was not running"
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, 9)
        await process.communicate()
        return f"exit {process.returncode}"
