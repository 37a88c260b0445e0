"""What sessions and users share: runs grouped by an id that their starts name."""

import asyncio
import math
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

from msgspec import Meta, Struct

from api.observability.exactly import Ask, Rows, exactly
from api.observability.latest_costs import costs_now
from api.observability.llm_calls import dollars
from api.observability.pages import (
    DEFAULT_LIMIT,
    Cursor,
    DeepOffset,
    Limit,
    Listing,
    Shown,
    instant,
    shown,
    window,
)
from api.problems import OBSERVE, not_found
from api.roles import READERS
from api.routing import Call, Route, Who
from infra.clock import iso
from projections.observability import run_groups as queries
from projections.observability.cost_versions import Costs
from projections.observability.ordering import Window
from projections.observability.run_groups import GroupedBy, Groups, Measure

Text = Annotated[str, Meta(max_length=500)]
RUNNING = "running"
LATEST_SPANS = (3_600_000_000, 86_400_000_000, 7 * 86_400_000_000)
"""Microseconds: how far back the groups that were active last are looked for first."""
_SECOND = 1_000_000


class ListGroups(Struct):
    """What a list of groups is asked by, but for its orders."""

    search: Text = ""
    agent: Text = ""
    start: Text = ""
    end: Text = ""
    limit: Limit = DEFAULT_LIMIT
    offset: DeepOffset = 0
    cursor: Cursor = ""


class GroupAggregates(Struct):
    """What the runs add up to. total_duration: seconds, of those that are completed."""

    run_count: int
    total_duration: float
    total_cost: float
    total_tokens: int
    agents: list[str]


class RunOfGroup(Struct):
    """A run. One that goes on is `running` and has no completion and no duration (seconds)."""

    id: str
    agent_name: str
    workflow_name: str
    started_at: str
    completed_at: str | None
    duration: float | None
    status: str
    cost: float
    tokens: int


class FoundGroup(NamedTuple):
    """A group, when it was first and last active, and its aggregates, named as the document has
    them."""

    id: str
    first: str
    last: str
    sums: dict[str, Any]


Runs = list[tuple[RunOfGroup, str]]
"""Each with its trace id."""


class OneGroup(NamedTuple):
    """A group, what its calls add up to by model, the dearest first (if that was asked for), and a
    page of its runs."""

    group: FoundGroup
    by_model: Rows
    runs: Runs


async def find(
    call: Call[None, Any], by: GroupedBy, measures: Mapping[str, Measure]
) -> tuple[list[FoundGroup], Shown, int]:
    """The page of groups that the query asks for, its neighbours, and how many groups there are.

    measures: what the document's words for the order stand for.
    """
    asked = call.query
    groups = Groups(
        tenant=call.tenant,
        by=by,
        search=asked.search,
        agent=asked.agent,
        since=instant(asked.start, "start"),
        until=instant(asked.end, "end", end=True),
    )
    measure, descending = measures[asked.sort.lstrip("-")], asked.sort.startswith("-")
    listing = Listing(f"{by} {asked.sort}", queries.order_by(measure, descending=descending))
    page = window(asked, listing)
    latest = await costs_now(call)

    async def answer(ask: Ask) -> tuple[list[FoundGroup], Shown, int]:
        counted, rows = await asyncio.gather(
            ask(queries.count(groups)),
            _ids_of_page(ask, groups, listing, page, call.services.clock.now()),
        )
        count = counted[0]["groups"]
        turned = shown(call, page, listing, rows, count)
        ids = [row["id"] for row in turned.rows]
        return await _groups(ask, call.tenant, by, ids, latest), turned, count

    return await exactly(call.services, call.tenant, answer)


async def _ids_of_page(ask: Ask, groups: Groups, listing: Listing, page: Window, now: int) -> Rows:
    """The ids on a page, in order, and one more where there are more. now: microseconds.

    The latest are looked for in a while before, and in a longer one if the page isn't full; one
    that wouldn't fill it either, at the pace at which groups were found, is passed over.
    """
    first = listing.order.keys[0]
    if first.sql == "last_at" and first.descending:
        latest = page.behind[0] if page.behind else now
        pace = math.inf
        for span in LATEST_SPANS:
            if pace * span < page.limit:
                continue
            rows = await ask(queries.page(groups, listing.order, page, since=latest - span))
            if len(rows) > page.limit:
                return rows
            pace = (len(rows) + 1) / span
    return await ask(queries.page(groups, listing.order, page))


async def find_one(
    call: Call[None, Any],
    by: GroupedBy,
    id: str,
    missing: str,
    *,
    newest_first: bool,
    by_model: bool = False,
) -> OneGroup:
    """The group of an id, with the runs that the query's limit and offset ask for.

    by_model: add up its calls by model, too. Raises Problem (404) when no run names it.
    """
    tenant, latest = call.tenant, await costs_now(call)
    page = Window(call.query.limit, call.query.offset)

    async def runs(ask: Ask, page: Window) -> Rows:
        query = queries.runs(tenant, by, id, page, latest, newest_first=newest_first)
        return await ask(query)

    async def found(ask: Ask) -> tuple[Rows, Rows]:
        """The page, and rows that tell of the whole group."""
        rows = await runs(ask, page)
        return rows, rows if rows or not page.offset else await runs(ask, Window(1))

    async def answer(ask: Ask) -> tuple[tuple[Rows, Rows], Rows]:
        if not by_model:
            return await found(ask), []
        return await asyncio.gather(found(ask), ask(queries.costs_by_model(tenant, by, id, latest)))

    (rows, whole), models = await exactly(call.services, tenant, answer)
    if not whole:
        not_found(missing)
    return OneGroup(
        _group(id, whole[0], whole[0]), models, [(_run(row), row["trace_id"]) for row in rows]
    )


def _run(row: Mapping[str, Any]) -> RunOfGroup:
    ended = bool(row["ended"])
    return RunOfGroup(
        id=row["run_id"],
        agent_name=row["agent_name"],
        workflow_name=row["workflow_name"],
        started_at=iso(row["started"]),
        completed_at=iso(row["ended"]) if ended else None,
        duration=row["duration"] / _SECOND if ended else None,
        status=row["status"] if ended else RUNNING,
        cost=dollars(row["total_pico"]),
        tokens=int(row["tokens"]),
    )


async def _groups(
    ask: Ask, tenant: str, by: GroupedBy, ids: list[str], latest: Costs
) -> list[FoundGroup]:
    """The groups of these ids, in their order."""
    if not ids:
        return []
    found, costs = await asyncio.gather(
        ask(queries.details(tenant, by, ids)),
        ask(queries.costs(tenant, by, ids, latest)),
    )
    by_id = {row["id"]: row for row in found}
    sums = {row["id"]: row for row in costs}
    return [_group(id, by_id[id], sums.get(id)) for id in ids if id in by_id]


def _group(id: str, row: Mapping[str, Any], sums: Mapping[str, Any] | None) -> FoundGroup:
    return FoundGroup(
        id,
        iso(row["first"]),
        iso(row["last"]),
        {
            "run_count": row["run_count"],
            "total_duration": row["group_duration"] / _SECOND,
            "total_cost": dollars(sums["group_pico"]) if sums else 0.0,
            "total_tokens": int(sums["group_tokens"]) if sums else 0,
            "agents": list(row["agents"]),
        },
    )


def route(path: str, handler: Any, query: Any, response: Any, summary: str) -> Route:
    """A route of these groups."""
    return Route(
        "GET",
        f"/api/v1/observability/{path}",
        handler,
        dialect=OBSERVE,
        who=Who.SESSION_OR_KEY,
        roles=READERS,
        query=query,
        response=response,
        tags=(path.partition("/")[0],),
        summary=summary,
        refusals=(404,) if "{" in path else (),
        analytics=True,
    )
