"""What models cost: the system's prices, and the tenant's own that go before them."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from api.observability.tenant_prices import override_of, tenant_prices
from api.problems import OBSERVE, Problem
from api.roles import BUILDERS, READERS
from api.routing import Answer, Call, Route, Who, answer_of
from commands.observability.model_cost import RemoveModelCost, SetModelCost
from commands.observability.prices import CostSource, Override, Price, per_million, per_token
from commands.observability.system_prices import system_prices
from infra.clock import iso
from projections.observability.model_costs import HELD_SINCE
from schemas.observability.model_cost import ModelCostRemoved, ModelCostSet, ModelName

_PATH = "/api/v1/observe/model-costs/"

DollarsPerMillion = Annotated[
    float, Meta(ge=0, le=1_000_000, description="US dollars for a million tokens")
]


class ModelCostBody(Struct):
    """Kept to the nearest millionth of a dollar, which is a picodollar for each token."""

    input_cost_per_million: DollarsPerMillion
    output_cost_per_million: DollarsPerMillion


class ModelCostRow(Struct):
    """What a model costs now. revision and since are of the tenant's own price."""

    model_id: str
    input_cost_per_million: float
    output_cost_per_million: float
    source: CostSource
    revision: int | None = None
    since: str | None = None


class ModelCostTable(Struct):
    """Every model that has a price, by name. system_prices: the table that the defaults are of."""

    models: list[ModelCostRow]
    count: int
    system_prices: str


async def list_model_costs(call: Call[None, None]) -> ModelCostTable:
    now, defaults = call.services.clock.now(), system_prices()
    rows = {row.name: _row(row.name, row.at(now)) for row in defaults.rows}
    for found in await call.services.reads.all(HELD_SINCE, call.tenant, now):
        if found["ended_at"] is None:
            own = override_of(found)
            rows[found["model"]] = _row(found["model"], own.price, own)
    models = [rows[name] for name in sorted(rows)]
    return ModelCostTable(models, len(models), defaults.source)


async def set_model_cost(call: Call[ModelCostBody, None]) -> ModelCostRow:
    """This process prices by it before it answers, the others as soon as the log tells them."""
    model, body = _model(call), call.body
    command = SetModelCost(
        input_price_pico=per_token(body.input_cost_per_million),
        output_price_pico=per_token(body.output_cost_per_million),
    )
    event = answer_of(await call.send(model, command), ModelCostSet)
    tenant_prices(call.services).apply(call.tenant, event)
    price = Price(event.input_price_pico, event.output_price_pico)
    return _row(model, price, Override(event.revision, price, event.since))


async def remove_model_cost(call: Call[None, None]) -> Answer:
    reply = await call.send(_model(call), RemoveModelCost())
    tenant_prices(call.services).apply(call.tenant, answer_of(reply, ModelCostRemoved))
    return Answer(status=204)


def _row(name: str, price: Price, own: Override | None = None) -> ModelCostRow:
    return ModelCostRow(
        name,
        per_million(price.input_pico),
        per_million(price.output_pico),
        "default" if own is None else "override",
        None if own is None else own.revision,
        None if own is None else iso(own.since),
    )


def _model(call: Call[Any, None]) -> str:
    """The model that the path names. Raises Problem."""
    try:
        return msgspec.convert(call.path["model_id"], ModelName)
    except msgspec.ValidationError:
        message = "A model's name has 500 characters or less"
        raise Problem(400, "validation_error", message, field="model_id", where="path") from None


def _own_price(method: str, handler: Any, summary: str, **more: Any) -> Route:
    return Route(
        method,
        f"{_PATH}{{model_id}}/",
        handler,
        dialect=OBSERVE,
        who=Who.API_KEY,
        roles=BUILDERS,
        tags=("model-costs",),
        summary=summary,
        rest=True,
        max_body=16 * 1024,
        **more,
    )


ROUTES = [
    Route(
        "GET",
        _PATH,
        list_model_costs,
        dialect=OBSERVE,
        who=Who.API_KEY,
        roles=READERS,
        response=ModelCostTable,
        tags=("model-costs",),
        summary="Get model costs",
        description="The system's prices with the tenant's own in their place.",
    ),
    _own_price(
        "PUT",
        set_model_cost,
        "Set a model's cost",
        body=ModelCostBody,
        response=ModelCostRow,
        description="Calls that are reported without a cost from now on are priced by it: those "
        "that name the model exactly so, and, if the name is one of the table's, all that the "
        "table reads as that model and that have no cost set for their own name.",
    ),
    _own_price(
        "DELETE",
        remove_model_cost,
        "Remove a model's cost",
        status=204,
        refusals=(404,),
        description="The system's price holds again from now on.",
    ),
]
