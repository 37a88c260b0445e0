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

    fingerprint: SHA-256 over the parts' hashes, by which the same key is known again. generated:
    whether we made it, so that its secret key was in our memory once. is_counted: whether it takes
    one of the plan's places; keys from before there were any take none.
    """

    key_id: str
    params_id: str
    fingerprint: Sha256
    name: Text
    parts: list[StoredPart]
    registered_at: Micros
    generated: bool = False
    is_counted: bool = False


class EvaluationKeyDeleted(Struct, frozen=True, tag="fhe.evaluation_key_deleted.v1"):
    """The key will not be computed with any more, and its `objects` are being erased."""

    key_id: str
    objects: list[str]
    deleted_at: Micros


class EvaluationKeyErased(Struct, frozen=True, tag="fhe.evaluation_key_erased.v1"):
    """The receipt of a deletion: nothing of the key's bytes is in the object store any more.

    deleted_at: which deletion it is the receipt of. objects: how many were erased.
    """

    key_id: str
    objects: Count
    deleted_at: Micros
    erased_at: Micros


EvaluationKeyEvent = EvaluationKeyRegistered | EvaluationKeyDeleted | EvaluationKeyErased
