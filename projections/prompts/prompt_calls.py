"""The LLM calls that were made with a prompt's versions, found by the hash of the content."""

from collections.abc import Sequence

from projections.observability.cost_versions import AS_IT_CAME, Costs
from projections.observability.llm_calls import LLM_CALLS
from projections.observability.ordering import Query


def per_hash(tenant: str, hashes: Sequence[str], costs: Costs = AS_IT_CAME) -> Query:
    """One row for each hash that calls have reported: prompt_hash, calls, tokens, total_pico."""
    sql = (
        "SELECT prompt_hash, count() AS calls, toString(sum(toInt128(total_tokens))) AS tokens,"
        f" toString(sum(toInt128({costs.pico}))) AS total_pico FROM {LLM_CALLS.table}"
        " WHERE tenant = {tenant:String} AND prompt_hash IN {hashes:Array(String)}"
        " GROUP BY prompt_hash"
    )
    return Query(sql, {"tenant": tenant, "hashes": list(hashes), **costs.params})
