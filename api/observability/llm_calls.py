"""LLM calls across all runs: search, one call in full, the models used."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Annotated, Any, cast

from msgspec import Meta, Raw, Struct

from api.observability.bodies import JsonObject
from api.observability.exactly import Ask, Rows, exactly
from api.observability.latest_costs import costs_now, repricings_of
from api.observability.pages import (
    DEFAULT_LIMIT,
    Cursor,
    DeepOffset,
    Limit,
    Listing,
    instant,
    shown,
    window,
)
from api.problems import OBSERVE, not_found
from api.roles import READERS
from api.routing import Call, Route, Who
from commands.observability.prices import CostSource, per_million
from infra.clock import iso
from infra.ids import made_at
from projections.observability import llm_call_list as queries
from projections.observability.cost_versions import costs
from projections.observability.items import filed_period
from projections.observability.llm_call_list import Selection, Sort
from projections.observability.llm_call_sums import aggregates, aggregates_and_periods
from projections.observability.ordering import Window
from schemas.observability.model_cost import PICODOLLARS
from schemas.observability.repricing import CallsRepriced

Money = Annotated[float, Meta(ge=0, le=1e12)]
TokenCount = Annotated[int, Meta(ge=0, le=2**62)]
Text = Annotated[str, Meta(max_length=500)]

Names = Mapping[str, tuple[str, str]]
"""Agent and workflow, by a run's id."""

FEW_MAX = 1_000
"""Calls of which a page is not looked for in the last day first."""


class ListLlmCalls(Struct):
    """Filters, order and page. `end` includes the moment given, or the whole day of a date."""

    search: Text = ""
    model: list[Text] = []
    agent: Text = ""
    min_cost: Money | None = None
    max_cost: Money | None = None
    min_tokens: TokenCount | None = None
    max_tokens: TokenCount | None = None
    start: Text = ""
    end: Text = ""
    sort: Sort = "-created_at"
    limit: Limit = DEFAULT_LIMIT
    offset: DeepOffset = 0
    cursor: Cursor = ""


class LlmCallRow(Struct):
    """One call; agent and workflow are empty until the run's start has been reported."""

    id: str
    run_id: str
    model: str
    task: str
    agent_name: str
    workflow_name: str
    tokens_in: int
    tokens_out: int
    total_tokens: int
    cost: float
    created_at: str
    prompt_preview: str
    response_preview: str
    prompt_hash: str


class CallRepricing(Struct):
    """The version that the call's cost is of; before it the call cost `original_cost`."""

    version: int
    repriced_at: str
    original_cost: float
    source: CostSource
    input_cost_per_million: float
    output_cost_per_million: float
    model_id: str
    revision: int | None


class CallPricing(Struct):
    """Where the cost is from at which the call came in. The prices (dollars for a million tokens),
    what they go by and the revision of the tenant's own one are there when the client gave none."""

    source: CostSource
    input_cost_per_million: float | None = None
    output_cost_per_million: float | None = None
    model_id: str | None = None
    revision: int | None = None
    repriced: CallRepricing | None = None


class LlmCallDetail(LlmCallRow):
    metadata: JsonObject
    pricing: CallPricing


class LlmCallAggregates(Struct):
    total_cost: float
    total_tokens: int
    total_calls: int
    models_used: list[str]


class LlmCallPage(Struct):
    results: list[LlmCallRow]
    count: int
    next: str | None
    previous: str | None
    next_cursor: str | None
    aggregates: LlmCallAggregates


class ModelNames(Struct):
    models: list[str]


def pricing(row: Mapping[str, Any], repricings: Sequence[CallsRepriced]) -> CallPricing:
    """The price that a call was made at, and the one that it has got since."""
    source, repriced = row["cost_source"], _repriced(row, repricings)
    if source not in ("override", "default"):
        return CallPricing(source, repriced=repriced)
    return CallPricing(
        source,
        per_million(row["price_in_pico"]),
        per_million(row["price_out_pico"]),
        row["price_model"],
        row["price_revision"] or None,
        repriced,
    )


def _repriced(row: Mapping[str, Any], repricings: Sequence[CallsRepriced]) -> CallRepricing | None:
    found = next((item for item in repricings if item.version == row["cost_version"]), None)
    if found is None:
        return None
    price = next(
        each
        for each in found.prices
        if each.model == row["model"] and each.since <= row["at"] < each.until
    )
    return CallRepricing(
        version=found.version,
        repriced_at=iso(found.repriced_at),
        original_cost=row["cost"],
        source=cast("CostSource", price.source),
        input_cost_per_million=per_million(price.input_price_pico),
        output_cost_per_million=per_million(price.output_price_pico),
        model_id=price.price_model,
        revision=price.price_revision or None,
    )


def dollars(pico: int | str) -> float:
    """The number of dollars nearest to a sum of picodollars."""
    return int(pico) / PICODOLLARS


async def list_llm_calls(call: Call[None, ListLlmCalls]) -> LlmCallPage:
    asked = call.query
    selection = Selection(
        tenant=call.tenant,
        search=asked.search,
        models=[model for model in asked.model if model],
        agent=asked.agent,
        min_cost=asked.min_cost,
        max_cost=asked.max_cost,
        min_tokens=asked.min_tokens,
        max_tokens=asked.max_tokens,
        since=instant(asked.start, "start"),
        until=instant(asked.end, "end", end=True),
        costs=await costs_now(call),
    )
    listing = Listing(f"llm-calls {asked.sort}", queries.order_by(asked.sort, selection.costs))
    page = window(asked, listing)

    total, rows, names = await exactly(
        call.services, call.tenant, lambda ask: _answer(ask, call, selection, listing, page)
    )
    found = shown(call, page, listing, rows, total["calls"])
    return LlmCallPage(
        results=[LlmCallRow(**_fields(row, names)) for row in found.rows],
        count=total["calls"],
        next=found.next,
        previous=found.previous,
        next_cursor=found.next_cursor,
        aggregates=LlmCallAggregates(
            total_cost=dollars(total["total_pico"]),
            total_tokens=int(total["tokens"]),
            total_calls=total["calls"],
            models_used=list(total["models"]),
        ),
    )


async def _answer(
    ask: Ask,
    call: Call[None, ListLlmCalls],
    selection: Selection,
    listing: Listing,
    page: Window,
) -> tuple[Mapping[str, Any], Rows, Names]:
    """What all calls add up to; the rows of a page, and one more where there are more; and the
    names of their runs."""
    parts: Iterable[Selection] = [selection]
    if call.query.sort == "-created_at":
        parts = queries.newest(selection, page, call.services.clock.now())
        if selection.search:
            # Few lie anywhere: a page is looked for where they are filed.
            (total,) = await ask(aggregates_and_periods(selection, FEW_MAX + 1))
            if total["calls"] <= FEW_MAX:
                parts = queries.newest_of_few(selection, page, total["periods"])
            return total, *await _named_page(ask, call.tenant, parts, listing, page)
    (total,), (rows, names) = await asyncio.gather(
        ask(aggregates(selection)), _named_page(ask, call.tenant, parts, listing, page)
    )
    return total, rows, names


async def _named_page(
    ask: Ask, tenant: str, parts: Iterable[Selection], listing: Listing, page: Window
) -> tuple[Rows, Names]:
    """The page of the first part that has more, or else of the last; and the names of its runs."""
    rows: Rows = []
    for part in parts:
        rows = await ask(queries.page(part, listing.order, page))
        if len(rows) > page.limit:
            break
    return rows, await names_of_calls(ask, tenant, rows[: page.limit])


async def get_llm_call(call: Call[None, None]) -> LlmCallDetail:
    repricings = await repricings_of(call)
    query = queries.one(call.tenant, call.path["call_id"], costs=costs(repricings))

    async def answer(ask: Ask) -> tuple[Mapping[str, Any], Names]:
        found = await ask(query)
        if not found:
            not_found("There is no such LLM call")
        return found[0], await names_of_calls(ask, call.tenant, found)

    row, names = await exactly(call.services, call.tenant, answer)
    return LlmCallDetail(
        **_fields(row, names),
        metadata=Raw(row["metadata"].encode()),
        pricing=pricing(row, repricings),
    )


async def list_models(call: Call[None, None]) -> ModelNames:
    query = queries.models(call.tenant)
    rows = await exactly(call.services, call.tenant, lambda ask: ask(query))
    return ModelNames([row["model"] for row in rows])


async def names_of_calls(ask: Ask, tenant: str, calls: Rows) -> Names:
    """Those of the runs of calls."""
    # The start of a trace mostly lies where its calls do.
    periods = {call["filed_period"] for call in calls}
    return await names_of_runs(ask, tenant, {call["run_id"] for call in calls}, periods)


async def names_of_runs(
    ask: Ask, tenant: str, run_ids: Set[str], periods: Set[int] = frozenset()
) -> Names:
    """Those of runs; a run whose start is not reported yet has none. periods: under which runs may
    be filed whose ids have no time."""
    if not run_ids:
        return {}
    likely = periods | {filed_period(run_id) for run_id in run_ids}
    rows = await ask(queries.names_of_runs(tenant, run_ids, likely))
    lacking = run_ids - {row["run_id"] for row in rows}
    # One with a time has not been reported if it is not filed there.
    if others := [run_id for run_id in lacking if made_at(run_id) is None]:
        rows = [*rows, *await ask(queries.names_of_runs_anywhere(tenant, others))]
    return {row["run_id"]: (row["agent_name"], row["workflow_name"]) for row in rows}


def _fields(row: Mapping[str, Any], names: Names) -> dict[str, Any]:
    agent, workflow = names.get(row["run_id"], ("", ""))
    kept = {name: row[name] for name in LlmCallRow.__struct_fields__ if name in row}
    return {
        **kept,
        "cost": dollars(row["latest_pico"]) if row["cost_version"] else row["cost"],
        "agent_name": agent,
        "workflow_name": workflow,
        "created_at": iso(row["at"]),
    }


def _row(path: str, handler: Any, response: Any, summary: str, **more: Any) -> Route:
    return Route(
        "GET",
        f"/api/v1/observability/llm-calls/{path}",
        handler,
        dialect=OBSERVE,
        who=Who.SESSION_OR_KEY,
        roles=READERS,
        response=response,
        tags=("llm-calls",),
        summary=summary,
        analytics=True,
        **more,
    )


ROUTES = [
    _row("", list_llm_calls, LlmCallPage, "List LLM calls", query=ListLlmCalls),
    _row("models/", list_models, ModelNames, "List the models used"),
    _row("{call_id}/", get_llm_call, LlmCallDetail, "Get an LLM call", refusals=(404,)),
]
