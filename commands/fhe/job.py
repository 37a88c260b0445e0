"""A job: submitted, then exactly one of succeeded, failed, cancelled.

A worker may report twice (it runs at least once); the first report counts and the client pays once.
What can be refused is refused here, before any worker is touched: the decider knows the key and
the jobs whose results are operands, and levels follow from the operation.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, assert_never

import msgspec
from msgspec import Struct

from commands.decider import ClearTimer, Context, Decider, Emit, Ref, SetTimer
from commands.fhe.evaluation_key import STREAM as KEY_STREAM
from commands.fhe.evaluation_key import EvaluationKey, KeyDeleted, KeyNotFound
from commands.fhe.operations import Need, need_of
from commands.refusals import AlreadyDone, InvalidCommand, NotFound, Refusal
from schemas.billing.usage import STREAM as USAGE_STREAM
from schemas.billing.usage import UsageRecorded
from schemas.fhe.job import (
    JobCancelled,
    JobEvent,
    JobFailed,
    JobSubmitted,
    JobSucceeded,
    Operand,
    Operation,
)
from schemas.fhe.key_material import RELIN
from schemas.fhe.parameters import PARAMETER_SETS, ParameterSet
from schemas.types import EMPTY_JSON, Count, Json, Text

STREAM = "fhe.job"
# After this long nobody waits for the result; far more than a worker needs for any queue.
DEADLINE_MICROS = 3_600 * 1_000_000
_DEADLINE = "deadline"
# What a computation counts as: one operation, and the processor time that it took.
OPERATIONS_METER, CPU_METER = "fhe.operations", "fhe.cpu_microseconds"


class JobNotFound(NotFound):
    """No such job."""


class CiphertextNotFound(NotFound):
    """No such handle, or its job has no result."""


class KeyMismatch(Refusal):
    """A handle's ciphertext belongs to another evaluation key: computing would give garbage."""

    code = "key_mismatch"


class KeyMissingPart(InvalidCommand):
    """The operation needs a part that the evaluation key does not have."""

    code = "key_missing_part"


class KeyMissingRelin(KeyMissingPart):
    """Ciphertexts cannot be multiplied without a relinearisation key."""

    code = "key_missing_relin"


class LevelExhausted(InvalidCommand):
    """No multiplication is left at the operands' level."""

    code = "level_exhausted"


class JobFinished(AlreadyDone):
    """The job has ended, so that it cannot be cancelled any more."""

    code = "job_finished"


class Input(Struct, frozen=True):
    """An operand as asked for: stored by the gateway, or the result of the job `source_job_id`."""

    stored: Operand | None = None
    source_job_id: str = ""


class SubmitJob(Struct, frozen=True, tag="fhe.submit_job.v1"):
    """Compute `operation` over `inputs` under a key of this tenant."""

    key_id: str
    operation: Operation
    inputs: list[Input]
    arguments: Json = EMPTY_JSON


class RecordJobResult(Struct, frozen=True, tag="fhe.record_job_result.v1"):
    """A worker has computed the job; cpu_us is its processor time in microseconds."""

    result: Operand
    cpu_us: Count
    tries: Count


class RecordJobFailure(Struct, frozen=True, tag="fhe.record_job_failure.v1"):
    """A worker knows that the job has no result."""

    reason: str
    message: Text


class CancelJob(Struct, frozen=True, tag="fhe.cancel_job.v1"):
    """The result is not wanted any more."""


class ExpireJob(Struct, frozen=True, tag="fhe.expire_job.v1"):
    """The deadline has passed."""


JobCommand = SubmitJob | RecordJobResult | RecordJobFailure | CancelJob | ExpireJob
Status = Literal["absent", "queued", "succeeded", "failed", "cancelled"]


class Job(Struct, frozen=True):
    """What later jobs and a worker's report need to know."""

    status: Status = "absent"
    key_id: str = ""
    params_id: str = ""
    operation: Operation = "add"
    result: Operand | None = None
    quantity: int = 1


class JobAnswer(Struct, frozen=True):
    """The job as it stands after the command."""

    job_id: str
    status: Status
    key_id: str
    params_id: str
    operation: Operation


def decide(command: JobCommand, state: Job, context: Context) -> Sequence[JobEvent | Emit]:
    """Raises KeyNotFound, KeyDeleted, CiphertextNotFound, KeyMismatch, UnsupportedOperation,
    KeyMissingPart, LevelExhausted, InvalidCommand on submission; JobNotFound; JobFinished on
    cancelling.
    """
    if isinstance(command, SubmitJob):
        return [] if state.status != "absent" else [_submitted(command, context)]
    if state.status == "absent":
        raise JobNotFound("no such job")
    match command:
        case RecordJobResult():
            if state.status != "queued":
                return []
            return [_succeeded(command, state, context), *_usage(command, state, context)]
        case RecordJobFailure():
            return _failed(state, context, command.reason, command.message)
        case ExpireJob():
            return _failed(state, context, "deadline_exceeded", "no worker was free in time")
        case CancelJob():
            if state.status == "cancelled":
                return []
            if state.status != "queued":
                raise JobFinished(f"the job has {state.status} already")
            return [JobCancelled(context.stream_id, state.key_id, context.now)]
    assert_never(command)


def _submitted(command: SubmitJob, context: Context) -> JobSubmitted:
    key: EvaluationKey = context.state(KEY_STREAM, command.key_id)
    if key.was_deleted:
        raise KeyDeleted("the evaluation key was deleted", key_id=command.key_id)
    if not key.is_live:
        raise KeyNotFound("no such evaluation key", key_id=command.key_id)
    operands = [_operand(given, command, context) for given in command.inputs]
    params = PARAMETER_SETS[key.params_id]
    need = need_of(command.operation, operands, command.arguments, params)
    _check_need(need, operands, key, params)
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


def _check_need(
    need: Need, operands: Sequence[Operand], key: EvaluationKey, params: ParameterSet
) -> None:
    missing = set(need.parts) - key.part_kinds
    if RELIN in missing:
        raise KeyMissingRelin("the evaluation key has no relinearisation part")
    if missing:
        part = min(missing)
        raise KeyMissingPart(f"the evaluation key has no {part} part", part=part)
    if params.depth is not None and need.level > params.depth:
        raise LevelExhausted(
            "no multiplication is left at this level",
            level=max(operand.level for operand in operands),
            depth=params.depth,
        )


def _succeeded(command: RecordJobResult, state: Job, context: Context) -> JobSucceeded:
    return JobSucceeded(
        key_id=state.key_id,
        params_id=state.params_id,
        operation=state.operation,
        result=command.result,
        error_bound=PARAMETER_SETS[state.params_id].error_bound,
        cpu_us=command.cpu_us,
        tries=command.tries,
        succeeded_at=context.now,
    )


def _usage(command: RecordJobResult, state: Job, context: Context) -> Sequence[Emit]:
    """In the transaction of the result, so that what is delivered is counted, and once."""
    quantities = {OPERATIONS_METER: state.quantity, CPU_METER: max(1, command.cpu_us)}
    return [
        Emit(
            USAGE_STREAM,
            usage_id,
            UsageRecorded(
                usage_id=usage_id,
                meter=meter,
                quantity=quantities[meter],
                occurred_at=context.now,
                source="fhe",
                resource=context.stream_id,
            ),
        )
        for meter, usage_id in _usage_ids(context.stream_id).items()
    ]


def _usage_ids(job_id: str) -> Mapping[str, str]:
    return {meter: f"{job_id}.{meter}" for meter in (OPERATIONS_METER, CPU_METER)}


def _failed(state: Job, context: Context, reason: str, message: str) -> Sequence[JobEvent]:
    if state.status != "queued":
        return []
    return [JobFailed(state.key_id, reason, message, context.now)]


def evolve(state: Job, event: JobEvent) -> Job:
    match event:
        case JobSubmitted():
            return Job(
                status="queued",
                key_id=event.key_id,
                params_id=event.params_id,
                operation=event.operation,
                quantity=event.quantity,
            )
        case JobSucceeded():
            return msgspec.structs.replace(state, status="succeeded", result=event.result)
        case JobFailed():
            return msgspec.structs.replace(state, status="failed")
        case JobCancelled():
            return msgspec.structs.replace(state, status="cancelled")
    assert_never(event)


def _loads(command: JobCommand, stream_id: str) -> Sequence[Ref]:
    if isinstance(command, RecordJobResult):
        return [Ref(USAGE_STREAM, usage_id) for usage_id in _usage_ids(stream_id).values()]
    if not isinstance(command, SubmitJob):
        return ()
    sources = [Ref(STREAM, given.source_job_id) for given in command.inputs if given.source_job_id]
    return (Ref(KEY_STREAM, command.key_id), *sources)


def _timers(event: JobEvent, stream_id: str) -> Sequence[SetTimer | ClearTimer]:
    if isinstance(event, JobSubmitted):
        return [SetTimer(_DEADLINE, event.deadline, ExpireJob())]
    return [ClearTimer(_DEADLINE)]


def _answer(command: JobCommand, state: Job, context: Context) -> JobAnswer:
    return JobAnswer(
        context.stream_id, state.status, state.key_id, state.params_id, state.operation
    )


def _describe(command: JobCommand) -> Mapping[str, Any]:
    match command:
        case SubmitJob():
            return {"key_id": command.key_id, "operation": command.operation}
        case RecordJobResult():
            return {"cpu_us": command.cpu_us, "tries": command.tries}
        case RecordJobFailure():
            return {"reason": command.reason}
    return {}


INITIAL = Job()
DECIDER: Decider[JobCommand, Job, JobEvent] = Decider(
    stream=STREAM,
    commands=(SubmitJob, RecordJobResult, RecordJobFailure, CancelJob, ExpireJob),
    events=(JobSubmitted, JobSucceeded, JobFailed, JobCancelled),
    initial=INITIAL,
    decide=decide,
    evolve=evolve,
    loads=_loads,
    timers=_timers,
    answer=_answer,
    describe=_describe,
)
