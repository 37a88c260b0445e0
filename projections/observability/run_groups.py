"""Queries on sessions and on users: runs grouped by what their starts name.

A filter chooses the groups that have a run which fits all of it; what is shown of a group is of all
its runs. Last activity is the latest start or completion. Durations are of completed runs, in
microseconds; one that ended before it began (clocks differ) lasted no time. Sums of money are whole
picodollars in text, of each call's latest cost. A page is chosen by what its order needs; all else
is added up for the groups on it.
"""

from typing import Any, Literal

from msgspec import Struct

from projections.observability.cost_versions import Costs
from projections.observability.kept_sums import CALLS, TOKENS, pico
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
from projections.observability.run_starts import NO_SESSION, RUN_STARTS, SESSION_NUMBER

GroupedBy = Literal["session_id", "user_id"]
Measure = Literal["last_at", "first_at", "run_count"]


class Groups(Struct, frozen=True, kw_only=True):
    """Which groups. `since` is included, `until` is not; both are of a run's start."""

    tenant: str
    by: GroupedBy
    search: str = ""
    agent: str = ""
    since: int | None = None
    until: int | None = None

    @property
    def all(self) -> bool:
        """Whether every group is asked for."""
        return not (self.search or self.agent) and self.since is None and self.until is None

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


def _ended(fields: str, condition: str) -> str:
    """These fields of the runs that fit, with `status` and `ended_at`, which is the beginning of
    1970 for one that goes on."""
    runs = f"SELECT run FROM {RUN_STARTS.table} WHERE {condition}"
    return (
        f"(SELECT {fields}, run, started_at FROM {RUN_STARTS.table} WHERE {condition}) AS starts"
        " ANY LEFT JOIN (SELECT run, status, completed_at AS ended_at"
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
) -> Query:
    """The ids of one page, in order: what there is to them, `details` tells.

    since: look for last activity from this instant on only. A page that is full then is the page,
    when the latest come first.
    """
    condition, params = groups.where()
    if order.keys[0].sql == "last_at":
        found = _last_activity(groups.by, condition, recent=since is not None)
        params |= {} if since is None else {"active_since": since}
    else:
        found = (
            f"SELECT {groups.by} AS id, count() AS run_count, min(started_at) AS first_at"
            f" FROM {RUN_STARTS.table} WHERE {condition} GROUP BY id"
        )
    sql, params = page_of("id", Query(f"FROM ({found}) WHERE true", params), order, window)
    if since is not None:
        # The engine would take runs in another order, in which few could be left out.
        sql += " SETTINGS optimize_use_projections = 0"
    return Query(sql, params)


def _last_activity(by: GroupedBy, condition: str, *, recent: bool) -> str:
    begun, ended, filed = "true", "tenant = {tenant:String}", ""
    starts, ends = RUN_STARTS.table, RUN_COMPLETIONS.table
    if recent:
        begun = f"started_at >= {instant_parameter('active_since')}"
        ended = f"{ended} AND completed_at >= {instant_parameter('active_since')}"
        # A run's start is filed under the same period as its end, or anywhere, where nothing told
        # of the end when the run had begun.
        untold = f"SELECT count() FROM {ends} WHERE {ended} AND filed_period = 0"
        filed = (
            f" AND (filed_period IN (SELECT filed_period FROM {ends} WHERE {ended})"
            f" OR ({untold}) > 0)"
        )
    return (
        f"SELECT id, max(at) AS last_at FROM ("
        f"SELECT {by} AS id, started_at AS at FROM {starts} WHERE {condition} AND {begun}"
        f" UNION ALL SELECT id, completed_at AS at"
        f" FROM (SELECT run, {by} AS id FROM {starts} WHERE {condition}{filed}) AS starts"
        f" INNER JOIN (SELECT run, completed_at FROM {ends} WHERE {ended}) AS ends"
        " USING (run)) GROUP BY id"
    )


def order_by(measure: Measure, *, descending: bool) -> Order:
    """Groups that the measure leaves equal come in the order of their ids."""
    kind: Literal["integer", "instant"] = "integer" if measure == "run_count" else "instant"
    return Order((Key(measure, kind, descending), Key("id", "text")))


_BY_ONE_THREAD = (
    "SETTINGS max_threads = 1,"
    " group_by_two_level_threshold = 0, group_by_two_level_threshold_bytes = 0"
)
"""Half the work of two threads, and in one table, since there is nothing to share out. A page is
asked for at the same time."""


def count(groups: Groups) -> Query:
    """How many groups there are."""
    if groups.by == "session_id" and groups.all:
        return _count_sessions(groups.tenant)
    condition, params = groups.where()
    each = f"SELECT {groups.by} FROM {RUN_STARTS.table} WHERE {condition} GROUP BY {groups.by}"
    return Query(f"SELECT count() AS groups FROM ({each})", params)


def _count_sessions(tenant: str) -> Query:
    each = (
        f"SELECT {SESSION_NUMBER} FROM {RUN_STARTS.table}"
        f" WHERE tenant = {{tenant:String}} AND {SESSION_NUMBER} != {NO_SESSION}"
        f" GROUP BY {SESSION_NUMBER}"
    )
    return Query(f"SELECT count() AS groups FROM ({each}) {_BY_ONE_THREAD}", {"tenant": tenant})


def details(tenant: str, by: GroupedBy, ids: list[str]) -> Query:
    """What there is to groups, a row each in any order: id, run_count, agents, group_duration,
    first, last. None of an id that no run names."""
    sql = (
        f"SELECT {by} AS id, count() AS run_count, arraySort(groupUniqArray(agent_name)) AS agents,"
        f" sum({_DURATION}) AS group_duration, toUnixTimestamp64Micro(min(started_at)) AS first,"
        " toUnixTimestamp64Micro(max(greatest(started_at, ended_at))) AS last"
        f" FROM {_ended(f'{by}, agent_name', _named(by))} GROUP BY id"
    )
    return Query(sql, {"tenant": tenant, "ids": ids})


def costs(tenant: str, by: GroupedBy, ids: list[str], latest: Costs) -> Query:
    """What the LLM calls of groups add up to: id, group_tokens, group_pico. Without calls, no
    row."""
    runs = f"SELECT run, {by} AS group_id FROM {RUN_STARTS.table} WHERE {_named(by)}"
    sql = (
        "SELECT group_id AS id, toString(sum(tokens)) AS group_tokens,"
        " toString(sum(pico)) AS group_pico"
        f" FROM ({_sums_of_runs(f'SELECT run FROM ({runs})', latest)}) AS calls"
        f" INNER JOIN ({runs}) AS runs USING (run) GROUP BY group_id"
    )
    return Query(sql, {"tenant": tenant, "ids": ids, **latest.params})


def _sums_of_runs(runs: str, latest: Costs) -> str:
    return (
        f"SELECT run, {TOKENS} AS tokens, {pico(latest.pico)} AS pico FROM {LLM_CALLS.table}"
        f" WHERE tenant = {{tenant:String}} AND run IN ({runs}) GROUP BY run"
    )


def runs(
    tenant: str, by: GroupedBy, id: str, window: Window, latest: Costs, *, newest_first: bool
) -> Query:
    """Runs of a group in the order they started, with what their LLM calls add up to (tokens,
    total_pico), and in each row what there is to the whole group, as `details` and `costs` tell it.

    `ended` is 0, and the status empty, for a run that goes on.
    """
    turn = "DESC" if newest_first else "ASC"
    # So far the page reaches: of its runs alone the texts are read.
    reach = f"ORDER BY started_at {turn} LIMIT {{reach:UInt64}} WITH TIES"
    of_group = f"SELECT run FROM {RUN_STARTS.table} WHERE {_named(by)}"
    summed = (
        f"SELECT run, agent_name, status, started_at, ended_at, {_DURATION} AS duration,"
        " tokens, pico, count() OVER () AS run_count, groupUniqArray(agent_name) OVER () AS agents,"
        " sum(duration) OVER () AS group_duration, min(started_at) OVER () AS first,"
        " max(greatest(started_at, ended_at)) OVER () AS last,"
        " sum(tokens) OVER () AS group_tokens, sum(pico) OVER () AS group_pico"
        f" FROM {_ended('agent_name', _named(by))}"
        f" LEFT JOIN ({_sums_of_runs(of_group, latest)}) AS calls USING (run) {reach}"
    )
    sql = (
        "SELECT run_id, agent_name, workflow_name, trace_id, status, duration,"
        " toUnixTimestamp64Micro(started_at) AS started, toUnixTimestamp64Micro(ended_at) AS ended,"
        " toString(tokens) AS tokens, toString(pico) AS total_pico, run_count,"
        " arraySort(agents) AS agents, group_duration, toUnixTimestamp64Micro(first) AS first,"
        " toUnixTimestamp64Micro(last) AS last, toString(group_tokens) AS group_tokens,"
        f" toString(group_pico) AS group_pico FROM ({summed}) AS summed ANY LEFT JOIN"
        f" (SELECT run, run_id, workflow_name, trace_id FROM {RUN_STARTS.table}"
        " WHERE tenant = {tenant:String} AND (filed_period, run) IN"
        f" (SELECT filed_period, run FROM {RUN_STARTS.table} WHERE {_named(by)} {reach}))"
        " AS named USING (run)"
        f" ORDER BY started_at {turn}, run_id {turn}"
        " LIMIT {limit:UInt32} OFFSET {offset:UInt64}"
    )
    page = {"limit": window.limit, "offset": window.offset, "reach": window.offset + window.limit}
    return Query(sql, {"tenant": tenant, "ids": [id], **page, **latest.params})


def costs_by_model(tenant: str, by: GroupedBy, id: str, latest: Costs) -> Query:
    """What a group's LLM calls add up to per model, the dearest first: model, calls, tokens,
    total_pico."""
    sql = (
        f"SELECT model, {CALLS} AS calls, toString({TOKENS}) AS tokens,"
        f" toString({pico(latest.pico)}) AS total_pico"
        f" FROM {LLM_CALLS.table} WHERE tenant = {{tenant:String}} AND run IN"
        f" (SELECT run FROM {RUN_STARTS.table} WHERE {_named(by)}) GROUP BY model"
        " ORDER BY toInt128(total_pico) DESC, calls DESC, model"
    )
    return Query(sql, {"tenant": tenant, "ids": [id], **latest.params})
