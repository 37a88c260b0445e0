"""Which models cost what, over time."""

from collections import defaultdict
from typing import Annotated, Literal

from msgspec import Meta, Struct

from api.observability.exactly import exactly
from api.observability.latest_costs import costs_now
from api.observability.llm_calls import dollars
from api.problems import OBSERVE
from api.roles import READERS
from api.routing import Call, Route, Who
from infra.clock import iso
from projections.observability.llm_call_list import Selection
from projections.observability.llm_call_sums import per_model_and_day

Period = Literal["1d", "7d", "30d"]
_DAY = 86_400_000_000
PERIODS: dict[Period, int] = {"1d": _DAY, "7d": 7 * _DAY, "30d": 30 * _DAY}
"""In microseconds."""


class ModelAnalyticsQuery(Struct):
    """The period ends now; `agent` is an agent's name."""

    period: Period = "7d"
    agent: Annotated[str, Meta(max_length=500)] = ""


class Totals(Struct):
    total_cost: float
    total_tokens: int
    total_calls: int


class ModelTotal(Struct):
    """`percentage` is the model's share of the cost, to one decimal; 0 where nothing cost."""

    model: str
    total_cost: float
    total_tokens: int
    total_calls: int
    percentage: float


class ModelDay(Struct):
    date: str
    model: str
    cost: float
    tokens: int
    calls: int


class ModelAnalytics(Struct):
    period: Period
    aggregates: Totals
    model_totals: list[ModelTotal]
    time_series: list[ModelDay]


class _Sums:
    """Exact sums: picodollars, tokens, calls."""

    def __init__(self) -> None:
        self.pico = self.tokens = self.calls = 0

    def add(self, pico: int, tokens: int, calls: int) -> None:
        self.pico, self.tokens, self.calls = (
            self.pico + pico,
            self.tokens + tokens,
            self.calls + calls,
        )


async def model_analytics(call: Call[None, ModelAnalyticsQuery]) -> ModelAnalytics:
    asked = call.query
    since = call.services.clock.now() - PERIODS[asked.period]
    latest = await costs_now(call)
    selection = Selection(tenant=call.tenant, agent=asked.agent, since=since, costs=latest)
    rows = await exactly(call.services, call.tenant, lambda ask: ask(per_model_and_day(selection)))
    total, by_model = _Sums(), defaultdict[str, _Sums](_Sums)
    series = []
    for row in rows:
        pico, tokens, calls = int(row["total_pico"]), int(row["tokens"]), row["calls"]
        total.add(pico, tokens, calls)
        by_model[row["model"]].add(pico, tokens, calls)
        day = iso(row["day"] * _DAY)[:10]
        series.append(ModelDay(day, row["model"], dollars(pico), tokens, calls))
    ranked = sorted(by_model.items(), key=lambda item: (-item[1].pico, -item[1].calls, item[0]))
    return ModelAnalytics(
        period=asked.period,
        aggregates=Totals(dollars(total.pico), total.tokens, total.calls),
        model_totals=[
            ModelTotal(
                model=model,
                total_cost=dollars(sums.pico),
                total_tokens=sums.tokens,
                total_calls=sums.calls,
                percentage=round(100 * sums.pico / total.pico, 1) if total.pico else 0.0,
            )
            for model, sums in ranked
        ],
        time_series=series,
    )


ROUTES = [
    Route(
        "GET",
        "/api/v1/observability/analytics/models/",
        model_analytics,
        dialect=OBSERVE,
        who=Who.SESSION_OR_KEY,
        roles=READERS,
        query=ModelAnalyticsQuery,
        response=ModelAnalytics,
        tags=("analytics",),
        summary="Model usage over time",
        analytics=True,
    )
]
