"""One job from its record to its outcome on the log: fetch, compute, store, report.

At least once, with one effect: everything here may run again after a crash. Objects are named by
what made them, the report has a command id made from the job's id, and the decider counts the
first one.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from hashlib import sha256
from typing import TypeVar

from msgspec import Struct

from commands.fhe.job import RecordJobFailure, RecordJobResult
from commands.fhe.operations import need_of
from fhe_workers.messages import Work
from fhe_workers.pool import EngineFailed, InPlace, Operands, Pool, Result
from fhe_workers.refusals import JobRefused
from fhe_workers.reporting import Reporter, Reports
from infra.clock import Clock
from infra.ids import command_id
from infra.kafka import LogUnavailable
from infra.objects import ObjectCorrupt, ObjectMissing, Objects, ObjectsUnavailable
from schemas.envelope import SYSTEM, Envelope
from schemas.fhe.job import JobSubmitted, Operand
from schemas.fhe.parameters import PARAMETER_SETS
from streams.bus import CommandRequest

logger = logging.getLogger(__name__)

T = TypeVar("T")

ENGINE_FAILURE = "engine_failure"
INTERNAL_ERROR = "internal_error"
_CPU_SECONDS_MAX = 60
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.1, 5.0
# Both reports of a job have one command id and one fingerprint: the second is a repeat.
_OUTCOME = "fhe.outcome"


class Execution:
    """Carries jobs out; one per worker."""

    def __init__(self, *, pool: Pool, objects: Objects, reports: Reports, clock: Clock) -> None:
        self._pool, self._objects, self._clock = pool, objects, clock
        self._reporter = Reporter(reports)

    async def carry_out(self, envelope: Envelope, job: JobSubmitted) -> str:
        """Compute the job and report; returns the reason when it failed, else an empty string.

        Returns only when the report is on the log (or the deadline has passed: the decider's own
        timer ends such a job). Waits as long as the log or the object store are away.
        """
        if self._clock.now() >= job.deadline:
            return "deadline_exceeded"
        with self._reporter.expecting():
            failure = await self._carried_out(envelope, job)
        await self.erase(job.own_objects)
        return failure

    async def _carried_out(self, envelope: Envelope, job: JobSubmitted) -> str:
        failure = ""
        try:
            result = await self._compute(job)
            # The child has its next job before this thread hashes and writes for a while.
            await asyncio.sleep(0)
            report: Struct = await self._stored(envelope, job, result)
        except (JobRefused, EngineFailed, ObjectMissing, ObjectCorrupt) as error:
            report = _failure(error)
            failure = report.reason
        except Exception:
            # A bug of ours: the job has failed, but its partition goes on.
            logger.exception("a job failed", extra={"job_id": job.job_id})
            report = RecordJobFailure(INTERNAL_ERROR, "the job could not be carried out")
            failure = report.reason
        await self._report(envelope, report)
        return failure

    async def erase(self, objects: list[str]) -> None:
        """Remove objects that nobody needs any more; repeats until the store has done it."""
        for name in objects:
            await until_answered(partial(self._objects.delete, name))

    async def _compute(self, job: JobSubmitted) -> Result:
        async def fetch_key() -> list[bytes]:
            parts = [
                self._objects.get(part.object, size=part.size_bytes, digest=part.sha256)
                for part in job.key_parts
            ]
            return list(await asyncio.gather(*parts))

        work = work_of(job)

        async def run() -> Result:
            return await self._pool.run(work, await self._operands(job.operands), fetch_key)

        return await until_answered(run)

    async def _operands(self, operands: Sequence[Operand]) -> Operands:
        """The operands, or how to get them once a child waits for them.

        From afar they are fetched while the children are still busy with other jobs. They are not
        hashed again: it would cost a tenth of the multiplication, and the engine checks every
        coefficient anyway. Keys, which live long and are loaded seldom, are hashed.
        """
        if not self._objects.in_place:
            fetched = (self._objects.view(item.object, size=item.size_bytes) for item in operands)
            return list(await asyncio.gather(*fetched))

        async def write(places: Sequence[memoryview]) -> None:
            for operand, place in zip(operands, places, strict=True):
                await self._objects.fill(operand.object, place)

        return InPlace(tuple(operand.size_bytes for operand in operands), write)

    async def _stored(
        self, envelope: Envelope, job: JobSubmitted, result: Result
    ) -> RecordJobResult:
        digest = sha256(result.data).hexdigest()
        name = f"fhe/{envelope.tenant}/results/{job.job_id}.{digest}"
        await until_answered(lambda: self._objects.put(name, result.data))
        operand = Operand(
            kind="cipher",
            object=name,
            sha256=digest,
            size_bytes=len(result.data),
            level=result.computed.level,
            scale=result.computed.scale,
            count=result.computed.count,
        )
        return RecordJobResult(operand, result.computed.cpu_us, result.tries)

    async def _report(self, envelope: Envelope, report: Struct) -> None:
        request = CommandRequest(
            tenant=envelope.tenant,
            stream_id=envelope.stream_id,
            command=report,
            actor=SYSTEM,
            command_id=command_id(envelope.tenant, envelope.stream_id, scope=_OUTCOME),
            fingerprint=_OUTCOME,
            correlation_id=envelope.correlation_id,
        )
        await until_answered(lambda: self._reporter.post(request))


def work_of(job: JobSubmitted) -> Work:
    """What a child is told of a job."""
    params = PARAMETER_SETS[job.params_id]
    need = need_of(job.operation, job.operands, job.arguments, params)
    return Work(
        job_id=job.job_id,
        operation=job.operation,
        params_id=job.params_id,
        # The objects' names change when the key is uploaded anew, its id does not.
        key_name="+".join(part.object for part in job.key_parts),
        operand_kinds=tuple(operand.kind for operand in job.operands),
        cpu_seconds_max=_CPU_SECONDS_MAX,
        needs_key=bool(need.parts),
        arguments=job.arguments,
        level=need.level,
        counts=tuple(operand.count for operand in job.operands),
    )


def _failure(error: Exception) -> RecordJobFailure:
    match error:
        case JobRefused():
            return RecordJobFailure(error.reason, error.message)
        case EngineFailed():
            return RecordJobFailure(ENGINE_FAILURE, str(error))
        case ObjectMissing():
            return RecordJobFailure("input_missing", "an operand or the key was erased")
    return RecordJobFailure("input_corrupt", "an operand or the key was altered in the store")


async def until_answered(call: Callable[[], Awaitable[T]]) -> T:
    """Repeat `call` while the log or the object store is away, with growing pauses."""
    pause = _FIRST_PAUSE_SECONDS
    while True:
        try:
            return await call()
        except (ObjectsUnavailable, LogUnavailable) as error:
            logger.warning("a server is away, trying again", extra={"error": str(error)})
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
