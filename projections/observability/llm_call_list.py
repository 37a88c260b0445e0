"""Queries on LLM calls: a page, one call, the models used.

Each function gives SQL and its parameters; nothing from a request is ever part of the SQL. Instants
come out as microseconds, a later cost as whole picodollars in text (it may exceed 64 bits).
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

from msgspec import Struct, structs

from projections.observability.cost_versions import AS_IT_CAME, Costs
from projections.observability.items import PERIOD_MICROS, RUNS_NAMED
from projections.observability.kept_sums import GREATEST, HOUR, HOUR_MICROS
from projections.observability.llm_calls import LLM_CALLS
from projections.observability.ordering import (
    Key,
    Kind,
    Order,
    Query,
    Window,
    instant_parameter,
    like,
    page_of,
)
from projections.observability.run_starts import RUN_STARTS

PREVIEW_CHARACTERS = 500
"""How much of a preview a list shows; the call's own page has it whole."""

_DAY = 86_400_000_000
NEWEST_SPANS = (_DAY, 7 * _DAY)
"""Microseconds."""

DEEP_MAX = 1_000
"""How deep a page may reach for the greatest to be found by what is kept of hours."""

Sort = Literal[
    "created_at", "-created_at", "cost", "-cost", "total_tokens", "-total_tokens", "model", "-model"
]


class Selection(Struct, frozen=True, kw_only=True):
    """Which calls. Bounds are inclusive but for `until`; instants are microseconds."""

    tenant: str
    search: str = ""
    models: list[str] = []
    agent: str = ""
    min_cost: float | None = None
    max_cost: float | None = None
    min_tokens: int | None = None
    max_tokens: int | None = None
    since: int | None = None
    until: int | None = None
    costs: Costs = AS_IT_CAME
    in_hours: tuple[int | None, int | None] = (None, None)

    @property
    def kept(self) -> bool:
        """Whether sums of it are kept, by hour and model."""
        by_more = self.search or self.agent
        bounds = (self.min_cost, self.max_cost, self.min_tokens, self.max_tokens)
        return not by_more and self.costs == AS_IT_CAME and all(bound is None for bound in bounds)

    def stretches(self) -> list["Selection"]:
        """The same calls in parts, of which the first is of whole hours if there are any in it."""
        since, until = self.since, self.until
        first = None if since is None else -(-since // HOUR_MICROS)
        last = None if until is None else until // HOUR_MICROS
        if first is not None and last is not None and first >= last:
            return [self]
        found = [structs.replace(self, since=None, until=None, in_hours=(first, last))]
        if first is not None and since != first * HOUR_MICROS:
            found.append(structs.replace(self, until=first * HOUR_MICROS))
        if last is not None and until != last * HOUR_MICROS:
            found.append(structs.replace(self, since=last * HOUR_MICROS))
        return found

    def where(self, prefix: str = "") -> Query:
        """The condition. Its parameters have the names of the fields, those of time with the
        prefix."""
        conditions = ["tenant = {tenant:String}"]
        params: dict[str, Any] = {"tenant": self.tenant, **self.costs.params}

        def add(name: str, value: Any, condition: str) -> None:
            if value not in (None, "", []):
                conditions.append(condition)
                params[name] = value

        since, until = f"{prefix}since", f"{prefix}until"
        add(since, self.since, f"created_at >= {instant_parameter(since)}")
        add(until, self.until, f"created_at < {instant_parameter(until)}")
        first, last = f"{prefix}first_hour", f"{prefix}last_hour"
        add(first, self.in_hours[0], f"{HOUR} >= {{{first}:Int64}}")
        add(last, self.in_hours[1], f"{HOUR} < {{{last}:Int64}}")
        add("models", self.models, "model IN {models:Array(String)}")
        add(
            "agent",
            self.agent,
            f"run IN (SELECT run FROM {RUN_STARTS.table}"
            " WHERE tenant = {tenant:String} AND agent_name = {agent:String})",
        )
        add("min_cost", self.min_cost, f"{self.costs.dollars} >= {{min_cost:Float64}}")
        add("max_cost", self.max_cost, f"{self.costs.dollars} <= {{max_cost:Float64}}")
        add("min_tokens", self.min_tokens, "total_tokens >= {min_tokens:Int64}")
        add("max_tokens", self.max_tokens, "total_tokens <= {max_tokens:Int64}")
        if self.search:
            add("search", like(self.search), "search_text LIKE {search:String}")
        return Query(" AND ".join(conditions), params)


_FIELDS = """id, run_id, filed_period, model, task, tokens_in, tokens_out, total_tokens, cost,
 toUnixTimestamp64Micro(created_at) AS at, prompt_hash"""

_PRICE = "cost_source, price_in_pico, price_out_pico, price_model, price_revision"


def _latest(costs: Costs) -> str:
    return f"toString({costs.pico}) AS latest_pico, {costs.version} AS cost_version"


def order_by(sort: Sort, costs: Costs = AS_IT_CAME) -> Order:
    """Calls that the sort leaves equal come newest first, those of one report last first: an order
    that doesn't depend on when which report arrived at the log.

    costs: those of the selection that is ordered, which has their parameters.
    """
    name = sort.lstrip("-")
    kinds: dict[str, Kind] = {"created_at": "instant", "cost": "float", "model": "text"}
    by = costs.dollars if name == "cost" else name
    first = Key(by, kinds.get(name, "integer"), sort.startswith("-"))
    return Order((first, *reported_order(ascending=sort == "created_at")))


def reported_order(*, ascending: bool) -> tuple[Key, ...]:
    """The order in which items of runs were reported: all that tells two of them apart."""
    kinds: dict[str, Kind] = {
        "created_at": "instant",
        "run_id": "text",
        "_index": "integer",
        "id": "text",
    }
    return tuple(Key(name, kind, not ascending) for name, kind in kinds.items())


def page(selection: Selection, order: Order, window: Window) -> Query:
    """One page."""
    where, params = selection.where()
    reaching, bound = _reaching(selection, order, window)
    fields = (
        f"{_FIELDS}, {_latest(selection.costs)},"
        f" substringUTF8(prompt_preview, 1, {PREVIEW_CHARACTERS}) AS prompt_preview,"
        f" substringUTF8(response_preview, 1, {PREVIEW_CHARACTERS}) AS response_preview"
    )
    source = Query(f"FROM {LLM_CALLS.table} WHERE {where} AND {reaching}", {**params, **bound})
    return page_of(fields, source, order, window)


def _reaching(selection: Selection, order: Order, window: Window) -> Query:
    """A condition that holds for all rows of the page and, as an index tells, for few others.

    Where the greatest come first, it is that of so many hours and models as the page reaches deep
    each one has a greatest of its own: so many rows are at least as great as the least of these.
    """
    first, deep = order.keys[0], window.offset + window.limit + 1
    whole = selection.stretches()[0]
    able = first.sql in GREATEST and first.descending and window.behind is None
    if not able or not selection.kept or deep > DEEP_MAX or whole.since is not None:
        return Query("true", {})
    where, params = whole.where("reaching_")
    greatest = (
        f"SELECT max({first.sql}) AS greatest FROM {LLM_CALLS.table} WHERE {where}"
        f" GROUP BY {HOUR}, model ORDER BY greatest DESC LIMIT {{deep:UInt32}}"
    )
    least = f"if(count() = {{deep:UInt32}}, min(greatest), {GREATEST[first.sql]})"
    return Query(f"{first.sql} >= (SELECT {least} FROM ({greatest}))", {**params, "deep": deep})


def newest(selection: Selection, window: Window, now: int) -> Iterator[Selection]:
    """Where to look for a page of the newest first: in the last day, the last week, everywhere.

    A page that is found whole in a part of the time is the page. now: microseconds; nothing is lost
    of calls that clocks put behind it.
    """
    ends = [now] if selection.until is None else [now, selection.until]
    if window.behind is not None:
        ends.append(window.behind[0])
    for span in NEWEST_SPANS:
        since = min(ends) - span
        if selection.since is not None and since <= selection.since:
            break
        yield structs.replace(selection, since=since)
    yield selection


def newest_of_few(
    selection: Selection, window: Window, periods: Sequence[int]
) -> Iterator[Selection]:
    """Where to look for a page of the newest first of few: where as many are filed, everywhere.

    periods: those under which all the calls are filed; of none there is nothing to look for.
    """
    if not periods:
        return
    if window.behind is not None:
        last = window.behind[0] // PERIOD_MICROS
        periods = [period for period in periods if period < last]
    deep = window.offset + window.limit
    if deep < len(periods):
        since = sorted(periods, reverse=True)[deep] * PERIOD_MICROS
        yield structs.replace(selection, since=max(since, selection.since or 0))
    yield selection


def one(tenant: str, call_id: str, *, run_id: str = "", costs: Costs = AS_IT_CAME) -> Query:
    """The newest call with this id (of a run, if given), previews whole, and the price it was made
    at."""
    of_run = " AND run_id = {run_id:String}" if run_id else ""
    sql = (
        f"SELECT {_FIELDS}, prompt_preview, response_preview, metadata, {_PRICE},"
        f" {_latest(costs)} FROM {LLM_CALLS.table}"
        f" WHERE tenant = {{tenant:String}} AND id = {{id:String}}{of_run}"
        " ORDER BY created_at DESC LIMIT 1"
    )
    return Query(sql, {"tenant": tenant, "id": call_id, "run_id": run_id, **costs.params})


def models(tenant: str) -> Query:
    """Every model the tenant has used."""
    sql = (
        f"SELECT model FROM {LLM_CALLS.table} WHERE tenant = {{tenant:String}}"
        " GROUP BY model ORDER BY model"
    )
    return Query(sql, {"tenant": tenant})


_NAMES = f"SELECT run_id, agent_name, workflow_name FROM {RUN_STARTS.table}"


def names_of_runs(tenant: str, run_ids: Iterable[str], periods: Iterable[int]) -> Query:
    """Agent and workflow of runs whose starts are filed under these periods."""
    sql = (
        f"{_NAMES} WHERE tenant = {{tenant:String}} AND filed_period IN {{periods:Array(UInt32)}}"
        " AND run_id IN {run_ids:Array(String)}"
    )
    params = {"periods": sorted(set(periods)), "run_ids": sorted(set(run_ids))}
    return Query(sql, {"tenant": tenant, **params})


def names_of_runs_anywhere(tenant: str, run_ids: Iterable[str]) -> Query:
    """Agent and workflow of runs; a run whose start is not reported yet has no row."""
    sql = f"{_NAMES} WHERE tenant = {{tenant:String}} AND run IN (SELECT run FROM {RUNS_NAMED})"
    return Query(sql, {"tenant": tenant, "run_ids": sorted(set(run_ids))})


def models_of_calls(tenant: str, calls: list[tuple[str, str]]) -> Query:
    """The models of calls, each named by its run and its id; those not reported yet have no row."""
    sql = (
        f"SELECT run_id, id, model FROM {LLM_CALLS.table} WHERE tenant = {{tenant:String}}"
        f" AND run IN (SELECT run FROM {RUNS_NAMED}) AND id IN {{ids:Array(String)}}"
    )
    run_ids, ids = (sorted({call[part] for call in calls}) for part in (0, 1))
    return Query(sql, {"tenant": tenant, "run_ids": run_ids, "ids": ids})
