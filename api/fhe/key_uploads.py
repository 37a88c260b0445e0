"""Keys larger than one request: `/api/v1/keys/uploads`, a manifest of parts, sent piece by piece.

As in tus, a PATCH says where its bytes begin, and whoever was interrupted asks how far a part is. A
piece that was interrupted counts for nothing. A part is read, checked and stored as one object when
its last piece is there, so no more than a chunk is ever in memory.
"""

from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from api.bodies import declared_length
from api.fhe.declaring import fhe_route
from api.fhe.key_checks import refused
from api.fhe.keys import EvaluationKeyItem, item_of_key, key_id_of
from api.fhe.storage import answered, discard, reachable
from api.fhe.uploads import Upload, store_part
from api.problems import Problem, not_found
from api.roles import COMPUTERS
from api.routing import Answer, Call, answer_of
from commands.fhe.key_upload import (
    PARTS_MAX,
    PATIENCE_MICROS,
    CancelKeyUpload,
    CompleteKeyUpload,
    KeyUploadAnswer,
    OpenKeyUpload,
    RecordKeyPiece,
)
from infra.clock import iso
from infra.ids import new_id
from projections.fhe import fhe_key_uploads
from schemas.fhe.evaluation_key import StoredPart
from schemas.fhe.key_material import RELIN, ROTATE, KeyRefused
from schemas.fhe.key_upload import DeclaredPart
from schemas.fhe.lattigo import check_part
from schemas.fhe.parameters import (
    KEY_BYTES_MAX,
    PARAMETER_SETS,
    SEAL_SETS,
    LattigoParameters,
)
from schemas.types import Count, Sha256, Text

_PATH = "/api/v1/keys/uploads"
_ONE = f"{_PATH}/{{upload_id}}"
OFFSET = "upload-offset"


class PartBody(Struct, frozen=True):
    """A part that is to come."""

    kind: Annotated[str, Meta(pattern=r"^[a-z0-9_-]{1,32}$")]
    size_bytes: Annotated[int, Meta(ge=1, le=KEY_BYTES_MAX)]


class OpenBody(Struct, frozen=True):
    """Which parts the key has: `relin` and perhaps `rotate` for the sets of SEAL; for
    `ckks-boot-n15` all of `rlk`, `d2s`, `s2d` and the `gal…`, each of its one length."""

    params_id: Annotated[Text, Meta(max_length=64)]
    parts: Annotated[list[PartBody], Meta(min_length=1, max_length=PARTS_MAX)]
    name: Annotated[Text, Meta(max_length=200)] = ""


class CompleteBody(Struct, frozen=True):
    """The SHA-256 of each part, in the order in which they were declared."""

    sha256s: Annotated[list[Sha256], Meta(min_length=1, max_length=PARTS_MAX)]


class UploadPartItem(Struct, frozen=True):
    """How far a part is. `offset`: where its next piece begins; sha256: once all of it is there."""

    part: int
    kind: str
    size_bytes: int
    offset: Count
    sha256: str | None


class KeyUploadItem(Struct, frozen=True):
    """An upload. key_id: once it is complete. expires_at: when it is given up, if nothing comes."""

    upload_id: str
    params_id: str
    name: str
    status: Literal["open", "completed", "cancelled", "expired"]
    key_id: str | None
    created_at: str
    expires_at: str
    parts: list[UploadPartItem]


async def open_upload(call: Call[OpenBody, None]) -> Answer:
    """Begin an upload."""
    body = call.body
    _check_declared(body)
    upload_id = "ku_" + call.command_id.removeprefix("cmd_")
    parts = [DeclaredPart(part.kind, part.size_bytes) for part in body.parts]
    await call.send(upload_id, OpenKeyUpload(body.params_id, body.name, parts))
    return Answer(await _item(call, upload_id), headers={"location": f"{_PATH}/{upload_id}"})


def _check_declared(body: OpenBody) -> None:
    """Refuse, before anything is sent, what cannot become a key of its set."""
    kinds = {part.kind for part in body.parts}
    params = PARAMETER_SETS.get(body.params_id)
    if body.params_id in SEAL_SETS and not {RELIN} <= kinds <= {RELIN, ROTATE}:
        raise refused("relin_missing", f"such a key has the part {RELIN}, and perhaps {ROTATE}")
    if isinstance(params, LattigoParameters):
        try:
            for part in body.parts:
                check_part(part.kind, part.size_bytes, params)
        except KeyRefused as error:
            raise refused(error.reason, error.message) from None
        missing = sorted(set(params.part_bytes) - kinds)
        if missing:
            raise refused("part_missing", f"such a key has the parts {', '.join(missing)}, too")


async def get_upload(call: Call[None, None]) -> KeyUploadItem:
    """An upload, and how far each of its parts is."""
    return await _item(call, call.path["upload_id"])


async def send_piece(call: Call[None, None]) -> Answer:
    """Store the next bytes of a part; with its last ones, check it."""
    upload_id = call.path["upload_id"]
    upload, offset = await _row(call, upload_id), _offset_of(call)
    if upload["status"] != "open":
        raise Problem(409, "conflict", f"The upload is {upload['status']}")
    row = await _part_row(call, upload_id)
    if offset not in (0, row["received_bytes"]):
        raise _elsewhere(row["received_bytes"])
    left = row["size_bytes"] - offset
    declared_length(dict(call.scope["headers"]), left)
    objects = call.services.objects
    piece = f"{_folder(call, upload_id)}/{row['part']}.{offset}.{new_id('pc')}"
    counted = _Counted(call.raw.stream(), left)
    await answered(objects.put_stream(piece, counted.chunks()))
    stored = None
    if counted.size == left:
        pieces = [*row["pieces"], piece] if offset else [piece]
        try:
            stored = await _assembled(call, upload, row, pieces)
        except BaseException:
            await discard(objects, [piece])
            raise
    command = RecordKeyPiece(row["part"], offset, counted.size, piece, stored)
    try:
        await call.send(upload_id, command)
    except Problem:
        await discard(objects, [piece, *([stored.object] if stored else [])])
        raise
    if stored is not None:
        await discard(objects, [*row["pieces"], piece])
    now = await _part_row(call, upload_id)
    return Answer(_part_item(now), headers={OFFSET: str(now["received_bytes"])})


async def complete(call: Call[CompleteBody, None]) -> Answer:
    """Have the parts be a key; the same bytes again are the same key."""
    upload_id = call.path["upload_id"]
    upload = await _row(call, upload_id)
    rows = await _part_rows(call, upload_id)
    parts = [StoredPart(**row["stored"]) for row in rows if row["stored"] is not None]
    fingerprint = Upload(upload["params_id"], parts, upload["name"]).fingerprint
    key_id = upload["key_id"] or key_id_of(call.tenant, fingerprint)
    reply = await call.send(upload_id, CompleteKeyUpload(key_id, fingerprint, call.body.sha256s))
    is_new = answer_of(reply, KeyUploadAnswer).is_new
    return Answer(await item_of_key(call, key_id), status=201 if is_new else 200)


async def cancel(call: Call[None, None]) -> None:
    """Give an upload up; what came of it is erased."""
    await call.send(call.path["upload_id"], CancelKeyUpload())


class _Counted:
    """A body's chunks and how many bytes they were, `limit` at most."""

    def __init__(self, body: AsyncIterator[bytes], limit: int) -> None:
        self._body, self._limit, self.size = body, limit, 0

    async def chunks(self) -> AsyncIterator[bytes]:
        """The chunks. Raises Problem: 413 when there are too many, 400 when there are none."""
        async for chunk in self._body:
            self.size += len(chunk)
            if self.size > self._limit:
                raise Problem(413, "payload_too_large", f"The part has {self._limit} bytes left")
            if chunk:
                yield chunk
        if not self.size:
            raise Problem(400, "validation_error", "A piece has at least one byte")


async def _assembled(
    call: Call[Any, Any], upload: dict[str, Any], row: dict[str, Any], pieces: Sequence[str]
) -> StoredPart:
    """The part as one object, read and checked. Raises Problem (422, 503)."""

    async def joined() -> AsyncIterator[bytes]:
        with reachable():
            for piece in pieces:
                async for chunk in call.services.objects.stream(piece):
                    yield chunk

    name = f"fhe/{call.tenant}/keys/{upload['upload_id']}/{row['kind']}.{new_id('pt')}"
    return await store_part(call.services, name, upload["params_id"], row["kind"], joined())


def _offset_of(call: Call[Any, Any]) -> int:
    text = call.raw.headers.get(OFFSET, "")
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        message = "Say in Upload-Offset where in the part these bytes begin"
        raise Problem(400, "validation_error", message, field="Upload-Offset", where="header")
    return int(text)


def _elsewhere(offset: int) -> Problem:
    message = f"The part goes on at {offset}"
    headers = {OFFSET: str(offset)}
    return Problem(409, "offset_mismatch", message, details={"offset": offset}, headers=headers)


def _folder(call: Call[Any, Any], upload_id: str) -> str:
    return f"fhe/{call.tenant}/uploads/{upload_id}"


async def _row(call: Call[Any, Any], upload_id: str) -> dict[str, Any]:
    row = await call.services.reads.one(fhe_key_uploads.BY_ID, call.tenant, upload_id)
    if row is None:
        not_found("No such upload")
    return row


async def _part_rows(call: Call[Any, Any], upload_id: str) -> list[dict[str, Any]]:
    return await call.services.reads.all(fhe_key_uploads.PARTS, call.tenant, upload_id)


async def _part_row(call: Call[Any, Any], upload_id: str) -> dict[str, Any]:
    """The row of the part that the path names. Raises Problem (404)."""
    wanted = call.path["part"]
    rows = [row for row in await _part_rows(call, upload_id) if str(row["part"]) == wanted]
    if not rows:
        not_found("The upload has no such part")
    return rows[0]


async def _item(call: Call[Any, Any], upload_id: str) -> KeyUploadItem:
    row = await _row(call, upload_id)
    return KeyUploadItem(
        upload_id=upload_id,
        params_id=row["params_id"],
        name=row["name"],
        status=row["status"],
        key_id=row["key_id"] or None,
        created_at=iso(row["opened_at"]),
        expires_at=iso(row["updated_at"] + PATIENCE_MICROS),
        parts=[_part_item(part) for part in await _part_rows(call, upload_id)],
    )


def _part_item(row: dict[str, Any]) -> UploadPartItem:
    stored = row["stored"]
    return UploadPartItem(
        part=row["part"],
        kind=row["kind"],
        size_bytes=row["size_bytes"],
        offset=row["received_bytes"],
        sha256=stored["sha256"] if stored else None,
    )


_route = partial(fhe_route, roles=COMPUTERS, tags=("keys",))

ROUTES = [
    _route(
        "POST",
        _PATH,
        open_upload,
        summary="Begin to upload a key in parts",
        description=(
            "For keys over 40 MB: each part has 40 MB at most and is sent in one PATCH or in "
            "several. An upload to which nothing was added for a day is erased."
        ),
        body=OpenBody,
        response=KeyUploadItem,
        status=201,
        refusals=(400, 409),
    ),
    _route("GET", _ONE, get_upload, summary="Show how far an upload is", response=KeyUploadItem),
    _route(
        "PATCH",
        f"{_ONE}/parts/{{part}}",
        send_piece,
        summary="Send the next bytes of a part",
        description=(
            "The header Upload-Offset says where in the part they begin: where it ends so far "
            "(409 `offset_mismatch` with the right one otherwise), or 0 to begin anew. A request "
            "that breaks off has changed nothing. The part is checked with its last bytes."
        ),
        response=UploadPartItem,
        refusals=(400, 409, 413, 422),
        max_body=KEY_BYTES_MAX,
        streamed=True,
        accepts="application/octet-stream",
    ),
    _route(
        "POST",
        f"{_ONE}/complete",
        complete,
        summary="Have the parts be a key",
        body=CompleteBody,
        response=EvaluationKeyItem,
        status=201,
        refusals=(200, 400, 402, 409),
    ),
    _route("DELETE", _ONE, cancel, summary="Give an upload up", status=204, refusals=(409,)),
]
