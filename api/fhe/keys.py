"""Evaluation keys: `/api/v1/keys`. Secret keys are refused before anything is stored."""

import hashlib
from typing import Annotated, Any, NamedTuple

from msgspec import Meta, Struct

from api.cursors import newest_page
from api.fhe import uploads
from api.fhe.declaring import fhe_route
from api.fhe.storage import discard
from api.problems import Problem, not_found
from api.roles import COMPUTE_READERS, COMPUTERS
from api.routing import Answer, Call, answer_of
from commands.fhe.evaluation_key import (
    DeleteEvaluationKey,
    EvaluationKeyAnswer,
    RegisterEvaluationKey,
)
from infra.ids import derived_id
from projections.fhe import fhe_keys
from schemas.fhe.key_material import RELIN
from schemas.fhe.parameters import PARAMETER_SETS
from schemas.instants import iso, iso_or_none
from schemas.types import Text


class UploadQuery(Struct):
    """For an octet-stream body, which has no fields of its own."""

    params_id: Annotated[Text, Meta(max_length=64)] = ""
    name: Annotated[Text, Meta(max_length=200)] = ""


class KeysQuery(Struct):
    """Which page of the keys."""

    limit: Annotated[int, Meta(ge=1, le=100)] = 20
    cursor: Annotated[Text, Meta(max_length=200)] = ""


class KeyPartItem(Struct, frozen=True):
    """One part of a key."""

    kind: str
    sha256: str
    size_bytes: int


class EvaluationKeyItem(Struct, frozen=True):
    """An evaluation key.

    rotations: the slot steps to the left that it allows. generated: whether the server made it.
    last_used_at: when a job that needs it was submitted last.
    """

    key_id: str
    scheme: str
    params_id: str
    name: str
    fingerprint: str
    size_bytes: int
    has_relin: bool
    rotations: list[int]
    parts: list[KeyPartItem]
    generated: bool
    created_at: str
    last_used_at: str | None


class EvaluationKeyPage(Struct, frozen=True):
    """A page of keys, newest first, and where the next one begins."""

    data: list[EvaluationKeyItem]
    next_cursor: str | None
    has_more: bool


async def upload(call: Call[None, UploadQuery]) -> Answer:
    """Store and register an evaluation key; the same bytes again are the same key."""
    received = await uploads.receive(call, call.query.params_id, call.query.name)
    if call.fingerprint:
        # The dispatcher has not seen the body: what it holds belongs to the request all the same.
        whole = f"{call.fingerprint}:{received.fingerprint}:{received.name}"
        call.fingerprint = hashlib.sha256(whole.encode()).hexdigest()
    registered = await register(call, received)
    item = await item_of_key(call, registered.key.key_id)
    return Answer(item, status=201 if registered.key.is_new else 200)


class Registered(NamedTuple):
    """A key as the decider has it; whether its answer was to an earlier request of the same id."""

    key: EvaluationKeyAnswer
    replayed: bool


async def register(
    call: Call[Any, Any], received: uploads.Upload, *, generated: bool = False
) -> Registered:
    """Let jobs compute with a stored key; its objects go where they turn out to be surplus.

    Raises Problem as `Call.send`.
    """
    command = RegisterEvaluationKey(
        params_id=received.params_id,
        fingerprint=received.fingerprint,
        name=received.name,
        parts=received.parts,
        generated=generated,
    )
    try:
        reply = await call.send(key_id_of(call.tenant, received.fingerprint), command)
    except Problem:
        await discard(call.services.objects, received.objects)
        raise
    key = answer_of(reply, EvaluationKeyAnswer)
    if key.parts != received.parts:
        # Registered before with objects of its own: ours are surplus.
        await discard(call.services.objects, received.objects)
    return Registered(key, reply.replayed)


def key_id_of(tenant: str, fingerprint: str) -> str:
    """The id of a key: the same bytes of a tenant's are the same key."""
    return derived_id("ek", tenant, fingerprint)


async def list_keys(call: Call[None, KeysQuery]) -> EvaluationKeyPage:
    """The tenant's evaluation keys, newest first."""
    rows, cursor = await newest_page(call, fhe_keys.PAGE, "key_id")
    return EvaluationKeyPage([_item(row) for row in rows], cursor, cursor is not None)


async def get_key(call: Call[None, None]) -> EvaluationKeyItem:
    """One evaluation key."""
    return await item_of_key(call, call.path["key_id"])


async def delete_key(call: Call[None, None]) -> None:
    """Compute nothing with a key any more and erase it; deleting it again changes nothing."""
    await call.send(call.path["key_id"], DeleteEvaluationKey())


async def key_row(call: Call[Any, Any], key_id: str) -> dict[str, Any]:
    """The row of a key that jobs may need. Raises Problem (404; 409 when it was deleted)."""
    row = await call.services.reads.one(fhe_keys.BY_ID, call.tenant, key_id)
    if row is None:
        not_found("No such evaluation key")
    if row["deleted_at"] is not None:
        raise Problem(409, "key_deleted", "The evaluation key was deleted")
    return row


async def item_of_key(call: Call[Any, Any], key_id: str) -> EvaluationKeyItem:
    """One of the tenant's keys as clients see it. Raises Problem (404)."""
    row = await call.services.reads.one(fhe_keys.BY_ID, call.tenant, key_id)
    if row is None or row["deleted_at"] is not None:
        not_found("No such evaluation key")
    return _item(row)


def _item(row: dict[str, Any]) -> EvaluationKeyItem:
    parts = row["parts"]
    return EvaluationKeyItem(
        key_id=row["key_id"],
        scheme=PARAMETER_SETS[row["params_id"]].scheme,
        params_id=row["params_id"],
        name=row["name"],
        fingerprint=row["fingerprint"],
        size_bytes=row["size_bytes"],
        has_relin=any(part["kind"] == RELIN for part in parts),
        rotations=[step for part in parts for step in part["rotations"]],
        parts=[KeyPartItem(part["kind"], part["sha256"], part["size_bytes"]) for part in parts],
        generated=row["generated"],
        created_at=iso(row["created_at"]),
        last_used_at=iso_or_none(row["last_used_at"]),
    )


ROUTES = [
    fhe_route(
        "POST",
        "/api/v1/keys",
        upload,
        roles=COMPUTERS,
        tags=("keys",),
        summary="Upload an evaluation key",
        description=(
            "The relinearisation key as SEAL 4.1 (Pyfhel 3.5) serialises it without compression, "
            "as application/octet-stream; or multipart/form-data with the part `relin`, perhaps "
            "`rotate`, and the fields `params_id` and `name`. With `params_id=tfhe-132` the one "
            "part, `server`, is the compressed server key of tfhe-rs. At most 40 MB. A secret key "
            "is refused with `secret_key_refused` and never stored. The same bytes again are the "
            "same key (200 instead of 201)."
        ),
        query=UploadQuery,
        response=EvaluationKeyItem,
        status=201,
        refusals=(200, 400, 402, 413, 415, 422),
        max_body=uploads.BODY_BYTES_MAX,
        streamed=True,
        accepts="application/octet-stream",
    ),
    fhe_route(
        "GET",
        "/api/v1/keys",
        list_keys,
        roles=COMPUTE_READERS,
        tags=("keys",),
        summary="List evaluation keys",
        query=KeysQuery,
        response=EvaluationKeyPage,
        refusals=(400,),
    ),
    fhe_route(
        "GET",
        "/api/v1/keys/{key_id}",
        get_key,
        roles=COMPUTE_READERS,
        tags=("keys",),
        summary="Show an evaluation key",
        response=EvaluationKeyItem,
    ),
    fhe_route(
        "DELETE",
        "/api/v1/keys/{key_id}",
        delete_key,
        roles=COMPUTERS,
        tags=("keys",),
        summary="Delete an evaluation key",
        status=204,
    ),
]
