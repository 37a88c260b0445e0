"""A key that is too large for one request: opened with its parts, sent piece by piece, completed.

An upload that nobody goes on with is abandoned by a timer. The key appears in the decision that
completes the upload, so that its objects belong to one of the two at any time.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, assert_never

import msgspec
from msgspec import Struct

from commands.decider import (
    Claim,
    ClearTimer,
    Context,
    Decider,
    Emit,
    Lookup,
    Ref,
    Release,
    SetTimer,
)
from commands.fhe import evaluation_key
from commands.fhe.charges import ACCOUNT
from commands.fhe.evaluation_key import STREAM as KEY_STREAM
from commands.fhe.evaluation_key import EvaluationKey
from commands.refusals import ActorForbidden, AlreadyDone, InvalidCommand, NotFound
from schemas.fhe.evaluation_key import StoredPart
from schemas.fhe.key_upload import (
    DeclaredPart,
    KeyPieceReceived,
    KeyUploadAbandoned,
    KeyUploadCompleted,
    KeyUploadEvent,
    KeyUploadOpened,
)
from schemas.fhe.parameters import KEY_BYTES_MAX, PARAMETER_SETS
from schemas.types import Count, Sha256, Text
from schemas.unions import members

STREAM = "fhe.key_upload"
UPLOADS_MAX = 3
"""Of a tenant at a time."""
PARTS_MAX, PIECES_MAX = 64, 64
"""Of an upload, and of a part of it."""
KEY_TOTAL_BYTES_MAX = 1_500_000_000
PATIENCE_MICROS = 24 * 3_600 * 1_000_000
"""So long after the last piece an upload is abandoned."""
_SLOTS = "fhe.key_upload_slot"
_EXPIRY = "expiry"


class KeyUploadNotFound(NotFound):
    """The tenant has no such upload, or it was abandoned."""


class KeyUploadsExhausted(AlreadyDone):
    """The tenant has as many uploads under way as it may have."""


class KeyUploadEnded(AlreadyDone):
    """The upload is complete."""


class OffsetMismatch(AlreadyDone):
    """The piece does not begin where the part ends so far."""

    code = "offset_mismatch"


class PartMissing(AlreadyDone):
    """Not all of the upload is there yet."""

    code = "part_missing"


class HashMismatch(InvalidCommand):
    """A part is not what its client says it is."""

    code = "hash_mismatch"


class OpenKeyUpload(Struct, frozen=True, tag="fhe.open_key_upload.v1"):
    """Begin to upload a key of these parts."""

    params_id: str
    name: Text
    parts: list[DeclaredPart]


class RecordKeyPiece(Struct, frozen=True, tag="fhe.record_key_piece.v1"):
    """A piece of a part is stored. offset: where in the part it begins; 0 begins the part anew.

    stored: the part as one object, checked, when this is its last piece.
    """

    part: Count
    offset: Count
    size_bytes: Count
    object: str
    stored: StoredPart | None = None


class CompleteKeyUpload(Struct, frozen=True, tag="fhe.complete_key_upload.v1"):
    """The parts have these hashes, in order; together they are the key `key_id`."""

    key_id: str
    fingerprint: Sha256
    hashes: list[Sha256]


class CancelKeyUpload(Struct, frozen=True, tag="fhe.cancel_key_upload.v1"):
    """There will be no more pieces."""


class ExpireKeyUpload(Struct, frozen=True, tag="fhe.expire_key_upload.v1"):
    """Nothing came for too long."""


KeyUploadCommand = (
    OpenKeyUpload | RecordKeyPiece | CompleteKeyUpload | CancelKeyUpload | ExpireKeyUpload
)
Emitted = KeyUploadEvent | Emit


class PartSoFar(Struct, frozen=True):
    """What has come of a part."""

    declared: DeclaredPart
    pieces: tuple[str, ...] = ()
    received_bytes: int = 0
    stored: StoredPart | None = None


class KeyUpload(Struct, frozen=True):
    """The state of an upload; key_id once it is complete."""

    status: Literal["absent", "open", "completed", "abandoned"] = "absent"
    params_id: str = ""
    name: str = ""
    slot: int = 0
    parts: tuple[PartSoFar, ...] = ()
    key_id: str = ""


class KeyUploadAnswer(Struct, frozen=True):
    """The upload as it stands. is_new: whether its key was none before."""

    upload_id: str
    status: str
    key_id: str
    is_new: bool


def loads(command: KeyUploadCommand, upload_id: str) -> Sequence[Ref | Lookup]:
    match command:
        case OpenKeyUpload():
            return [Lookup(_SLOTS, str(slot)) for slot in range(UPLOADS_MAX)]
        case CompleteKeyUpload():
            return [Ref(KEY_STREAM, command.key_id), ACCOUNT]
    return []


def decide(command: KeyUploadCommand, state: KeyUpload, context: Context) -> Sequence[Emitted]:
    """Raises InvalidCommand, KeyUploadsExhausted on opening; KeyUploadNotFound, KeyUploadEnded,
    OffsetMismatch, PartMissing, HashMismatch, EvaluationKeysExhausted, ActorForbidden."""
    if isinstance(command, OpenKeyUpload):
        return _open(command, state, context)
    if state.status in ("absent", "abandoned"):
        if isinstance(command, CancelKeyUpload | ExpireKeyUpload) and state.status == "abandoned":
            return []
        raise KeyUploadNotFound("no such upload")
    match command:
        case ExpireKeyUpload():
            if context.actor.kind != "system":
                raise ActorForbidden("uploads expire by their timer only")
            return [] if state.status == "completed" else [_abandoned("expired", state, context)]
        case CancelKeyUpload():
            if state.status == "completed":
                raise KeyUploadEnded("the upload is complete")
            return [_abandoned("cancelled", state, context)]
        case RecordKeyPiece():
            if state.status == "completed":
                raise KeyUploadEnded("the upload is complete")
            return [_received(command, state, context)]
        case CompleteKeyUpload():
            return _complete(command, state, context)
    assert_never(command)


def _open(command: OpenKeyUpload, state: KeyUpload, context: Context) -> Sequence[Emitted]:
    if state.status != "absent":
        return []  # its id follows from the command's: the same request, made again
    if command.params_id not in PARAMETER_SETS:
        raise InvalidCommand("no such parameter set", params_id=command.params_id)
    kinds = [part.kind for part in command.parts]
    if not 1 <= len(kinds) <= PARTS_MAX or len(set(kinds)) != len(kinds):
        raise InvalidCommand(f"an upload has 1 to {PARTS_MAX} parts, each of its own kind")
    sizes = [part.size_bytes for part in command.parts]
    if not all(1 <= size <= KEY_BYTES_MAX for size in sizes) or sum(sizes) > KEY_TOTAL_BYTES_MAX:
        raise InvalidCommand(
            f"a part has 1 to {KEY_BYTES_MAX} bytes, a key {KEY_TOTAL_BYTES_MAX} at most"
        )
    free = [slot for slot in range(UPLOADS_MAX) if context.find(_SLOTS, str(slot)) is None]
    if not free:
        raise KeyUploadsExhausted(f"{UPLOADS_MAX} uploads are under way already", limit=UPLOADS_MAX)
    return [KeyUploadOpened(command.params_id, command.name, command.parts, free[0], context.now)]


def _received(command: RecordKeyPiece, state: KeyUpload, context: Context) -> KeyPieceReceived:
    if command.part >= len(state.parts):
        raise KeyUploadNotFound("the upload has no such part")
    part = state.parts[command.part]
    if command.offset not in (0, part.received_bytes):
        raise OffsetMismatch("the part goes on elsewhere", offset=part.received_bytes)
    pieces = [*part.pieces, command.object] if command.offset else [command.object]
    received = command.offset + command.size_bytes
    size = part.declared.size_bytes
    if received > size or len(pieces) > PIECES_MAX:
        raise InvalidCommand(f"the part has {size} bytes, in {PIECES_MAX} pieces at most")
    if (command.stored is not None) != (received == size):
        raise InvalidCommand("a part is stored with its last piece")
    return KeyPieceReceived(command.part, pieces, received, command.stored, context.now)


def _complete(command: CompleteKeyUpload, state: KeyUpload, context: Context) -> Sequence[Emitted]:
    if state.status == "completed":
        return []
    stored = [part.stored for part in state.parts if part.stored is not None]
    missing = [number for number, part in enumerate(state.parts) if part.stored is None]
    if missing:
        raise PartMissing("not all parts are there", parts=missing)
    if [part.sha256 for part in stored] != command.hashes:
        wrong = [
            number
            for number, (part, wanted) in enumerate(zip(stored, command.hashes, strict=False))
            if part.sha256 != wanted
        ]
        raise HashMismatch("the parts are not what they should be", parts=wrong)
    key: EvaluationKey = context.state(KEY_STREAM, command.key_id)
    registered = evaluation_key.registered(
        command.key_id,
        key,
        context,
        params_id=state.params_id,
        fingerprint=command.fingerprint,
        name=state.name,
        parts=stored,
    )
    # A live key has these bytes already, in objects of its own.
    kept = [part.object for part in stored] if registered else []
    return [KeyUploadCompleted(command.key_id, kept, state.slot, context.now), *registered]


def _abandoned(reason: str, state: KeyUpload, context: Context) -> KeyUploadAbandoned:
    return KeyUploadAbandoned(reason, state.slot, context.now)


def evolve(state: KeyUpload, event: KeyUploadEvent) -> KeyUpload:
    match event:
        case KeyUploadOpened():
            parts = tuple(PartSoFar(part) for part in event.parts)
            return KeyUpload("open", event.params_id, event.name, event.slot, parts)
        case KeyPieceReceived():
            parts = tuple(
                part if number != event.part else _further(part, event)
                for number, part in enumerate(state.parts)
            )
            return msgspec.structs.replace(state, parts=parts)
        case KeyUploadCompleted():
            return KeyUpload("completed", state.params_id, slot=state.slot, key_id=event.key_id)
        case KeyUploadAbandoned():
            return KeyUpload("abandoned", slot=state.slot)
    assert_never(event)


def _further(part: PartSoFar, event: KeyPieceReceived) -> PartSoFar:
    return PartSoFar(part.declared, tuple(event.pieces), event.received_bytes, event.stored)


def _claims(event: KeyUploadEvent, upload_id: str) -> Sequence[Claim | Release]:
    match event:
        case KeyUploadOpened():
            return [Claim(_SLOTS, str(event.slot))]
        case KeyUploadCompleted() | KeyUploadAbandoned():
            return [Release(_SLOTS, str(event.slot))]
    return []


def _timers(event: KeyUploadEvent, upload_id: str) -> Sequence[SetTimer | ClearTimer]:
    match event:
        case KeyUploadOpened():
            return [SetTimer(_EXPIRY, event.opened_at + PATIENCE_MICROS, ExpireKeyUpload())]
        case KeyPieceReceived():
            return [SetTimer(_EXPIRY, event.received_at + PATIENCE_MICROS, ExpireKeyUpload())]
        case KeyUploadCompleted() | KeyUploadAbandoned():
            return [ClearTimer(_EXPIRY)]
    assert_never(event)


def _answer(command: KeyUploadCommand, state: KeyUpload, context: Context) -> KeyUploadAnswer:
    is_new = False
    if isinstance(command, CompleteKeyUpload):
        key: EvaluationKey = context.state(KEY_STREAM, command.key_id)
        is_new = not key.is_live
    return KeyUploadAnswer(context.stream_id, state.status, state.key_id, is_new)


def _describe(command: KeyUploadCommand) -> Mapping[str, Any]:
    match command:
        case OpenKeyUpload():
            return {"params_id": command.params_id, "parts": len(command.parts)}
        case RecordKeyPiece():
            return {
                "part": command.part,
                "offset": command.offset,
                "size_bytes": command.size_bytes,
            }
        case CompleteKeyUpload():
            return {"key_id": command.key_id}
        case CancelKeyUpload() | ExpireKeyUpload():
            return {}
    assert_never(command)


DECIDER: Decider[KeyUploadCommand, KeyUpload, KeyUploadEvent] = Decider(
    stream=STREAM,
    commands=members(KeyUploadCommand),
    events=members(KeyUploadEvent),
    initial=KeyUpload(),
    decide=decide,
    evolve=evolve,
    loads=loads,
    claims=_claims,
    timers=_timers,
    answer=_answer,
    describe=_describe,
)
