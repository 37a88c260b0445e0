"""Queries on sessions and on users: runs grouped by what their starts name.

A filter chooses the groups that have a run which fits all of it; what is shown of a group is of all
its runs. Last activity is the latest start or completion. Durations are of completed runs, in
microseconds; one that ended before it began (clocks differ) lasted no time. Sums of money are whole
picodollars in text, of each call's latest cost. A page is chosen by what its order needs; all else
is added up for the groups on it.
"""

from typing import Any, Literal

from msgspec import Struct

from projections.clickhouse import ClickHouseView
from projections.observability.cost_versions import Costs
from projections.observability.items import RUNS_NAMED
from projections.observability.llm_calls import LLM_CALLS
from projections.observability.ordering import (
    Key,
    Order,
    Query,
    Window,
    instant_parameter,
    like,
    page_of,
)
from projections.observability.run_completions import RUN_COMPLETIONS
from projections.observability.run_starts import RUN_STARTS
from projections.observability.unmerged import OF_TENANT, as_they_lie, settled, settled_runs

_ENDED_SINCE = f"{OF_TENANT} AND completed_at >= {instant_parameter('active_since')}"
GroupedBy = Literal["session_id", "user_id"]
Measure = Literal["last_at", "first_at", "run_count"]


def _sums(pico: str) -> str:
    return (
        "toString(sum(toInt128(total_tokens))) AS tokens,"
        f" toString(sum(toInt128({pico}))) AS total_pico"
    )


class Groups(Struct, frozen=True, kw_only=True):
    """Which groups. `since` is included, `until` is not; both are of a run's start."""

    tenant: str
    by: GroupedBy
    search: str = ""
    agent: str = ""
    since: int | None = None
    until: int | None = None

    def where(self) -> Query:
        """The condition on the runs of the groups."""
        params: dict[str, Any] = {"tenant": self.tenant}
        conditions = ["tenant = {tenant:String}", f"{self.by} != ''"]
        if self.search:
            conditions.append(f"lowerUTF8({self.by}) LIKE {{search:String}}")
            params["search"] = like(self.search)
        fits = []
        if self.agent:
            fits.append("agent_name = {agent:String}")
            params["agent"] = self.agent
        for name, bound, compare in (("since", self.since, ">="), ("until", self.until, "<")):
            if bound is not None:
                fits.append(f"started_at {compare} {instant_parameter(name)}")
                params[name] = bound
        if fits:
            conditions.append(
                f"{self.by} IN (SELECT {self.by} FROM {RUN_STARTS.table}"
                f" WHERE tenant = {{tenant:String}} AND {' AND '.join(fits)})"
            )
        return Query(" AND ".join(conditions), params)


def _named(by: GroupedBy) -> str:
    return f"tenant = {{tenant:String}} AND {by} IN {{ids:Array(String)}}"


def _ended(condition: str) -> str:
    """The runs that fit, with `ended_at`: the beginning of 1970 for one that goes on."""
    runs = f"SELECT run FROM {RUN_STARTS.table} WHERE {condition}"
    return (
        f"(SELECT *, run FROM {RUN_STARTS.table} WHERE {condition}) AS starts"
        " LEFT JOIN (SELECT run, status, completed_at AS ended_at"
        f" FROM {RUN_COMPLETIONS.table} WHERE tenant = {{tenant:String}}"
        f" AND run IN ({runs})) AS ends USING (run)"
    )


_DURATION = (
    "if(toUnixTimestamp64Micro(ended_at) = 0, 0,"
    " greatest(0, toUnixTimestamp64Micro(ended_at) - toUnixTimestamp64Micro(started_at)))"
)


def page(
    groups: Groups,
    order: Order,
    window: Window,
    *,
    since: int | None = None,
    unmerged: bool = False,
) -> Query:
    """The ids of one page, in order: what there is to them, `details` tells.

    since: look for last activity from this instant on only. A page that is full then is the page,
    when the latest come first.
    """
    condition, params = groups.where()
    if order.keys[0].sql == "last_at":
        found = _last_activity(groups.by, condition, recent=since is not None)
        exact = _settled_activity(since)
        params |= {} if since is None else {"active_since": since}
    else:
        exact = settled(RUN_STARTS)
        found = (
            f"SELECT {groups.by} AS id, count() AS run_count, min(started_at) AS first_at"
            f" FROM {RUN_STARTS.table} WHERE {condition} GROUP BY id"
        )
    source = Query(f"FROM ({found}) WHERE true", params)
    fields = f"id, {exact} AS settled" if unmerged else "id"
    return _read(*page_of(fields, source, order, window), unmerged)


def _settled_activity(since: int | None) -> str:
    if since is None:
        return settled(RUN_STARTS, RUN_COMPLETIONS)
    ended = f"SELECT run FROM {RUN_COMPLETIONS.table} WHERE {_ENDED_SINCE}"
    return f"{settled(RUN_STARTS)} AND {settled_runs(RUN_COMPLETIONS, runs=ended)}"


def _last_activity(by: GroupedBy, condition: str, *, recent: bool) -> str:
    begun, ended = "true", "tenant = {tenant:String}"
    if recent:
        begun = f"started_at >= {instant_parameter('active_since')}"
        ended = _ENDED_SINCE
    starts, ends = RUN_STARTS.table, RUN_COMPLETIONS.table
    of_ended = f" AND run IN (SELECT run FROM {ends} WHERE {ended})" if recent else ""
    return (
        f"SELECT id, max(at) AS last_at FROM ("
        f"SELECT {by} AS id, started_at AS at FROM {starts} WHERE {condition} AND {begun}"
        f" UNION ALL SELECT id, completed_at AS at"
        f" FROM (SELECT run, completed_at FROM {ends} WHERE {ended}) AS ends"
        f" INNER JOIN (SELECT run, {by} AS id FROM {starts} WHERE {condition}{of_ended}) AS starts"
        " USING (run)) GROUP BY id"
    )


def order_by(measure: Measure, *, descending: bool) -> Order:
    """Groups that the measure leaves equal come in the order of their ids."""
    kind: Literal["integer", "instant"] = "integer" if measure == "run_count" else "instant"
    return Order((Key(measure, kind, descending), Key("id", "text")))


def count(groups: Groups, *, unmerged: bool = False) -> Query:
    """How many groups there are."""
    condition, params = groups.where()
    beside = f", {settled(RUN_STARTS)} AS settled" if unmerged else ""
    sql = (
        f"SELECT uniqExact({groups.by}) AS groups{beside} FROM {RUN_STARTS.table} WHERE {condition}"
    )
    return _read(sql, params, unmerged)


def details(tenant: str, by: GroupedBy, ids: list[str], *, unmerged: bool = False) -> Query:
    """What there is to groups, a row each in any order; none of an id that no run names."""
    sql = (
        f"SELECT {by} AS id, count() AS run_count, arraySort(groupUniqArray(agent_name)) AS agents,"
        f" sum({_DURATION}) AS duration, toUnixTimestamp64Micro(min(started_at)) AS first,"
        " toUnixTimestamp64Micro(max(greatest(started_at, ended_at))) AS last"
        f"{_settled_named(unmerged, by, RUN_STARTS, RUN_COMPLETIONS)}"
        f" FROM {_ended(_named(by))} GROUP BY id"
    )
    return _read(sql, {"tenant": tenant, "ids": ids}, unmerged)


def costs(
    tenant: str, by: GroupedBy, ids: list[str], latest: Costs, *, unmerged: bool = False
) -> Query:
    """What the LLM calls of groups add up to: id, tokens, total_pico. Without calls, no row."""
    runs = f"SELECT run, {by} AS group_id FROM {RUN_STARTS.table} WHERE {_named(by)}"
    sql = (
        f"SELECT group_id AS id, {_sums('pico')}"
        f"{_settled_named(unmerged, by, RUN_STARTS, LLM_CALLS)}"
        f" FROM (SELECT run, total_tokens, {latest.pico} AS pico"
        f" FROM {LLM_CALLS.table} WHERE tenant = {{tenant:String}}"
        f" AND run IN (SELECT run FROM ({runs}))) AS calls"
        f" INNER JOIN ({runs}) AS runs USING (run) GROUP BY group_id"
    )
    return _read(sql, {"tenant": tenant, "ids": ids, **latest.params}, unmerged)


def runs(
    tenant: str,
    by: GroupedBy,
    id: str,
    window: Window,
    *,
    newest_first: bool,
    unmerged: bool = False,
) -> Query:
    """Runs of a group in the order they started. `ended` is 0, and the status empty, for a run that
    goes on."""
    turn = "DESC" if newest_first else "ASC"
    sql = (
        "SELECT run_id, agent_name, workflow_name, trace_id, status,"
        " toUnixTimestamp64Micro(started_at) AS started,"
        f" toUnixTimestamp64Micro(ended_at) AS ended, {_DURATION} AS duration"
        f"{_settled_named(unmerged, by, RUN_STARTS, RUN_COMPLETIONS)}"
        f" FROM {_ended(_named(by))} ORDER BY started_at {turn}, run_id {turn}"
        " LIMIT {limit:UInt32} OFFSET {offset:UInt64}"
    )
    page = {"limit": window.limit, "offset": window.offset}
    return _read(sql, {"tenant": tenant, "ids": [id], **page}, unmerged)


def costs_of_runs(tenant: str, run_ids: list[str], latest: Costs) -> Query:
    """What the LLM calls of runs add up to: run_id, tokens, total_pico. Without calls, no row."""
    sql = (
        f"SELECT run_id, {_sums(latest.pico)} FROM {LLM_CALLS.table}"
        f" WHERE tenant = {{tenant:String}} AND run IN {RUNS_NAMED} GROUP BY run_id"
    )
    return Query(sql, {"tenant": tenant, "run_ids": run_ids, **latest.params})


def costs_by_model(
    tenant: str, by: GroupedBy, id: str, latest: Costs, *, unmerged: bool = False
) -> Query:
    """What a group's LLM calls add up to per model, the dearest first: model, calls, tokens,
    total_pico."""
    sql = (
        f"SELECT model, count() AS calls, {_sums(latest.pico)}"
        f"{_settled_named(unmerged, by, RUN_STARTS, LLM_CALLS)}"
        f" FROM {LLM_CALLS.table} WHERE tenant = {{tenant:String}} AND run IN"
        f" (SELECT run FROM {RUN_STARTS.table} WHERE {_named(by)}) GROUP BY model"
        " ORDER BY toInt128(total_pico) DESC, calls DESC, model"
    )
    return _read(sql, {"tenant": tenant, "ids": [id], **latest.params}, unmerged)


def _settled_named(unmerged: bool, by: GroupedBy, *views: ClickHouseView) -> str:
    runs = f"SELECT run FROM {RUN_STARTS.table} WHERE {_named(by)}"
    return f", {settled_runs(*views, runs=runs)} AS settled" if unmerged else ""


def _read(sql: str, params: dict[str, Any], unmerged: bool) -> Query:
    query = Query(sql, params)
    return as_they_lie(query) if unmerged else query
