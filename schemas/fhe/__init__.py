"""Encrypted computation: parameter sets, the wire grammar of keys and ciphertexts, and events."""

from msgspec import Struct

from schemas.fhe.evaluation_key import EvaluationKeyDeleted, EvaluationKeyRegistered
from schemas.fhe.job import (
    JobCancelled,
    JobFailed,
    JobProgressed,
    JobSubmitted,
    JobSucceeded,
)

EVENTS: list[type[Struct]] = [
    EvaluationKeyRegistered,
    EvaluationKeyDeleted,
    JobSubmitted,
    JobSucceeded,
    JobFailed,
    JobCancelled,
    JobProgressed,
]
