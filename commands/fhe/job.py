"""A job: submitted, then exactly one of succeeded, failed, cancelled.

A worker may report twice (it runs at least once); the first report counts and the client pays once.
What can be refused is refused here, before any worker is touched: the decider knows the key and
the jobs whose results are operands, and levels follow from the operation.
"""

from collections.abc import Mapping, Sequence
from typing import Any, assert_never

import msgspec

from commands.decider import ClearTimer, Context, Decider, Emit, Ref, SetTimer
from commands.fhe.charges import (
    ACCOUNT,
    CPU_METER,
    OPERATIONS_METER,
    PRICE_METER,
    attempt_name,
    counted,
    freed,
    reuse_ids,
    reused,
    set_aside,
    spent,
    usage_ids,
)
from commands.fhe.evaluation_key import STREAM as KEY_STREAM
from commands.fhe.evaluation_key import EvaluationKey, KeyDeleted, KeyNotFound
from commands.fhe.job_state import (
    STREAM,
    CancelJob,
    CiphertextNotFound,
    ExpireJob,
    Input,
    Job,
    JobAnswer,
    JobCommand,
    JobFinished,
    JobNotFound,
    KeyMismatch,
    RecordJobFailure,
    RecordJobProgress,
    RecordJobResult,
    ReuseResult,
    SubmitJob,
    evolve,
)
from commands.fhe.needs import check_need
from commands.fhe.operations import need_of
from commands.fhe.pricing import Price, price_of
from schemas.billing.account import ReleaseReason
from schemas.billing.usage import STREAM as USAGE_STREAM
from schemas.fhe.job import (
    JobCancelled,
    JobEvent,
    JobFailed,
    JobProgressed,
    JobSubmitted,
    JobSucceeded,
    Operand,
)
from schemas.fhe.parameters import PARAMETER_SETS
from schemas.unions import members

# After this long nobody waits for the result; far more than a worker needs for any queue.
DEADLINE_MICROS = 3_600 * 1_000_000
_DEADLINE = "deadline"


def decide(command: JobCommand, state: Job, context: Context) -> Sequence[JobEvent | Emit]:
    """Raises KeyNotFound, KeyDeleted, CiphertextNotFound, KeyMismatch, UnsupportedOperation,
    KeyMissingPart, LevelExhausted, ValueOverflow, InvalidCommand, BudgetCapReached, QuotaExhausted
    on submission; JobNotFound; JobFinished on cancelling.
    """
    if isinstance(command, SubmitJob):
        if _has_to_be_done(command, state):
            return _accepted(command, state, context)
        return _reused(command.request_id, state, context)
    if state.status == "absent":
        raise JobNotFound("no such job")
    match command:
        case ReuseResult():
            return _reused(command.request_id, state, context)
        case RecordJobProgress(done, total):
            # A job that is tried again begins anew: it is told of once it has got further.
            if state.status != "queued" or done <= state.done:
                return []
            return [JobProgressed(state.key_id, done, total, context.now)]
        case RecordJobResult():
            if state.status != "queued":
                return []
            return [_succeeded(command, state, context), *_usage(command, state, context)]
        case RecordJobFailure():
            if command.attempt != state.attempt:
                return []
            return _failed(state, context, command.reason, command.message)
        case ExpireJob():
            reason, message = "deadline_exceeded", "no worker was free in time"
            return _failed(state, context, reason, message, "expired")
        case CancelJob():
            if state.status == "cancelled":
                return []
            if state.status != "queued":
                raise JobFinished(f"the job has {state.status} already")
            cancelled = JobCancelled(context.stream_id, state.key_id, context.now)
            return [cancelled, *_freed(state, context, "cancelled")]
    assert_never(command)


def _has_to_be_done(command: SubmitJob, state: Job) -> bool:
    """Whether there is no result, nor will be: never asked for, ended without one, or lost it."""
    if state.result is not None:
        return state.result.object == command.lost_object
    return state.status != "queued"


def _reused(request_id: str, state: Job, context: Context) -> Sequence[Emit]:
    """Who joins a job on its way pays nothing."""
    if state.result is None:
        return []
    return reused(request_id, state.operation, state.params_id, state.quantity, context)


def _accepted(command: SubmitJob, state: Job, context: Context) -> Sequence[JobEvent | Emit]:
    """The job, and its price set aside: no worker is touched for what cannot be paid."""
    job = _submitted(command, state, context)
    price = Price(job.price_version, job.price_nanodollars)
    return [job, *set_aside(attempt_name(context.stream_id, job.attempt), price, context)]


def _freed(state: Job, context: Context, reason: ReleaseReason) -> Sequence[Emit]:
    charge_id = attempt_name(context.stream_id, state.attempt)
    return freed(charge_id, state.price_nanodollars, reason, context)


def _submitted(command: SubmitJob, state: Job, context: Context) -> JobSubmitted:
    key: EvaluationKey = context.state(KEY_STREAM, command.key_id)
    if key.was_deleted:
        raise KeyDeleted("the evaluation key was deleted", key_id=command.key_id)
    if not key.is_live:
        raise KeyNotFound("no such evaluation key", key_id=command.key_id)
    operands = [_operand(given, command, context) for given in command.inputs]
    params = PARAMETER_SETS[key.params_id]
    need = need_of(command.operation, operands, command.arguments, params)
    check_need(need, operands, key, params)
    price = price_of(command.operation, key.params_id, need.quantity, context.now)
    return JobSubmitted(
        job_id=context.stream_id,
        key_id=command.key_id,
        params_id=key.params_id,
        operation=command.operation,
        operands=operands,
        key_parts=key.parts,
        own_objects=[given.stored.object for given in command.inputs if given.stored],
        submitted_at=context.now,
        deadline=context.now + DEADLINE_MICROS,
        arguments=command.arguments,
        quantity=need.quantity,
        price_nanodollars=price.amount,
        price_version=price.version,
        attempt=state.attempt + 1,
        request_id=command.request_id,
        magnitude=need.estimate.magnitude,
        error=need.estimate.error,
    )


def _operand(given: Input, command: SubmitJob, context: Context) -> Operand:
    if given.stored is not None:
        return given.stored
    source: Job = context.state(STREAM, given.source_job_id)
    if source.result is None:
        raise CiphertextNotFound("no such ciphertext", job_id=given.source_job_id)
    if source.key_id != command.key_id:
        raise KeyMismatch(
            "the ciphertext belongs to another evaluation key",
            ciphertext_key_id=source.key_id,
            key_id=command.key_id,
        )
    return source.result


def _succeeded(command: RecordJobResult, state: Job, context: Context) -> JobSucceeded:
    return JobSucceeded(
        key_id=state.key_id,
        params_id=state.params_id,
        operation=state.operation,
        result=msgspec.structs.replace(
            command.result, magnitude=state.magnitude, error=state.error
        ),
        error_bound=state.error,
        cpu_us=command.cpu_us,
        tries=command.tries,
        succeeded_at=context.now,
    )


def _usage(command: RecordJobResult, state: Job, context: Context) -> Sequence[Emit]:
    """In the transaction of the result, so that what is delivered is counted and paid, and once."""
    quantities = {
        OPERATIONS_METER: state.quantity,
        CPU_METER: max(1, command.cpu_us),
        PRICE_METER: state.price_nanodollars,
    }
    ids = usage_ids(context.stream_id, command.attempt)
    paid = spent(attempt_name(context.stream_id, state.attempt), state.price_nanodollars, context)
    return [*counted(ids, quantities, context), *paid]


def _failed(
    state: Job, context: Context, reason: str, message: str, released: ReleaseReason = "failed"
) -> Sequence[JobEvent | Emit]:
    if state.status != "queued":
        return []
    failed = JobFailed(state.key_id, reason, message, context.now)
    return [failed, *_freed(state, context, released)]


def _loads(command: JobCommand, stream_id: str) -> Sequence[Ref]:
    if isinstance(command, RecordJobResult):
        ids = usage_ids(stream_id, command.attempt)
        return [ACCOUNT, *(Ref(USAGE_STREAM, usage_id) for usage_id in ids.values())]
    if not isinstance(command, SubmitJob | ReuseResult):
        return [ACCOUNT]
    reuses = reuse_ids(stream_id, command.request_id).values()
    found = [ACCOUNT, *(Ref(USAGE_STREAM, usage_id) for usage_id in reuses)]
    if isinstance(command, ReuseResult):
        return found
    sources = [Ref(STREAM, given.source_job_id) for given in command.inputs if given.source_job_id]
    return [*found, Ref(KEY_STREAM, command.key_id), *sources]


def _timers(event: JobEvent, stream_id: str) -> Sequence[SetTimer | ClearTimer]:
    if isinstance(event, JobSubmitted):
        return [SetTimer(_DEADLINE, event.deadline, ExpireJob())]
    if isinstance(event, JobProgressed):
        return []
    return [ClearTimer(_DEADLINE)]


def _answer(command: JobCommand, state: Job, context: Context) -> JobAnswer:
    asks = isinstance(command, SubmitJob | ReuseResult)
    return JobAnswer(
        job_id=context.stream_id,
        status=state.status,
        key_id=state.key_id,
        params_id=state.params_id,
        operation=state.operation,
        is_new=isinstance(command, SubmitJob)
        and (state.status, state.request_id) == ("queued", command.request_id),
        is_cached=asks and state.status == "succeeded",
    )


def _describe(command: JobCommand) -> Mapping[str, Any]:
    match command:
        case SubmitJob():
            return {"key_id": command.key_id, "operation": command.operation}
        case RecordJobProgress():
            return {"done": command.done, "total": command.total}
        case RecordJobResult():
            return {"cpu_us": command.cpu_us, "tries": command.tries}
        case RecordJobFailure():
            return {"reason": command.reason}
    return {}


INITIAL = Job()
DECIDER: Decider[JobCommand, Job, JobEvent] = Decider(
    stream=STREAM,
    version=2,
    commands=members(JobCommand),
    events=members(JobEvent),
    initial=INITIAL,
    decide=decide,
    evolve=evolve,
    loads=_loads,
    timers=_timers,
    answer=_answer,
    describe=_describe,
)
