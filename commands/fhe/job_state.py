"""Commands, refusals and state of `fhe.job`, and how its events fold."""

from typing import Literal, assert_never

import msgspec
from msgspec import Struct

from commands.refusals import AlreadyDone, NotFound, Refusal
from schemas.fhe.job import (
    JobCancelled,
    JobEvent,
    JobFailed,
    JobProgressed,
    JobSubmitted,
    JobSucceeded,
    Operand,
    Operation,
)
from schemas.types import EMPTY_JSON, Count, Json, Text

STREAM = "fhe.job"


class JobNotFound(NotFound):
    """No such job."""


class CiphertextNotFound(NotFound):
    """No such handle, or its job has no result."""


class KeyMismatch(Refusal):
    """A handle's ciphertext belongs to another evaluation key: computing would give garbage."""

    code = "key_mismatch"


class JobFinished(AlreadyDone):
    """The job has ended, so that it cannot be cancelled any more."""

    code = "job_finished"


class Input(Struct, frozen=True):
    """An operand as asked for: stored by the gateway, or the result of the job `source_job_id`."""

    stored: Operand | None = None
    source_job_id: str = ""


class SubmitJob(Struct, frozen=True, tag="fhe.submit_job.v1"):
    """Compute `operation` over `inputs` under a key of this tenant.

    The stream is named by all of these, so the same work is the same stream, and is done once.
    request_id: names the request. lost_object: the name of the result, when the store has lost it.
    """

    key_id: str
    operation: Operation
    inputs: list[Input]
    arguments: Json = EMPTY_JSON
    request_id: str = ""
    lost_object: str = ""


class ReuseResult(Struct, frozen=True, tag="fhe.reuse_result.v1"):
    """A request asks for work that is done, or on its way, already."""

    request_id: str


class RecordJobProgress(Struct, frozen=True, tag="fhe.record_job_progress.v1"):
    """A worker has computed `done` of the job's `total` gates."""

    done: Count
    total: Count


class RecordJobResult(Struct, frozen=True, tag="fhe.record_job_result.v1"):
    """A worker has computed the job; cpu_us is its processor time in microseconds."""

    result: Operand
    cpu_us: Count
    tries: Count
    attempt: Count = 1


class RecordJobFailure(Struct, frozen=True, tag="fhe.record_job_failure.v1"):
    """A worker knows that the job has no result."""

    reason: str
    message: Text
    attempt: Count = 1


class CancelJob(Struct, frozen=True, tag="fhe.cancel_job.v1"):
    """The result is not wanted any more."""


class ExpireJob(Struct, frozen=True, tag="fhe.expire_job.v1"):
    """The deadline has passed."""


JobCommand = (
    SubmitJob
    | ReuseResult
    | RecordJobProgress
    | RecordJobResult
    | RecordJobFailure
    | CancelJob
    | ExpireJob
)
Status = Literal["absent", "queued", "succeeded", "failed", "cancelled"]


class Job(Struct, frozen=True):
    """What later jobs and a worker's report need to know."""

    status: Status = "absent"
    key_id: str = ""
    params_id: str = ""
    operation: Operation = "add"
    result: Operand | None = None
    quantity: int = 1
    price_nanodollars: int = 0
    attempt: int = 0
    request_id: str = ""
    magnitude: float = 1.0
    error: float = 0.0
    done: int = 0


class JobAnswer(Struct, frozen=True):
    """The job as it stands after the command.

    is_new: this very request has submitted it. is_cached: the result was there already.
    """

    job_id: str
    status: Status
    key_id: str
    params_id: str
    operation: Operation
    is_new: bool = False
    is_cached: bool = False


def evolve(state: Job, event: JobEvent) -> Job:
    match event:
        case JobSubmitted():
            return Job(
                status="queued",
                key_id=event.key_id,
                params_id=event.params_id,
                operation=event.operation,
                quantity=event.quantity,
                price_nanodollars=event.price_nanodollars,
                attempt=event.attempt,
                request_id=event.request_id,
                magnitude=event.magnitude,
                error=event.error,
            )
        case JobProgressed():
            return msgspec.structs.replace(state, done=event.done)
        case JobSucceeded():
            return msgspec.structs.replace(state, status="succeeded", result=event.result)
        case JobFailed():
            return msgspec.structs.replace(state, status="failed")
        case JobCancelled():
            return msgspec.structs.replace(state, status="cancelled")
    assert_never(event)
