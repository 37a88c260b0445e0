"""Queries on what LLM calls add up to: calls, tokens, money.

Sums of money are whole picodollars in text: they exceed 64 bits.
"""

from typing import Any

from projections.observability.kept_sums import CALLS, HOUR, HOURS_PER_DAY, TOKENS, pico
from projections.observability.llm_call_list import Selection
from projections.observability.llm_calls import LLM_CALLS
from projections.observability.ordering import Query

_ADDED_UP = (
    "sum(calls) AS calls, toString(sum(tokens)) AS tokens, toString(sum(pico)) AS total_pico"
)
_OF_ALL = f"{_ADDED_UP}, arraySort(groupUniqArray(model)) AS models"


def aggregates(selection: Selection) -> Query:
    """What the whole selection adds up to: calls, tokens, total_pico, models."""
    source, params = _sums(selection, "model", "model")
    return Query(f"SELECT {_OF_ALL} FROM {source}", params)


def aggregates_and_periods(selection: Selection, most: int) -> Query:
    """The same, and the `periods` under which calls are filed, of so many at most."""
    source, params = _sums(selection, f"model, groupArray({most})(filed_period) AS filed", "model")
    sql = f"SELECT {_OF_ALL}, groupArrayArray({most})(filed) AS periods FROM {source}"
    return Query(sql, params)


def per_model_and_day(selection: Selection) -> Query:
    """One row per UTC day and model, both ascending: day (since 1970), model, calls, tokens,
    total_pico.

    Totals are sums of these rows: all sums are of integers, so they agree to the last digit.
    """
    # In whole numbers: a date made of each instant takes as long as all the rest.
    source, params = _sums(
        selection, f"intDiv({HOUR}, {HOURS_PER_DAY}) AS day, model", "day, model"
    )
    sql = f"SELECT day, model, {_ADDED_UP} FROM {source} GROUP BY day, model ORDER BY day, model"
    return Query(sql, params)


def _sums(selection: Selection, keys: str, names: str) -> Query:
    """What to select sums FROM: a row or more for each of the keys."""
    parts: list[str] = []
    params: dict[str, Any] = {}
    for number, part in enumerate(selection.stretches() if selection.kept else [selection]):
        where, named = part.where(f"s{number}_")
        params |= named
        parts.append(
            f"SELECT {keys}, {CALLS} AS calls, {TOKENS} AS tokens,"
            f" {pico(selection.costs.pico)} AS pico"
            f" FROM {LLM_CALLS.table} WHERE {where} GROUP BY {names}"
        )
    return Query(f"({' UNION ALL '.join(parts)})", params)
