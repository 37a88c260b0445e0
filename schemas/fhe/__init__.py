"""Encrypted computation: parameter sets, the wire grammar of keys and ciphertexts, and events."""

from msgspec import Struct

from schemas.fhe.evaluation_key import EvaluationKeyEvent
from schemas.fhe.job import JobEvent
from schemas.fhe.key_upload import KeyUploadEvent
from schemas.unions import members

EVENTS: list[type[Struct]] = [
    *members(EvaluationKeyEvent),
    *members(KeyUploadEvent),
    *members(JobEvent),
]
