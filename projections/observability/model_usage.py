"""Cost, tokens and calls per model and day."""

from projections.observability.llm_call_list import Selection
from projections.observability.llm_calls import LLM_CALLS
from projections.observability.ordering import Query
from projections.observability.unmerged import as_they_lie


def per_model_and_day(selection: Selection, *, unmerged: bool = False) -> Query:
    """One row per UTC day and model, both ascending: day (since 1970), model, calls, tokens,
    total_pico.

    Totals are sums of these rows: all sums are of integers, so they agree to the last digit.
    """
    where, params = selection.where()
    beside = f", {selection.settled}" if unmerged else ""
    # In whole numbers: a date made of each instant takes as long as all the rest.
    sql = (
        "SELECT intDiv(toUnixTimestamp64Micro(created_at), 86400000000) AS day, model,"
        " count() AS calls, toString(sum(toInt128(total_tokens))) AS tokens,"
        f" toString(sum(toInt128({selection.costs.pico}))) AS total_pico{beside}"
        f" FROM {LLM_CALLS.table} WHERE {where} GROUP BY day, model ORDER BY day, model"
    )
    query = Query(sql, params)
    return as_they_lie(query) if unmerged else query
