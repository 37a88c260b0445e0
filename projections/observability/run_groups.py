"""Queries on sessions and on users: runs grouped by what their starts name.

A filter chooses the groups that have a run which fits all of it; what is shown of a group is of all
its runs. Last activity is the latest start or completion. Durations are of completed runs, in
microseconds; one that ended before it began (clocks differ) lasted no time. Sums of money are whole
picodollars in text, of each call's latest cost. A page is chosen from runs alone: LLM calls are
summed for the groups on it.
"""

from typing import Any, Literal

from msgspec import Struct

from projections.observability.cost_versions import Costs
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

    def chosen(self) -> tuple[str, str, dict[str, Any]]:
        """The condition on runs, the condition on groups, and the parameters of both."""
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
        having = f"countIf({' AND '.join(fits)}) > 0" if fits else "true"
        return " AND ".join(conditions), having, params


def _ended(condition: str, of_runs: str = "") -> str:
    """Runs with `ended_at`, which is the beginning of 1970 for one that goes on.

    of_runs: a condition that leaves out completions of other runs.
    """
    return (
        f"(SELECT * FROM {RUN_STARTS.table} WHERE {condition}) AS starts"
        f" LEFT JOIN (SELECT run_id, status, completed_at AS ended_at FROM {RUN_COMPLETIONS.table}"
        f" WHERE tenant = {{tenant:String}}{of_runs}) AS ends USING (run_id)"
    )


def _ended_of_one(by: GroupedBy) -> str:
    condition = f"tenant = {{tenant:String}} AND {by} = {{id:String}}"
    of_runs = f" AND run_id IN (SELECT run_id FROM {RUN_STARTS.table} WHERE {condition})"
    return _ended(condition, of_runs)


_DURATION = (
    "if(toUnixTimestamp64Micro(ended_at) = 0, 0,"
    " greatest(0, toUnixTimestamp64Micro(ended_at) - toUnixTimestamp64Micro(started_at)))"
)


def _grouped(by: GroupedBy, runs: str, having: str = "true") -> str:
    return (
        f"FROM (SELECT {by} AS id, count() AS run_count, min(started_at) AS first_at,"
        f" max(greatest(started_at, ended_at)) AS last_at, sum({_DURATION}) AS duration,"
        f" arraySort(groupUniqArray(agent_name)) AS agents FROM {runs}"
        f" GROUP BY id HAVING {having}) WHERE true"
    )


_FIELDS = """id, run_count, agents, duration,
 toUnixTimestamp64Micro(first_at) AS first, toUnixTimestamp64Micro(last_at) AS last"""


def page(groups: Groups, order: Order, window: Window) -> Query:
    """One page."""
    condition, having, params = groups.chosen()
    source = Query(_grouped(groups.by, _ended(condition), having), params)
    return page_of(_FIELDS, source, order, window)


def order_by(measure: Measure, *, descending: bool) -> Order:
    """Groups that the measure leaves equal come in the order of their ids."""
    kind: Literal["integer", "instant"] = "integer" if measure == "run_count" else "instant"
    return Order((Key(measure, kind, descending), Key("id", "text")))


def count(groups: Groups) -> Query:
    """How many groups there are."""
    condition, having, params = groups.chosen()
    found = f"SELECT {groups.by} AS id FROM {RUN_STARTS.table} WHERE {condition}"
    return Query(f"SELECT count() AS groups FROM ({found} GROUP BY id HAVING {having})", params)


def one(tenant: str, by: GroupedBy, id: str) -> Query:
    """The group of an id, as on a page; no row when no run names it."""
    sql = f"SELECT {_FIELDS} {_grouped(by, _ended_of_one(by))}"
    return Query(sql, {"tenant": tenant, "id": id})


def costs(tenant: str, by: GroupedBy, ids: list[str], latest: Costs) -> Query:
    """What the LLM calls of groups add up to: id, tokens, total_pico. Without calls, no row."""
    runs = (
        f"SELECT run_id, {by} AS group_id FROM {RUN_STARTS.table}"
        f" WHERE tenant = {{tenant:String}} AND {by} IN {{ids:Array(String)}}"
    )
    sql = (
        f"SELECT group_id AS id, {_sums('pico')}"
        f" FROM (SELECT run_id, total_tokens, {latest.pico} AS pico"
        f" FROM {LLM_CALLS.table} WHERE tenant = {{tenant:String}}"
        f" AND run_id IN (SELECT run_id FROM ({runs}))) AS calls"
        f" INNER JOIN ({runs}) AS runs USING (run_id) GROUP BY group_id"
    )
    return Query(sql, {"tenant": tenant, "ids": ids, **latest.params})


def runs(tenant: str, by: GroupedBy, id: str, window: Window, *, newest_first: bool) -> Query:
    """Runs of a group in the order they started. `ended` is 0, and the status empty, for a run that
    goes on."""
    turn = "DESC" if newest_first else "ASC"
    sql = (
        "SELECT run_id, agent_name, workflow_name, trace_id, status,"
        " toUnixTimestamp64Micro(started_at) AS started,"
        f" toUnixTimestamp64Micro(ended_at) AS ended, {_DURATION} AS duration"
        f" FROM {_ended_of_one(by)} ORDER BY started_at {turn}, run_id {turn}"
        " LIMIT {limit:UInt32} OFFSET {offset:UInt64}"
    )
    page = {"limit": window.limit, "offset": window.offset}
    return Query(sql, {"tenant": tenant, "id": id, **page})


def costs_of_runs(tenant: str, run_ids: list[str], latest: Costs) -> Query:
    """What the LLM calls of runs add up to: run_id, tokens, total_pico. Without calls, no row."""
    sql = (
        f"SELECT run_id, {_sums(latest.pico)} FROM {LLM_CALLS.table}"
        " WHERE tenant = {tenant:String} AND run_id IN {run_ids:Array(String)} GROUP BY run_id"
    )
    return Query(sql, {"tenant": tenant, "run_ids": run_ids, **latest.params})


def costs_by_model(tenant: str, by: GroupedBy, id: str, latest: Costs) -> Query:
    """What a group's LLM calls add up to per model, the dearest first: model, calls, tokens,
    total_pico."""
    sql = (
        f"SELECT model, count() AS calls, {_sums(latest.pico)}"
        f" FROM {LLM_CALLS.table} WHERE tenant = {{tenant:String}} AND run_id IN"
        f" (SELECT run_id FROM {RUN_STARTS.table} WHERE tenant = {{tenant:String}}"
        f" AND {by} = {{id:String}}) GROUP BY model"
        " ORDER BY toInt128(total_pico) DESC, calls DESC, model"
    )
    return Query(sql, {"tenant": tenant, "id": id, **latest.params})
