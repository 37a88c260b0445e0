"""Events of `fhe.job`: one computation on ciphertexts under one evaluation key."""

from typing import Literal

from msgspec import Struct

from schemas.fhe.evaluation_key import StoredPart
from schemas.types import EMPTY_JSON, Count, Json, Micros, Sha256, Text

# What may be asked for is the table in commands/fhe/operations.py; the events take any name.
Operation = str
# A ciphertext, or values in the clear (little-endian doubles).
OperandKind = Literal["cipher", "plain"]


class Operand(Struct, frozen=True):
    """One input of a job, in the object store. `level` and `scale` are a ciphertext's.

    level: multiplications that it has behind it. count: ciphertexts in it, one after another.
    """

    kind: OperandKind
    object: str
    sha256: Sha256
    size_bytes: Count
    level: Count = 0
    scale: float = 0.0
    count: Count = 1


class JobSubmitted(Struct, frozen=True, tag="fhe.job_submitted.v1"):
    """A computation was asked for. Copied to `fhe.jobs`: it holds all that a worker needs.

    own_objects: the operands that only this job uses, so that they can go when it is over.
    deadline: when nobody needs the result any more; a job not done by then has failed.
    arguments: the operation's own, as its row of the table of operations reads them.
    quantity: how many operations it is counted as.
    """

    job_id: str
    key_id: str
    params_id: str
    operation: Operation
    operands: list[Operand]
    key_parts: list[StoredPart]
    own_objects: list[str]
    submitted_at: Micros
    deadline: Micros
    arguments: Json = EMPTY_JSON
    quantity: Count = 1


class JobSucceeded(Struct, frozen=True, tag="fhe.job_succeeded.v1"):
    """The result is in the object store under its handle.

    error_bound: what the operation adds at most to the error of values in [-1, 1].
    """

    key_id: str
    params_id: str
    operation: Operation
    result: Operand
    error_bound: float
    cpu_us: Count
    tries: Count
    succeeded_at: Micros


class JobFailed(Struct, frozen=True, tag="fhe.job_failed.v1"):
    """There will be no result; `reason` is stable and part of the API."""

    key_id: str
    reason: str
    message: Text
    failed_at: Micros


class JobCancelled(Struct, frozen=True, tag="fhe.job_cancelled.v1"):
    """The client does not want the result any more. Copied to `fhe.jobs`, to stop a worker."""

    job_id: str
    key_id: str
    cancelled_at: Micros


JobEvent = JobSubmitted | JobSucceeded | JobFailed | JobCancelled
