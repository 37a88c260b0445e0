"""The LLM calls that were made with a prompt's versions, found by the hash of the content."""

from collections.abc import Sequence

from projections.observability.llm_call_list import Query
from projections.observability.llm_calls import LLM_CALLS


def per_hash(tenant: str, hashes: Sequence[str]) -> Query:
    """One row for each hash that calls have reported: prompt_hash, calls, tokens, cost_pico."""
    sql = (
        "SELECT prompt_hash, count() AS calls, toString(sum(toInt128(total_tokens))) AS tokens,"
        f" toString(sum(toInt128(cost_pico))) AS cost_pico FROM {LLM_CALLS.table}"
        " WHERE tenant = {tenant:String} AND prompt_hash IN {hashes:Array(String)}"
        " GROUP BY prompt_hash"
    )
    return Query(sql, {"tenant": tenant, "hashes": list(hashes)})
