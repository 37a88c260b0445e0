"""Repricing calls: first what it would change, then, if it is wanted, for good.

A model with a price of the tenant's own gets the one that stands now, for all of the time asked
for; another one gets the system's price of each day. Calls that came with a cost keep it.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

from msgspec import Meta, Struct, field

from api.observability.bodies import Name
from api.observability.latest_costs import repricings_of, tenant_repricings
from api.observability.llm_calls import dollars
from api.observability.pages import instant
from api.observability.tenant_prices import override_of
from api.problems import OBSERVE, Problem
from api.roles import BUILDERS
from api.routing import Call, Route, Who, answer_of
from commands.observability.prices import History, price_of
from commands.observability.repricing import RepriceCalls
from commands.observability.system_prices import SystemPrices, system_prices
from projections.observability import repricing_preview as queries
from projections.observability.cost_versions import costs
from projections.observability.model_costs import HELD_SINCE
from schemas.observability.repricing import PRICES_MAX, STREAM_ID, CallsRepriced, NewPrice

MODELS_MAX = 200


class RepriceBody(Struct):
    """From when until (not at) when, which models (all unless given), and whether only to look."""

    since: Annotated[str, Meta(max_length=50)] = field(name="from")
    until: Annotated[str, Meta(max_length=50)] = field(name="to")
    models: Annotated[list[Name], Meta(max_length=MODELS_MAX)] | None = None
    dry_run: bool = True


class ModelDifference(Struct):
    """The calls of a model, what they cost before and after, in dollars."""

    model: str
    calls: int
    old_cost: float
    new_cost: float


class Repriced(Struct):
    """version: the one that the calls' costs are of now; none for a dry run, and when no model has
    a price. Models without a price are not listed: their calls keep their cost."""

    dry_run: bool
    models: list[ModelDifference]
    old_cost: float
    new_cost: float
    version: int | None = None


async def reprice(call: Call[RepriceBody, None]) -> Repriced:
    body, now = call.body, call.services.clock.now()
    since, until = _time(body.since, "from"), _time(body.until, "to")
    if since >= until:
        raise Problem(400, "validation_error", "It has to be after `from`", field="to")
    if until > now:
        raise Problem(400, "validation_error", "Calls to come have no cost yet", field="to")
    names = await _models(call, since, until)
    overrides = await _standing(call, now)
    prices = new_prices(system_prices(), overrides, names, since=since, until=until, now=now)
    if len(prices) > PRICES_MAX:
        message = "Prices changed too often in this time: ask for less of it, or for fewer models"
        raise Problem(400, "validation_error", message, field="to")
    before = await repricings_of(call)
    proposed = CallsRepriced(
        version=before[0].version + 1 if before else 1, repriced_at=now, prices=prices
    )
    priced = sorted({price.model for price in prices})
    old, new = costs(before, "old"), costs([proposed, *before] if prices else before, "new")
    rows = await call.services.analytics.query(
        *queries.differences(call.tenant, (since, until), priced, old=old, new=new)
    )
    version = None
    if not body.dry_run and prices:
        version = answer_of(await call.send(STREAM_ID, RepriceCalls(prices)), int)
        tenant_repricings(call.services).forget(call.tenant)
    sums = [
        (row["model"], row["calls"], int(row["old_pico"]), int(row["new_pico"])) for row in rows
    ]
    return Repriced(
        dry_run=body.dry_run,
        models=[ModelDifference(m, n, dollars(old), dollars(new)) for m, n, old, new in sums],
        old_cost=dollars(sum(row[2] for row in sums)),
        new_cost=dollars(sum(row[3] for row in sums)),
        version=version,
    )


def new_prices(
    defaults: SystemPrices,
    overrides: dict[str, History],
    models: Sequence[str],
    *,
    since: int,
    until: int,
    now: int,
) -> list[NewPrice]:
    """The prices of a repricing: a model's stretches of time do not overlap and leave no gap."""
    found = []
    for model in models:
        row = defaults.find(model)
        own = price_of(defaults, overrides, model, now).source == "override"
        changes = [] if own or row is None else [at for at, _ in row.prices if since < at < until]
        cuts = [since, *sorted(changes), until]
        for begin, end in pairwise(cuts):
            priced = price_of(defaults, overrides, model, now if own else begin)
            if priced.source == "unpriced":
                continue
            found.append(
                NewPrice(
                    model=model,
                    since=begin,
                    until=end,
                    input_price_pico=priced.price.input_pico,
                    output_price_pico=priced.price.output_pico,
                    source=priced.source,
                    price_model=priced.name,
                    price_revision=priced.revision,
                )
            )
    return found


async def _models(call: Call[RepriceBody, None], since: int, until: int) -> list[str]:
    """The models to price. Raises Problem when they are too many."""
    if call.body.models is not None:
        return sorted(set(call.body.models))
    asked = queries.models(call.tenant, (since, until), MODELS_MAX + 1)
    rows = await call.services.analytics.query(*asked)
    if len(rows) > MODELS_MAX:
        message = f"More than {MODELS_MAX} models were called in this time: name some of them"
        raise Problem(400, "validation_error", message, field="models")
    return [row["model"] for row in rows]


async def _standing(call: Call[RepriceBody, None], now: int) -> dict[str, History]:
    """The tenant's own prices that stand, out of the read model: all that was answered is in it."""
    rows = await call.services.reads.all(HELD_SINCE, call.tenant, now)
    return {row["model"]: (override_of(row),) for row in rows if row["ended_at"] is None}


def _time(text: str, name: str) -> int:
    found = instant(text, name, where="body")
    if found is None:
        raise Problem(400, "validation_error", "Expected an ISO 8601 date or time", field=name)
    return found


ROUTES = [
    Route(
        "POST",
        "/api/v1/observe/model-costs/reprice/",
        reprice,
        dialect=OBSERVE,
        who=Who.API_KEY,
        roles=BUILDERS,
        body=RepriceBody,
        response=Repriced,
        tags=("model-costs",),
        summary="Reprice calls",
        analytics=True,
        refusals=(409,),
        max_body=512 * 1024,
        description="Gives the calls of a time that came without a cost a new one, by the prices "
        "that stand now. A dry run, which it is unless told otherwise, only says what would "
        "change. The cost at which a call came in stays visible in its detail.",
    )
]
