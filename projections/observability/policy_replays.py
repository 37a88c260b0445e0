"""What a policy is replayed over: the runs of some days, and what was used by the minute.

Each function gives SQL and its parameters; nothing from a request is ever part of the SQL.
"""

from projections.observability.llm_calls import LLM_CALLS
from projections.observability.ordering import Query
from projections.observability.run_starts import RUN_STARTS

_AFTER = "fromUnixTimestamp64Micro({since:Int64}, 'UTC')"


def runs(tenant: str, since: int, limit: int) -> Query:
    """The newest runs that began from `since` on, the newest first, and the models they called."""
    sql = (
        "SELECT r.run_id AS run_id, r.agent_name AS agent_name, r.workflow_name AS workflow_name,"
        " r.agent_id AS agent_id, toUnixTimestamp64Micro(r.started_at) AS at, c.models AS models"
        f" FROM (SELECT * FROM {RUN_STARTS.table} WHERE tenant = {{tenant:String}}"
        f" AND started_at >= {_AFTER} ORDER BY started_at DESC, run_id DESC"
        " LIMIT {limit:UInt32}) AS r"
        " LEFT JOIN (SELECT run_id, arraySort(groupUniqArray(model)) AS models"
        f" FROM {LLM_CALLS.table} WHERE tenant = {{tenant:String}} AND created_at >= {_AFTER}"
        " GROUP BY run_id) AS c ON c.run_id = r.run_id"
        " ORDER BY at DESC, run_id DESC"
    )
    return Query(sql, {"tenant": tenant, "since": since, "limit": limit})


def usage(tenant: str, since: int, limit: int) -> Query:
    """By minute, agent, workflow and agent id what LLM calls used, the oldest first; `at` is the
    last of the minute's calls."""
    sql = (
        "SELECT s.agent_name AS agent_name, s.workflow_name AS workflow_name,"
        " s.agent_id AS agent_id, toUnixTimestamp64Micro(max(c.created_at)) AS at,"
        " count() AS calls, toString(sum(toInt128(c.total_tokens))) AS tokens,"
        " toString(sum(toInt128(c.cost_pico))) AS cost_pico"
        " FROM (SELECT run_id, created_at, total_tokens, cost_pico"
        f" FROM {LLM_CALLS.table} WHERE tenant = {{tenant:String}} AND created_at >= {_AFTER}) AS c"
        " LEFT JOIN (SELECT run_id, agent_name, workflow_name, agent_id"
        f" FROM {RUN_STARTS.table} WHERE tenant = {{tenant:String}}) AS s ON s.run_id = c.run_id"
        " GROUP BY toStartOfMinute(c.created_at), agent_name, workflow_name, agent_id"
        " ORDER BY at, agent_name, workflow_name, agent_id LIMIT {limit:UInt32}"
    )
    return Query(sql, {"tenant": tenant, "since": since, "limit": limit})
