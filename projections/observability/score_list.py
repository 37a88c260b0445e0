"""Queries on scores: a page, what the selection adds up to, distributions over time.

Values are summed as whole numbers of 10^-30, so that a mean is the same in whatever order they
came.
"""

from fractions import Fraction
from typing import Any, Literal

from msgspec import Struct

from projections.observability.llm_call_list import reported_order
from projections.observability.ordering import Key, Order, Query, Window, instant_parameter, page_of
from projections.observability.run_starts import RUN_STARTS
from projections.observability.scores import SCORES

VALUES_MAX = 100
"""How many different values of a name are counted, the most frequent ones."""

Sort = Literal[
    "created_at",
    "-created_at",
    "name",
    "-name",
    "numeric_value",
    "-numeric_value",
    "source",
    "-source",
]
_UNIT = 10**30
_VALUES = "countIf(numeric_value IS NOT NULL) AS valued"
_SUM = "toString(sum(toInt256(ifNull(numeric_value, 0) * 1e30))) AS units"


class ScoreSelection(Struct, frozen=True, kw_only=True):
    """Which scores. `since` is included."""

    tenant: str
    name: str = ""
    source: str = ""
    data_type: str = ""
    run_id: str = ""
    llm_call_id: str = ""
    agent: str = ""
    since: int | None = None

    def from_where(self) -> Query:
        """FROM … WHERE …"""
        conditions = ["tenant = {tenant:String}"]
        params: dict[str, Any] = {"tenant": self.tenant}
        for field in ("name", "source", "data_type", "run_id", "llm_call_id"):
            value = getattr(self, field)
            if value:
                conditions.append(f"{field} = {{{field}:String}}")
                params[field] = value
        if self.agent:
            conditions.append(
                f"run_id IN (SELECT run_id FROM {RUN_STARTS.table}"
                " WHERE tenant = {tenant:String} AND agent_name = {agent:String})"
            )
            params["agent"] = self.agent
        if self.since is not None:
            conditions.append(f"created_at >= {instant_parameter('since')}")
            params["since"] = self.since
        return Query(f"FROM {SCORES.table} WHERE {' AND '.join(conditions)}", params)


def mean(units: str, valued: int) -> float | None:
    """The mean of values that add up to so many 10^-30, to 15 digits; None of no value."""
    return float(f"{float(Fraction(int(units), _UNIT * valued)):.15g}") if valued else None


def order_by(sort: Sort) -> Order:
    """Scores without a number come last; those that the sort leaves equal, newest first."""
    name, descending = sort.lstrip("-"), sort.startswith("-")
    reported = reported_order(ascending=sort == "created_at")
    if name == "created_at":
        return Order(reported)
    if name == "numeric_value":
        number = Key("ifNull(numeric_value, 0)", "float", descending)
        return Order((Key("numeric_value IS NULL", "integer"), number, *reported))
    return Order((Key(name, "text", descending), *reported))


def page(selection: ScoreSelection, order: Order, window: Window) -> Query:
    """One page."""
    fields = (
        "id, name, data_type, source, numeric_value, string_value, comment, metadata,"
        " author_user_id, run_id, llm_call_id, toUnixTimestamp64Micro(created_at) AS at"
    )
    return page_of(fields, selection.from_where(), order, window)


def aggregates(selection: ScoreSelection) -> Query:
    """What the whole selection adds up to: total, valued and units (for `mean`), names."""
    sql, params = selection.from_where()
    names = "arraySort(groupUniqArray(name)) AS names"
    return Query(f"SELECT count() AS total, {_VALUES}, {_SUM}, {names} {sql}", params)


def totals(selection: ScoreSelection) -> Query:
    """Per name and data type: total, valued and units, the least and the greatest value."""
    sql, params = selection.from_where()
    fields = "min(numeric_value) AS least, max(numeric_value) AS greatest"
    return Query(
        f"SELECT name, data_type, count() AS total, {_VALUES}, {_SUM}, {fields} {sql}"
        " GROUP BY name, data_type ORDER BY name, data_type",
        params,
    )


def per_day(selection: ScoreSelection) -> Query:
    """Numeric scores per name and UTC day, ascending: valued and units."""
    sql, params = selection.from_where()
    return Query(
        f"SELECT name, toString(toDate(created_at, 'UTC')) AS day, {_VALUES}, {_SUM} {sql}"
        " AND data_type = 'numeric' AND numeric_value IS NOT NULL GROUP BY name, day"
        " ORDER BY name, day",
        params,
    )


def value_counts(selection: ScoreSelection) -> Query:
    """How often each value of what isn't numeric occurs, the most frequent first."""
    sql, params = selection.from_where()
    return Query(
        f"SELECT name, data_type, string_value AS value, count() AS scores {sql}"
        " AND data_type != 'numeric' AND string_value IS NOT NULL GROUP BY name, data_type, value"
        f" ORDER BY name, data_type, scores DESC, value LIMIT {VALUES_MAX} BY name, data_type",
        params,
    )
