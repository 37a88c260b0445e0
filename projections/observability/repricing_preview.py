"""What a repricing is about and what it would change, before anybody decides it."""

from typing import Any

from projections.observability.cost_versions import Costs
from projections.observability.llm_calls import LLM_CALLS
from projections.observability.ordering import Query

_CALLS = f"""
FROM {LLM_CALLS.table} WHERE tenant = {{tenant:String}} AND cost_source != 'client'
AND created_at >= fromUnixTimestamp64Micro({{since:Int64}}, 'UTC')
AND created_at < fromUnixTimestamp64Micro({{until:Int64}}, 'UTC')
"""


Time = tuple[int, int]
"""From when until (not at) when, in microseconds."""


def _params(tenant: str, time: Time) -> dict[str, Any]:
    return {"tenant": tenant, "since": time[0], "until": time[1]}


def models(tenant: str, time: Time, limit: int) -> Query:
    """The models of calls that came without a cost in a time, at most `limit`."""
    sql = f"SELECT DISTINCT model {_CALLS} ORDER BY model LIMIT {{limit:UInt32}}"
    return Query(sql, {**_params(tenant, time), "limit": limit})


def differences(tenant: str, time: Time, names: list[str], *, old: Costs, new: Costs) -> Query:
    """By model: calls, what they cost (old_pico) and what they would (new_pico)."""
    sums = ", ".join(
        f"toString(sum(toInt128({costs.pico}))) AS {name}_pico"
        for name, costs in (("old", old), ("new", new))
    )
    sql = (
        f"SELECT model, count() AS calls, {sums} {_CALLS}"
        " AND model IN {names:Array(String)} GROUP BY model ORDER BY model"
    )
    return Query(sql, {**_params(tenant, time), "names": names, **old.params, **new.params})
