"""Computing on ciphertexts: `/api/v1/compute/add` and `/multiply`.

What cannot be computed is refused at once, here or by the decider; the computation itself is a job
that a worker does, and `?wait=` says how long to wait for it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from msgspec import Meta, Struct

from api.fhe.jobs import JobItem, find_row, problem_of_failure, whole_item
from api.fhe.keys import key_row
from api.fhe.operands import Intake, OperandBody
from api.fhe.storage import discard
from api.live import TooManyListeners
from api.problems import FHE, Problem
from api.roles import COMPUTERS
from api.routing import Answer, Call, Route, Who
from api.subscription import LiveEvent
from commands.fhe.job import STREAM, Input, SubmitJob
from infra.ids import derived_id
from schemas.avro_derivation import tag_of
from schemas.fhe.job import JobCancelled, JobFailed, JobSucceeded, Operation
from schemas.fhe.parameters import CIPHERTEXT_BYTES_MAX, PARAMETER_SETS
from schemas.types import Text

# Two ciphertexts of the largest size in base64, and the names around them.
BODY_BYTES_MAX = 2 * CIPHERTEXT_BYTES_MAX * 4 // 3 + 64 * 1024

_ENDS = frozenset(tag_of(event) for event in (JobSucceeded, JobFailed, JobCancelled))
# An event is on the log some milliseconds before its row is in the read model.
_ROW_PAUSE_SECONDS, _ROW_TRIES = 0.005, 200


class ComputeBody(Struct):
    """Two operands, the first of them encrypted, under one evaluation key."""

    key_id: Annotated[Text, Meta(max_length=64)]
    operands: Annotated[list[OperandBody], Meta(min_length=2, max_length=2)]


class ComputeQuery(Struct):
    """`wait`: seconds to wait for the result before the answer is 202 and the job goes on."""

    wait: Annotated[int, Meta(ge=0, le=60)] = 10


ComputeCall = Call[ComputeBody, ComputeQuery]


def _computing(operation: Operation) -> Callable[[ComputeCall], Awaitable[Answer]]:
    async def compute(call: ComputeCall) -> Answer:
        # The same Idempotency-Key is the same job.
        job_id = derived_id("job", call.tenant, call.command_id)
        intake: Intake | None = None
        inputs: list[Input] = []
        known = await find_row(call, job_id) if call.fingerprint else None
        if known is None:
            key = await key_row(call, call.body.key_id)
            folder = f"fhe/{call.tenant}/jobs/{job_id}"
            intake = Intake(call.services.objects, folder, PARAMETER_SETS[key["params_id"]])
        try:
            if intake is not None:
                for index, operand in enumerate(call.body.operands):
                    inputs.append(await intake.take(operand, operation, f"operands[{index}]"))
            command = SubmitJob(call.body.key_id, operation, inputs)
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

    return compute


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


def _route(operation: Operation, summary: str, description: str) -> Route:
    return Route(
        "POST",
        f"/api/v1/compute/{operation}",
        _computing(operation),
        dialect=FHE,
        who=Who.SESSION_OR_KEY,
        roles=COMPUTERS,
        tags=("compute",),
        summary=summary,
        description=description,
        query=ComputeQuery,
        body=ComputeBody,
        response=JobItem,
        refusals=(202, 400, 404, 409),
        max_body=BODY_BYTES_MAX,
    )


ROUTES = [
    _route(
        "add",
        "Add two ciphertexts, or values to a ciphertext",
        "At the lower of the two levels; uses no level. 200 with the result, or 202 with the job "
        "when it is not done within `wait` seconds.",
    ),
    _route(
        "multiply",
        "Multiply two ciphertexts, or a ciphertext with values",
        "Relinearised and rescaled: the result is one level below the lower of the two. 200 with "
        "the result, or 202 with the job when it is not done within `wait` seconds.",
    ),
]
