"""Events of `fhe.evaluation_key`: what a client lets us compute with. Never a secret key."""

from msgspec import Struct

from schemas.types import Count, Micros, Sha256, Text


class StoredPart(Struct, frozen=True):
    """One part of a key in the object store.

    kind: `relin` or `rotate`. object: its name in the store. rotations: the slot steps to the left
    that a rotation part allows.
    """

    kind: str
    object: str
    sha256: Sha256
    size_bytes: Count
    rotations: list[int] = []


class EvaluationKeyRegistered(Struct, frozen=True, tag="fhe.evaluation_key_registered.v1"):
    """A client's evaluation key was checked, stored, and may be computed with.

    fingerprint: SHA-256 over the parts' hashes, by which the same key is known again.
    """

    key_id: str
    params_id: str
    fingerprint: Sha256
    name: Text
    parts: list[StoredPart]
    registered_at: Micros


class EvaluationKeyDeleted(Struct, frozen=True, tag="fhe.evaluation_key_deleted.v1"):
    """The key will not be computed with any more; a worker erases `objects` when it reads this."""

    key_id: str
    objects: list[str]
    deleted_at: Micros


EvaluationKeyEvent = EvaluationKeyRegistered | EvaluationKeyDeleted
