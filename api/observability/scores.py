"""Scores: given by people here, reported by agents on their runs; listed and charted."""

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from msgspec import Meta, Raw, Struct, field

from api.observability.bodies import DataType, JsonObject, Name, ScoreText, object_text
from api.observability.exactly import Ask, Rows, exactly
from api.observability.llm_calls import Names, names_of_runs
from api.observability.model_analytics import PERIODS, Period
from api.observability.pages import DEFAULT_LIMIT, Cursor, DeepOffset, Limit, Listing, shown, window
from api.observability.reporting import append, own_run
from api.problems import OBSERVE, Problem, not_found
from api.roles import BUILDERS, READERS
from api.routing import Call, Route, Who
from infra.clock import iso
from projections.observability import score_list as queries
from projections.observability.llm_call_list import models_of_calls, one
from projections.observability.score_list import ScoreSelection, Sort, mean
from schemas.observability.run import Score, ScoresRecorded, ScoreValue
from streams.telemetry import item_id

Text = Annotated[str, Meta(max_length=500)]
Id = Annotated[str, Meta(min_length=1, max_length=500)]


class ListScores(Struct):
    """Filters, order and page. A score of an LLM call is one of its run, too."""

    name: Text = ""
    source: Literal["", "manual", "sdk", "evaluator"] = ""
    data_type: Literal["", "numeric", "categorical", "boolean"] = ""
    run_id: Text = ""
    llm_call_id: Text = ""
    sort: Sort = "-created_at"
    limit: Limit = DEFAULT_LIMIT
    offset: DeepOffset = 0
    cursor: Cursor = ""


class CreatedScore(Struct):
    id: str
    name: str
    data_type: str
    source: str
    numeric_value: float | None
    string_value: str | None
    run_id: str
    llm_call_id: str | None
    created_at: str


class ScoreRow(CreatedScore):
    """author_user_id: of the person who gave it. run_agent_name and llm_call_model are null until
    the run's start, or the call, has been reported."""

    comment: str
    metadata: JsonObject
    author_user_id: str | None
    evaluator_id: str | None
    evaluator_name: str | None
    run_agent_name: str | None
    llm_call_model: str | None


class ScoreAggregates(Struct):
    """Of the whole selection. avg_numeric_value: of the scores that have a number."""

    total_count: int
    avg_numeric_value: float | None
    score_names: list[str]


class ScorePage(Struct):
    results: list[ScoreRow]
    count: int
    next: str | None
    previous: str | None
    next_cursor: str | None
    aggregates: ScoreAggregates


class CreateScore(Struct):
    """At least one of `run_id` and `llm_call_id` is needed; `value` is a number, text or a boolean,
    as `data_type` says."""

    name: Name
    value: ScoreValue | bool | ScoreText
    run_id: Id | None = None
    llm_call_id: Id | None = None
    data_type: DataType = "numeric"
    comment: ScoreText | None = ""
    metadata: JsonObject = field(default_factory=Raw)


class ScoreAnalyticsQuery(Struct):
    """The period ends now; `agent` is an agent's name."""

    name: Text = ""
    period: Period = "7d"
    agent: Text = ""


class ScoreDay(Struct):
    date: str
    avg: float
    count: int


class ValueCount(Struct):
    value: str
    count: int


class NumericDistribution(Struct, tag_field="data_type", tag="numeric"):
    """avg, min and max are null where no score has a number."""

    name: str
    total_count: int
    avg: float | None
    min: float | None
    max: float | None
    time_series: list[ScoreDay]


class CategoricalDistribution(Struct, tag_field="data_type", tag="categorical"):
    """value_counts: the hundred most frequent values."""

    name: str
    total_count: int
    value_counts: list[ValueCount]


class BooleanDistribution(Struct, tag_field="data_type", tag="boolean"):
    """The values are `true` and `false`."""

    name: str
    total_count: int
    value_counts: list[ValueCount]


Distribution = NumericDistribution | CategoricalDistribution | BooleanDistribution


class ScoreAnalytics(Struct):
    period: Period
    since: str
    distributions: list[Distribution]


async def list_scores(call: Call[None, ListScores]) -> ScorePage:
    asked, ask = call.query, call.services.analytics.query
    selection = ScoreSelection(
        tenant=call.tenant,
        name=asked.name,
        source=asked.source,
        data_type=asked.data_type,
        run_id=asked.run_id,
        llm_call_id=asked.llm_call_id,
    )
    listing = Listing(f"scores {asked.sort}", queries.order_by(asked.sort))
    page = window(asked, listing)
    sums, rows = await asyncio.gather(
        ask(*queries.aggregates(selection)), ask(*queries.page(selection, listing.order, page))
    )
    total = sums[0]
    found = shown(call, page, listing, rows, total["total"])
    agents, models = await exactly(
        call.services, call.tenant, lambda ask: _agents_and_models(ask, call.tenant, found.rows)
    )
    return ScorePage(
        results=[_row(row, agents, models) for row in found.rows],
        count=total["total"],
        next=found.next,
        previous=found.previous,
        next_cursor=found.next_cursor,
        aggregates=ScoreAggregates(
            total_count=total["total"],
            avg_numeric_value=mean(total["units"], total["valued"]),
            score_names=list(total["names"]),
        ),
    )


Models = Mapping[tuple[str, str], str]


async def _agents_and_models(ask: Ask, tenant: str, rows: Rows) -> tuple[Names, Models]:
    run_ids = {row["run_id"] for row in rows}
    return await asyncio.gather(names_of_runs(ask, tenant, run_ids), _models(ask, tenant, rows))


async def _models(ask: Ask, tenant: str, rows: Rows) -> Models:
    calls = [(row["run_id"], row["llm_call_id"]) for row in rows if row["llm_call_id"]]
    if not calls:
        return {}
    found = await ask(models_of_calls(tenant, calls))
    return {(row["run_id"], row["id"]): row["model"] for row in found}


def _row(row: Mapping[str, Any], agents: Names, models: Models) -> ScoreRow:
    kept = ("id", "name", "data_type", "source", "numeric_value", "string_value", "run_id")
    return ScoreRow(
        **{name: row[name] for name in kept},
        llm_call_id=row["llm_call_id"] or None,
        created_at=iso(row["at"]),
        comment=row["comment"],
        metadata=Raw(row["metadata"].encode()),
        author_user_id=row["author_user_id"],
        evaluator_id=None,
        evaluator_name=None,
        run_agent_name=agents[row["run_id"]][0] if row["run_id"] in agents else None,
        llm_call_model=models.get((row["run_id"], row["llm_call_id"])),
    )


async def create_score(call: Call[CreateScore, None]) -> CreatedScore:
    """A score by a person, or by a program with a key of its own: then it has no author."""
    body = call.body
    numeric, text = _value(body)
    now = call.services.clock.now()
    score = Score(
        id=item_id("score", call.command_id, 0),
        name=body.name,
        data_type=body.data_type,
        numeric_value=numeric,
        string_value=text,
        comment=body.comment or "",
        metadata=object_text(body.metadata, "metadata"),
        llm_call_id=body.llm_call_id or "",
    )
    run_id = await _scored_run(call)
    await append(call, run_id, ScoresRecorded(scores=[score], source="manual"), at=now)
    return CreatedScore(
        id=score.id,
        name=score.name,
        data_type=score.data_type,
        source="manual",
        numeric_value=numeric,
        string_value=text,
        run_id=run_id,
        llm_call_id=body.llm_call_id,
        created_at=iso(now),
    )


def _value(body: CreateScore) -> tuple[float | None, str | None]:
    """The value as a number and as text. Raises Problem when it isn't of the type that is said."""
    value = body.value
    match body.data_type:
        case "numeric" if isinstance(value, float | int) and not isinstance(value, bool):
            return float(value), None
        case "categorical" if isinstance(value, str):
            return None, value
        case "boolean" if isinstance(value, bool):
            return float(value), "true" if value else "false"
    expected = {"numeric": "float", "categorical": "str", "boolean": "bool"}[body.data_type]
    raise Problem(
        400, "validation_error", f"Expected `{expected}` for {body.data_type} scores", field="value"
    )


async def _scored_run(call: Call[CreateScore, None]) -> str:
    """The run that is scored, or whose LLM call is. Raises Problem."""
    run_id, call_id = call.body.run_id, call.body.llm_call_id
    if run_id is None and call_id is None:
        raise Problem(
            400, "validation_error", "Either this or llm_call_id is required", field="run_id"
        )
    if run_id is not None:
        own_run(call, run_id)
    if call_id is None:
        assert run_id is not None
        return run_id
    found = await call.services.analytics.query(*one(call.tenant, call_id, run_id=run_id or ""))
    if not found:
        not_found("There is no such LLM call" + (" in this run" if run_id else ""))
    return str(found[0]["run_id"])


async def score_analytics(call: Call[None, ScoreAnalyticsQuery]) -> ScoreAnalytics:
    asked, ask = call.query, call.services.analytics.query
    since = call.services.clock.now() - PERIODS[asked.period]
    selection = ScoreSelection(tenant=call.tenant, name=asked.name, agent=asked.agent, since=since)
    totals, days, values = await asyncio.gather(
        ask(*queries.totals(selection)),
        ask(*queries.per_day(selection)),
        ask(*queries.value_counts(selection)),
    )
    series = defaultdict[str, list[ScoreDay]](list)
    for row in days:
        average = mean(row["units"], row["valued"])
        assert average is not None, "a day is there for its values"
        series[row["name"]].append(ScoreDay(row["day"], average, row["valued"]))
    counts = defaultdict[tuple[str, str], list[ValueCount]](list)
    for row in values:
        counts[row["name"], row["data_type"]].append(ValueCount(row["value"], row["scores"]))
    distributions: list[Distribution] = []
    for row in totals:
        name, total = row["name"], row["total"]
        if row["data_type"] == "numeric":
            average = mean(row["units"], row["valued"])
            found = (average, row["least"], row["greatest"])
            distributions.append(NumericDistribution(name, total, *found, series[name]))
        else:
            boolean = row["data_type"] == "boolean"
            made = BooleanDistribution if boolean else CategoricalDistribution
            distributions.append(made(name, total, counts[name, row["data_type"]]))
    return ScoreAnalytics(asked.period, iso(since), distributions)


def _read(path: str, handler: Any, query: Any, response: Any, summary: str) -> Route:
    return Route(
        "GET",
        f"/api/v1/evaluations/scores/{path}",
        handler,
        dialect=OBSERVE,
        who=Who.SESSION_OR_KEY,
        roles=READERS,
        query=query,
        response=response,
        tags=("scores",),
        summary=summary,
        analytics=True,
    )


ROUTES = [
    _read("", list_scores, ListScores, ScorePage, "List scores"),
    _read("analytics/", score_analytics, ScoreAnalyticsQuery, ScoreAnalytics, "Score analytics"),
    Route(
        "POST",
        "/api/v1/evaluations/scores/create/",
        create_score,
        dialect=OBSERVE,
        who=Who.SESSION_OR_KEY,
        roles=BUILDERS,
        body=CreateScore,
        response=CreatedScore,
        status=201,
        tags=("scores",),
        summary="Create a score",
        refusals=(404,),
        analytics=True,
        repeats=True,
    ),
]
