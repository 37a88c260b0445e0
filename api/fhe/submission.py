"""From a request to a job and, if it ends in time, to its result: what all computations share.

What cannot be computed is refused at once, here or by the decider; the computation itself is a job
that a worker does, and `?wait=` says how long to wait for it.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from api.fhe.jobs import find_row, problem_of_failure, row_at_end, whole_item
from api.fhe.keys import key_row
from api.fhe.operands import Intake
from api.fhe.storage import discard
from api.live import TooManyListeners
from api.problems import Problem
from api.routing import Answer, Call, answer_of
from api.subscription import LiveEvent, Subscription
from commands.fhe.job_state import STREAM, Input, JobAnswer, ReuseResult, SubmitJob
from infra.ids import derived_id
from schemas.avro_derivation import tag_of
from schemas.fhe.job import JobCancelled, JobFailed, JobSucceeded, Operation
from schemas.fhe.parameters import PARAMETER_SETS
from schemas.types import EMPTY_JSON, Json

_ENDS = frozenset(tag_of(event) for event in (JobSucceeded, JobFailed, JobCancelled))


class ComputeQuery(Struct):
    """`wait`: seconds to wait for the result before the answer is 202 and the job goes on."""

    wait: Annotated[int, Meta(ge=0, le=60)] = 10


class Taken(Struct, frozen=True):
    """A request's operands as the decider wants them, and the operation's own arguments."""

    inputs: list[Input]
    arguments: Json = EMPTY_JSON


ComputeCall = Call[Any, ComputeQuery]


def json_of(arguments: Struct) -> Json:
    """An operation's own arguments as they travel."""
    return msgspec.json.encode(arguments).decode()


async def submit(
    call: ComputeCall,
    key_id: str,
    operation: Operation,
    take: Callable[[Intake], Awaitable[Taken]],
) -> Answer:
    """Have `operation` done under one of the tenant's keys: 200 with the result, else 202.

    take: reads the operands out of the body. Work that was done before is answered with its
    result, work that is on its way is waited for. Raises Problem: 404 (no such key), what `take`
    raises, the decider's refusals, 503, and what the job's failure means.
    """
    key = await key_row(call, key_id)
    request_id = derived_id("req", call.tenant, call.command_id)
    folder = f"fhe/{call.tenant}/jobs/{request_id}"
    intake = Intake(call.services.objects, folder, PARAMETER_SETS[key["params_id"]])
    taken = await take(intake)
    job_id = _job_id(call.tenant, key_id, operation, taken)
    lost_object = ""
    row = await find_row(call, job_id)
    if row is not None and row["status"] == "succeeded":
        item = await whole_item(call, row)
        if item.result is not None and item.result.ciphertext is not None:
            answer = await _reused(call, job_id, request_id)
            return Answer(msgspec.structs.replace(item, cached=answer.is_cached))
        lost_object = row["result"]["object"]
    if row is not None and row["status"] == "queued":
        return await _ended(call, job_id, partial(_reused, call, job_id, request_id))
    command = SubmitJob(key_id, operation, taken.inputs, taken.arguments, request_id, lost_object)
    return await _ended(call, job_id, partial(_submitted, call, job_id, command, intake))


def _job_id(tenant: str, key_id: str, operation: Operation, taken: Taken) -> str:
    """The same for the same work: one operation over the same operands under one key."""
    inputs = [
        (given.stored.kind, given.stored.sha256, given.stored.magnitude)
        if given.stored is not None
        else ("handle", given.source_job_id)
        for given in taken.inputs
    ]
    work = msgspec.json.encode([operation, taken.arguments, inputs]).decode()
    return derived_id("job", tenant, key_id, work)


async def _reused(call: ComputeCall, job_id: str, request_id: str) -> JobAnswer:
    reply = await call.send(job_id, ReuseResult(request_id))
    return answer_of(reply, JobAnswer)


async def _submitted(
    call: ComputeCall, job_id: str, command: SubmitJob, intake: Intake
) -> JobAnswer:
    """Store the operands and submit the job; what is not needed after all is removed."""
    try:
        await intake.store()
        reply = await call.send(job_id, command)
    except Problem as problem:
        # With a key that was used before, the objects may be another request's operands.
        if problem.code != "idempotency_key_reused":
            await discard(call.services.objects, intake.stored)
        raise
    answer = answer_of(reply, JobAnswer)
    # A repeat of the request that has submitted the job has the very operands that it needs.
    needed = (await _row(call, job_id))["status"] == "queued" if reply.replayed else answer.is_new
    if not needed:
        await discard(call.services.objects, intake.stored)
    return answer


async def _ended(
    call: ComputeCall, job_id: str, send: Callable[[], Awaitable[JobAnswer]]
) -> Answer:
    """Send the command and wait for the job's end, as long as the request wants to."""
    wait, applied = _patience(call)
    stream = f"{STREAM}/{job_id}"

    def ends(event: LiveEvent) -> bool:
        return event.type in _ENDS and event.envelope.stream == stream

    async with contextlib.AsyncExitStack() as listening:
        subscription: Subscription | None = None
        if wait:
            # Before the command, so that its end cannot be missed.
            with contextlib.suppress(TooManyListeners):
                subscription = await call.services.live.subscribe(call.tenant, wants=ends)
                await listening.enter_async_context(subscription)
        answer = await send()
        row = await _row(call, job_id)
        if subscription is not None:
            row = await _row_after(call, job_id, subscription, wait, row)
    if row["status"] == "failed":
        raise problem_of_failure(row)
    item = msgspec.structs.replace(await whole_item(call, row), cached=answer.is_cached)
    if item.status != "queued":
        return Answer(item, headers=applied)
    return Answer(item, status=202, headers={**applied, "location": f"/api/v1/jobs/{job_id}"})


async def _row_after(
    call: ComputeCall, job_id: str, subscription: Subscription, wait: int, row: dict[str, Any]
) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait
    while row["status"] == "queued" and not subscription.ended:
        left = deadline - loop.time()
        if left <= 0:
            break
        if await subscription.batch(left):
            row = await row_at_end(call, job_id)
    return row


def _patience(call: ComputeCall) -> tuple[int, dict[str, str]]:
    """How many seconds to wait, and the headers that say which preference decided it.

    `Prefer: respond-async` (RFC 7240) does not wait, `Prefer: respond-async, wait=5` no longer.
    """
    preferences = [
        item.strip().lower()
        for header in call.raw.headers.getlist("prefer")
        for item in header.split(",")
    ]
    if "respond-async" not in preferences:
        return call.query.wait, {}
    given = [item.removeprefix("wait=") for item in preferences if item.startswith("wait=")]
    seconds = int(given[0]) if given and given[0].isascii() and given[0].isdigit() else 0
    return min(seconds, call.query.wait), {"preference-applied": "respond-async"}


async def _row(call: ComputeCall, job_id: str) -> dict[str, Any]:
    row = await find_row(call, job_id)
    # The decider answers when the row is there, so a missing one is a bug, not a 404.
    assert row is not None, f"no row of {job_id}"
    return row
