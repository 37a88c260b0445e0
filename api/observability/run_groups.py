"""What sessions and users share: runs grouped by an id that their starts name."""

import asyncio
from collections.abc import Mapping
from typing import Any, NamedTuple

from msgspec import Struct

from api.observability.exactly import Ask, Rows, exactly
from api.observability.latest_costs import costs_now
from api.observability.llm_calls import dollars
from api.observability.pages import Listing, Shown, instant, shown, window
from api.problems import OBSERVE, not_found
from api.roles import READERS
from api.routing import Call, Route, Who
from infra.clock import iso
from projections.observability import run_groups as queries
from projections.observability.cost_versions import Costs
from projections.observability.llm_call_list import NEWEST_SPANS
from projections.observability.ordering import Query, Window
from projections.observability.run_groups import GroupedBy, Groups, Measure

RUNNING = "running"
_SECOND = 1_000_000


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
    """A group with the sums of its LLM calls, named as the document has them."""

    id: str
    run_count: int
    first: str
    last: str
    sums: dict[str, Any]


Runs = list[tuple[RunOfGroup, str]]
"""Each with its trace id."""


class OneGroup(NamedTuple):
    """A group, what its calls add up to by model, the dearest first, and a page of its runs."""

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
    """The ids on a page, in order, and one more where there are more. now: microseconds."""
    first = listing.order.keys[0]
    if first.sql == "last_at" and first.descending:
        latest = page.behind[0] if page.behind else now
        for span in NEWEST_SPANS:
            rows = await ask(queries.page(groups, listing.order, page, since=latest - span))
            if len(rows) > page.limit:
                return rows
    return await ask(queries.page(groups, listing.order, page))


async def find_one(
    call: Call[None, Any], by: GroupedBy, id: str, missing: str, *, newest_first: bool
) -> OneGroup:
    """The group of an id, with the runs that the query's limit and offset ask for.

    Raises Problem (404) when no run names it.
    """
    tenant, latest = call.tenant, await costs_now(call)
    page = Window(call.query.limit, call.query.offset)

    async def answer(ask: Ask) -> tuple[Rows, Rows, Runs]:
        return await asyncio.gather(
            ask(queries.details(tenant, by, [id])),
            ask(queries.costs_by_model(tenant, by, id, latest)),
            _runs(ask, queries.runs(tenant, by, id, page, newest_first=newest_first), latest),
        )

    found, by_model, runs = await exactly(call.services, tenant, answer)
    if not found:
        not_found(missing)
    sums = {name: sum(int(row[name]) for row in by_model) for name in ("tokens", "total_pico")}
    return OneGroup(_group(found[0], sums), by_model, runs)


async def _runs(ask: Ask, query: Query, latest: Costs) -> Runs:
    rows = await ask(query)
    run_ids = [row["run_id"] for row in rows]
    if not run_ids:
        return []
    costs = await ask(queries.costs_of_runs(query.params["tenant"], run_ids, latest))
    by_run = {row["run_id"]: row for row in costs}
    return [(_run(row, by_run.get(row["run_id"])), row["trace_id"]) for row in rows]


def _run(row: Mapping[str, Any], sums: Mapping[str, Any] | None) -> RunOfGroup:
    ended = bool(row["ended"])
    return RunOfGroup(
        id=row["run_id"],
        agent_name=row["agent_name"],
        workflow_name=row["workflow_name"],
        started_at=iso(row["started"]),
        completed_at=iso(row["ended"]) if ended else None,
        duration=row["duration"] / _SECOND if ended else None,
        status=row["status"] if ended else RUNNING,
        cost=dollars(sums["total_pico"]) if sums else 0.0,
        tokens=int(sums["tokens"]) if sums else 0,
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
    return [_group(by_id[id], sums.get(id)) for id in ids if id in by_id]


def _group(row: Mapping[str, Any], sums: Mapping[str, Any] | None) -> FoundGroup:
    return FoundGroup(
        row["id"],
        row["run_count"],
        iso(row["first"]),
        iso(row["last"]),
        {
            "total_duration": row["duration"] / _SECOND,
            "total_cost": dollars(sums["total_pico"]) if sums else 0.0,
            "total_tokens": int(sums["tokens"]) if sums else 0,
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
