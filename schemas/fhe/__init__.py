"""Encrypted computation: parameter sets, the wire grammar of keys and ciphertexts, and events."""

from msgspec import Struct

from schemas.fhe.evaluation_key import (
    EvaluationKeyDeleted,
    EvaluationKeyErased,
    EvaluationKeyRegistered,
)
from schemas.fhe.job import (
    JobCancelled,
    JobFailed,
    JobProgressed,
    JobSubmitted,
    JobSucceeded,
)
from schemas.fhe.key_upload import (
    KeyPieceReceived,
    KeyUploadAbandoned,
    KeyUploadCompleted,
    KeyUploadOpened,
)

EVENTS: list[type[Struct]] = [
    EvaluationKeyRegistered,
    EvaluationKeyDeleted,
    EvaluationKeyErased,
    KeyUploadOpened,
    KeyPieceReceived,
    KeyUploadCompleted,
    KeyUploadAbandoned,
    JobSubmitted,
    JobSucceeded,
    JobFailed,
    JobCancelled,
    JobProgressed,
]
