"""From a request to a job and, if it ends in time, to its result: what all computations share.

What cannot be computed is refused at once, here or by the decider; the computation itself is a job
that a worker does, and `?wait=` says how long to wait for it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from msgspec import Meta, Struct

from api.fhe.jobs import find_row, problem_of_failure, whole_item
from api.fhe.keys import key_row
from api.fhe.operands import Intake
from api.fhe.storage import discard
from api.live import TooManyListeners
from api.problems import Problem
from api.routing import Answer, Call
from api.subscription import LiveEvent
from commands.fhe.job import STREAM, Input, SubmitJob
from infra.ids import derived_id
from schemas.avro_derivation import tag_of
from schemas.fhe.job import JobCancelled, JobFailed, JobSucceeded, Operation
from schemas.fhe.parameters import PARAMETER_SETS
from schemas.types import EMPTY_JSON, Json

_ENDS = frozenset(tag_of(event) for event in (JobSucceeded, JobFailed, JobCancelled))
# An event is on the log some milliseconds before its row is in the read model.
_ROW_PAUSE_SECONDS, _ROW_TRIES = 0.005, 200


class ComputeQuery(Struct):
    """`wait`: seconds to wait for the result before the answer is 202 and the job goes on."""

    wait: Annotated[int, Meta(ge=0, le=60)] = 10


class Taken(Struct, frozen=True):
    """A request's operands as the decider wants them, and the operation's own arguments."""

    inputs: list[Input]
    arguments: Json = EMPTY_JSON


ComputeCall = Call[Any, ComputeQuery]


async def submit(
    call: ComputeCall,
    key_id: str,
    operation: Operation,
    take: Callable[[Intake], Awaitable[Taken]],
) -> Answer:
    """Have `operation` done under one of the tenant's keys: 200 with the result, else 202.

    take: reads the operands out of the body; it is not called when the request is a repeat.
    Raises Problem: 404 (no such key), what `take` raises, the decider's refusals, 503, and what
    the job's failure means.
    """
    # The same Idempotency-Key is the same job.
    job_id = derived_id("job", call.tenant, call.command_id)
    intake: Intake | None = None
    taken = Taken([])
    known = await find_row(call, job_id) if call.fingerprint else None
    if known is None:
        key = await key_row(call, key_id)
        folder = f"fhe/{call.tenant}/jobs/{job_id}"
        intake = Intake(call.services.objects, folder, PARAMETER_SETS[key["params_id"]])
    try:
        if intake is not None:
            taken = await take(intake)
        command = SubmitJob(key_id, operation, taken.inputs, taken.arguments)
        row = await _submitted(call, job_id, command)
    except Problem as problem:
        # With a key that was used before, the objects may be another request's operands.
        if intake is not None and problem.code != "idempotency_key_reused":
            await discard(call.services.objects, intake.stored)
        raise
    if row["status"] == "failed":
        raise problem_of_failure(row)
    item = await whole_item(call, row)
    return Answer(item, status=202 if item.status == "queued" else 200)


async def _submitted(call: ComputeCall, job_id: str, command: SubmitJob) -> dict[str, Any]:
    """Submit the job and wait for its end, `?wait=` seconds at most; its row as it is then."""
    stream = f"{STREAM}/{job_id}"

    def ends(event: LiveEvent) -> bool:
        return event.type in _ENDS and event.envelope.stream == stream

    if not call.query.wait:
        await call.send(job_id, command)
        return await _row(call, job_id)
    try:
        # Before the command, so that its end cannot be missed.
        subscription = await call.services.live.subscribe(call.tenant, wants=ends)
    except TooManyListeners:
        await call.send(job_id, command)
        return await _row(call, job_id)
    loop = asyncio.get_running_loop()
    async with subscription:
        await call.send(job_id, command)
        row = await _row(call, job_id)
        deadline = loop.time() + call.query.wait
        while row["status"] == "queued" and not subscription.ended:
            left = deadline - loop.time()
            if left <= 0:
                break
            if await subscription.batch(left):
                row = await _row_at_end(call, job_id)
        return row


async def _row_at_end(call: ComputeCall, job_id: str) -> dict[str, Any]:
    for _ in range(_ROW_TRIES):
        row = await _row(call, job_id)
        if row["status"] != "queued":
            break
        await asyncio.sleep(_ROW_PAUSE_SECONDS)
    return row


async def _row(call: ComputeCall, job_id: str) -> dict[str, Any]:
    row = await find_row(call, job_id)
    # The decider answers when the row is there, so a missing one is a bug, not a 404.
    assert row is not None, f"no row of {job_id}"
    return row
