"""Events of `fhe.key_upload`: a key that is too large for one request, as a manifest of parts."""

from msgspec import Struct

from schemas.fhe.evaluation_key import StoredPart
from schemas.types import Count, Micros, Text


class DeclaredPart(Struct, frozen=True):
    """A part that is to come: what it is, and how many bytes it has."""

    kind: Text
    size_bytes: Count


class KeyUploadOpened(Struct, frozen=True, tag="fhe.key_upload_opened.v1"):
    """A client will send these parts, in any order, each in as many pieces as it likes.

    slot: which of the places that a tenant has for uploads this one takes, from 0.
    """

    params_id: str
    name: Text
    parts: list[DeclaredPart]
    slot: Count
    opened_at: Micros


class KeyPieceReceived(Struct, frozen=True, tag="fhe.key_piece_received.v1"):
    """The next bytes of a part are in the object store.

    part: which of those declared, from 0. pieces: the part's objects so far, in order, which hold
    its first `received_bytes`. stored: the part as one object, once all of it is there and checked.
    """

    part: Count
    pieces: list[str]
    received_bytes: Count
    stored: StoredPart | None
    received_at: Micros


class KeyUploadCompleted(Struct, frozen=True, tag="fhe.key_upload_completed.v1"):
    """All parts are there, and are this key. kept: the objects that belong to it; all others of the
    upload are erased."""

    key_id: str
    kept: list[str]
    slot: Count
    completed_at: Micros


class KeyUploadAbandoned(Struct, frozen=True, tag="fhe.key_upload_abandoned.v1"):
    """There will be no key: its client said so, or said nothing for too long. What came is erased.

    reason: `cancelled` or `expired`.
    """

    reason: str
    slot: Count
    abandoned_at: Micros


KeyUploadEvent = KeyUploadOpened | KeyPieceReceived | KeyUploadCompleted | KeyUploadAbandoned
