"""Erasing a user: asked for here, carried out by the eraser, and the receipt of it.

The same user erased again gets the same receipt, until a report names the user anew. Receipts do
not name users: who asks for an erasure is told its id.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from api.observability.pages import DEFAULT_LIMIT, Limit, Offset
from api.problems import OBSERVE, not_found
from api.roles import ADMINS
from api.routing import Call, Route, Who
from commands.observability.erasure import RequestUserErasure
from infra.clock import iso
from infra.ids import derived_id, secret_hash
from projections.observability.user_erasures import BY_ID, COUNT, NEWEST_FIRST, READ_MODELS


class ErasedReadModel(Struct):
    """A read model that holds nothing of the user any more.

    rows: of the user's; they count on. positions: where on the log it was at least.
    """

    read_model: str
    rows: int
    positions: list[str]
    erased_at: str


class ErasureReceipt(Struct):
    """status: requested, key_dropped (nobody can read the log's part any more), or completed (no
    read model has anything left)."""

    erasure_id: str
    status: str
    requested_at: str
    requested_by: str
    key_dropped_at: str | None
    read_models: list[ErasedReadModel]
    completed_at: str | None


class ListErasures(Struct):
    limit: Limit = DEFAULT_LIMIT
    offset: Offset = 0


class ErasurePage(Struct):
    """Newest first."""

    results: list[ErasureReceipt]
    count: int


async def erase_user(call: Call[None, None]) -> ErasureReceipt:
    services = call.services
    person = services.signer.person(call.tenant, call.path["user_id"])
    key = await services.person_keys.newest(call.tenant, person)
    if not key:
        not_found("There is no such user")
    if call.fingerprint:
        # The hash of the path would tell the user's id to whoever guesses it.
        call.fingerprint = secret_hash(f"erase {key}")
    erasure_id = derived_id("era", call.tenant, key)
    await call.send(erasure_id, RequestUserErasure(key))
    return await _receipt(call, erasure_id)


async def get_erasure(call: Call[None, None]) -> ErasureReceipt:
    return await _receipt(call, call.path["erasure_id"])


async def list_erasures(call: Call[None, ListErasures]) -> ErasurePage:
    reads, asked = call.services.reads, call.query
    rows = await reads.all(NEWEST_FIRST, call.tenant, asked.limit, asked.offset)
    counted = await reads.one(COUNT, call.tenant)
    return ErasurePage(await _receipts(call, rows), counted["erasures"] if counted else 0)


async def _receipt(call: Call[Any, None], erasure_id: str) -> ErasureReceipt:
    row = await call.services.reads.one(BY_ID, call.tenant, erasure_id)
    if row is None:
        not_found("There is no such erasure")
    return (await _receipts(call, [row]))[0]


async def _receipts(
    call: Call[Any, Any], rows: Sequence[Mapping[str, Any]]
) -> list[ErasureReceipt]:
    ids = [row["erasure_id"] for row in rows]
    lines: dict[str, list[ErasedReadModel]] = {id: [] for id in ids}
    for line in await call.services.reads.all(READ_MODELS, call.tenant, ids) if ids else []:
        positions = msgspec.convert(line["positions"], list[str])
        shown = ErasedReadModel(
            line["read_model"], line["rows_erased"], positions, iso(line["erased_at"])
        )
        lines[line["erasure_id"]].append(shown)
    return [
        ErasureReceipt(
            erasure_id=row["erasure_id"],
            status=row["status"],
            requested_at=iso(row["requested_at"]),
            requested_by=row["requested_by"],
            key_dropped_at=_iso(row["key_dropped_at"]),
            read_models=lines[row["erasure_id"]],
            completed_at=_iso(row["completed_at"]),
        )
        for row in rows
    ]


def _iso(micros: int | None) -> str | None:
    return None if micros is None else iso(micros)


def _route(method: str, path: str, handler: Any, summary: str, **more: Any) -> Route:
    return Route(
        method,
        f"/api/v1/observability/{path}",
        handler,
        dialect=OBSERVE,
        who=Who.SESSION_OR_KEY,
        roles=ADMINS,
        tags=("users",),
        summary=summary,
        **more,
    )


ROUTES = [
    _route(
        "DELETE",
        "users/{user_id}/",
        erase_user,
        "Erase a user",
        response=ErasureReceipt,
        status=202,
        refusals=(404, 409),
    ),
    _route(
        "GET",
        "erasures/",
        list_erasures,
        "List erasures",
        query=ListErasures,
        response=ErasurePage,
    ),
    _route(
        "GET",
        "erasures/{erasure_id}/",
        get_erasure,
        "Get an erasure's receipt",
        response=ErasureReceipt,
        refusals=(404,),
    ),
]
