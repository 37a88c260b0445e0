"""Watchers: agents are told of what happens in a room. A webhook's secret is shown once."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from api.approvals.declaring import route
from api.approvals.envelopes import Data, Page, PageQuery, after, data, page_of
from api.approvals.sending import canonical
from api.approvals.visible import reaches, room_id_of, room_row
from api.platform.webhook_urls import check_url
from api.problems import not_found
from api.routing import Call, Who, answer_of
from commands.approvals.watcher import CreateWatcher, RemoveWatcher, WatcherAnswered
from projections.approvals import watchers
from schemas.approvals.vocabulary import WatchedType
from schemas.instants import iso, iso_or_none
from schemas.types import Text


class WatchBody(Struct, frozen=True):
    """What to watch for.

    `filter`: fields of the event (`risk_level`, `context.amount`) and what they must be: a value, a
    list of which it is one, or operators and operands as policies have them. All must hold.
    `webhook_url`: where the events are posted, too.
    """

    event_types: Annotated[list[WatchedType], Meta(min_length=1, max_length=20)]
    filter: Annotated[dict[str, Any], Meta(description="10 KB of JSON at most")] = {}
    webhook_url: Annotated[Text, Meta(min_length=1, max_length=2000)] | None = None


class WatcherItem(Struct, frozen=True):
    """A watcher as clients see it.

    status: `disabled` when its endpoint answered 410 or has failed for days; `status_reason` says
    which. last_event_id: of the event that triggered it last.
    """

    id: str
    room_id: str
    agent_id: str
    event_types: list[WatchedType]
    filter: dict[str, Any]
    webhook_url: str | None
    status: str
    status_reason: str
    created_at: str
    last_triggered_at: str | None
    last_event_id: str | None


class CreatedWatcher(WatcherItem, frozen=True):
    """A new watcher, and what its webhooks are signed with, which is never shown again."""

    webhook_secret: str | None


async def watch(call: Call[WatchBody, None]) -> Any:
    """Watch a room; of its webhooks the secret is shown here only."""
    body = call.body
    room_id = await room_id_of(call, call.path["room"])
    url = body.webhook_url or ""
    if url:
        check_url(url, call.services.settings.egress_allow, field="webhook_url")
    watcher_id = "wat_" + call.command_id.removeprefix("cmd_")
    command = CreateWatcher(
        room_id=room_id,
        agent_id=call.actor.id,
        event_types=sorted(set(body.event_types)),
        filter=canonical(body.filter, "filter"),
        webhook_url=url,
    )
    reply = await call.send(watcher_id, command)
    call.headers["cache-control"] = "no-store"
    item = msgspec.structs.asdict(_answered(answer_of(reply, WatcherAnswered)))
    secret = call.services.signer.webhook_secret(call.command_id) if url else None
    return data(CreatedWatcher(**item, webhook_secret=secret))


async def get_watcher(call: Call[None, None]) -> Any:
    """One watcher."""
    return data(item_of(await watcher_row(call)))


async def list_watchers(call: Call[None, PageQuery]) -> Any:
    """A room's watchers, newest first; an agent sees its own."""
    room_id = (await room_row(call, call.path["room"]))["id"]
    agent = call.actor.id if call.actor.kind == "agent" else ""
    found = await call.services.reads.all(
        watchers.PAGE,
        call.tenant,
        room_id,
        agent,
        agent,
        *after(call.query.cursor),
        call.query.limit + 1,
    )
    return page_of(found, call.query.limit, item_of)


async def remove_watcher(call: Call[None, None]) -> Any:
    """Watch no more; only the agent that watches can."""
    row = await watcher_row(call, others=True)
    command = RemoveWatcher(room_id=row["room_id"], agent_id=row["agent_id"])
    await call.send(row["id"], command)
    return data(msgspec.structs.replace(item_of(row), status="removed"))


async def watcher_row(call: Call[Any, Any], *, others: bool = False) -> dict[str, Any]:
    """The row of a watcher that the caller sees: an agent its own, `others`' only if asked for.

    Raises Problem (404).
    """
    row = await call.services.reads.one(watchers.BY_ID, call.tenant, call.path["id"])
    if row is None or not reaches(call, row["room_id"]):
        not_found("No such watcher")
    if call.actor.kind == "agent" and row["agent_id"] != call.actor.id and not others:
        not_found("No such watcher")
    return row


def _answered(watcher: WatcherAnswered) -> WatcherItem:
    row = msgspec.to_builtins(watcher)
    never = {"endpoint_status": None, "endpoint_reason": "", "triggered_at": None}
    return item_of({**row, **never, "triggered_by": ""})


def item_of(row: Any) -> WatcherItem:
    """The item of a row of `watchers`, or of an answer that looks like one."""
    triggered_at = row["triggered_at"]
    return WatcherItem(
        id=row["id"],
        room_id=row["room_id"],
        agent_id=row["agent_id"],
        event_types=row["event_types"],
        filter=msgspec.json.decode(row["filter"]),
        webhook_url=row["webhook_url"] or None,
        status=row["endpoint_status"] or "active",
        status_reason=row["endpoint_reason"] or "",
        created_at=iso(row["created_at"]),
        last_triggered_at=iso_or_none(triggered_at),
        last_event_id=row["triggered_by"] or None,
    )


ROUTES = [
    route(
        "POST",
        "/v1/rooms/{room}/watch",
        watch,
        Who.AGENT,
        "Subscribe a watcher to events in a room",
        body=WatchBody,
        response=Data[CreatedWatcher],
        status=201,
        refusals=(403, 404, 409),
    ),
    route(
        "GET",
        "/v1/rooms/{room}/watchers",
        list_watchers,
        Who.ANY,
        "List a room's watchers",
        query=PageQuery,
        response=Page[WatcherItem],
        refusals=(404,),
    ),
    route(
        "GET",
        "/v1/watchers/{id}",
        get_watcher,
        Who.ANY,
        "Get a watcher",
        response=Data[WatcherItem],
        refusals=(404,),
    ),
    route(
        "DELETE",
        "/v1/watchers/{id}",
        remove_watcher,
        Who.AGENT,
        "Remove a watcher",
        response=Data[WatcherItem],
        refusals=(403, 404),
    ),
]
