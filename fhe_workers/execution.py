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

from commands.fhe.job_state import RecordJobFailure, RecordJobProgress, RecordJobResult
from commands.fhe.operations import need_of
from fhe_workers.bootstrapping import Bootstrapper
from fhe_workers.child_process import InPlace, Operands
from fhe_workers.messages import Work
from fhe_workers.pool import EngineFailed, Pool, Result
from fhe_workers.refusals import JobRefused
from fhe_workers.reporting import Reporter, Reports
from infra.clock import Clock
from infra.ids import command_id
from infra.kafka import LogUnavailable
from infra.objects import ObjectCorrupt, ObjectMissing, Objects, ObjectsUnavailable
from schemas.envelope import SYSTEM, Envelope
from schemas.fhe.evaluation_key import StoredPart
from schemas.fhe.job import JobSubmitted, Operand
from schemas.fhe.parameters import LATTIGO, PARAMETER_SETS
from streams.bus import CommandRequest

logger = logging.getLogger(__name__)

T = TypeVar("T")

ENGINE_FAILURE = "engine_failure"
INTERNAL_ERROR = "internal_error"
_CPU_SECONDS_MAX = 60
# A bootstrapped gate takes 20 ms, or 35 ms when it chooses: so many to a second are allowed for.
_OPERATIONS_PER_SECOND = 10
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.1, 5.0
# All reports of an attempt have one command id and one fingerprint: the second is a repeat.
_OUTCOME = "fhe.outcome"
_PROGRESS = "fhe.progress"


class Execution:
    """Carries jobs out; one per worker."""

    def __init__(
        self,
        *,
        pool: Pool,
        objects: Objects,
        reports: Reports,
        clock: Clock,
        bootstrapper: Bootstrapper,
    ) -> None:
        self._pool, self._objects, self._clock = pool, objects, clock
        self._bootstrapper = bootstrapper
        self._reports, self._telling = reports, set[asyncio.Task[None]]()
        self._reporter = Reporter(reports)

    def is_long(self, job: JobSubmitted) -> bool:
        """Whether the job takes seconds and waits for the one helper, so that others go past it."""
        return PARAMETER_SETS[job.params_id].engine == LATTIGO

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
            result = await self._compute(envelope, job)
            # The child has its next job before this thread hashes and writes for a while.
            await asyncio.sleep(0)
            report: Struct = await self._stored(envelope, job, result)
        except (JobRefused, EngineFailed, ObjectMissing, ObjectCorrupt) as error:
            report = _failure(error, job)
            failure = report.reason
        except Exception:
            # A bug of ours: the job has failed, but its partition goes on.
            logger.exception("a job failed", extra={"job_id": job.job_id})
            message = "the job could not be carried out"
            report = RecordJobFailure(INTERNAL_ERROR, message, job.attempt)
            failure = report.reason
        await self._report(envelope, report, job.attempt)
        return failure

    async def erase(self, objects: list[str]) -> None:
        """Remove objects that nobody needs any more; repeats until the store has done it."""
        for name in objects:
            await until_answered(partial(self._objects.delete, name))

    async def _compute(self, envelope: Envelope, job: JobSubmitted) -> Result:
        async def fetch_key() -> list[bytes]:
            return list(await asyncio.gather(*map(self._part, job.key_parts)))

        work = work_of(job)

        async def run() -> Result:
            operands = await self._operands(job.operands)
            return await self._pool.run(
                work, operands, fetch_key, partial(self._tell, envelope, job.attempt)
            )

        async def refresh() -> Result:
            views = [
                self._objects.get(one.object, size=one.size_bytes, digest=one.sha256)
                for one in job.operands
            ]
            operands = await asyncio.gather(*views)
            return await self._bootstrapper.run(work, operands, job.key_parts, self._part)

        return await until_answered(refresh if self.is_long(job) else run)

    async def _part(self, part: StoredPart) -> bytes:
        return await self._objects.get(part.object, size=part.size_bytes, digest=part.sha256)

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
        return RecordJobResult(operand, result.computed.cpu_us, result.tries, job.attempt)

    def _tell(self, envelope: Envelope, attempt: int, done: int, total: int) -> None:
        """Let the client know how far the job is, if the log is there: nothing waits for it."""
        request = _request(
            envelope, RecordJobProgress(done, total), f"{_PROGRESS}.{attempt}.{done}"
        )
        task = asyncio.create_task(self._told(request))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _told(self, request: CommandRequest) -> None:
        try:
            await self._reports.post_many([request])
        except LogUnavailable as error:
            logger.info("progress is not told", extra={"error": str(error)})

    async def _report(self, envelope: Envelope, report: Struct, attempt: int) -> None:
        request = _request(envelope, report, f"{_OUTCOME}.{attempt}")
        await until_answered(lambda: self._reporter.post(request))


def _request(envelope: Envelope, command: Struct, scope: str) -> CommandRequest:
    """A command to the job; the same `scope` again is a repeat."""
    return CommandRequest(
        tenant=envelope.tenant,
        stream_id=envelope.stream_id,
        command=command,
        actor=SYSTEM,
        command_id=command_id(envelope.tenant, envelope.stream_id, scope=scope),
        fingerprint=scope,
        correlation_id=envelope.correlation_id,
    )


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
        cpu_seconds_max=_CPU_SECONDS_MAX + need.quantity // _OPERATIONS_PER_SECOND,
        needs_key=bool(need.parts),
        arguments=job.arguments,
        level=need.level,
        counts=tuple(operand.count for operand in job.operands),
    )


def _failure(error: Exception, job: JobSubmitted) -> RecordJobFailure:
    match error:
        case JobRefused():
            reason, message = error.reason, error.message
        case EngineFailed():
            reason, message = ENGINE_FAILURE, str(error)
        case ObjectMissing():
            reason, message = "input_missing", "an operand or the key was erased"
        case _:
            reason, message = "input_corrupt", "an operand or the key was altered in the store"
    return RecordJobFailure(reason, message, job.attempt)


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
