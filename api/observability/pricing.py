"""What a call that came without a cost is priced at, as it comes in.

When the tenant's own prices can't be known, since the database is away and was never asked before,
the call is taken and left unpriced: no price is better than one that may be wrong.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from api.observability.tenant_prices import tenant_prices
from api.routing import Call
from commands.observability.prices import UNPRICED, price_of
from commands.observability.system_prices import system_prices
from infra.postgres import DatabaseUnavailable
from schemas.observability.model_cost import COST_MAX_PICO


class Reported(Protocol):
    """A call as somebody reported it."""

    @property
    def model(self) -> str: ...
    @property
    def tokens_in(self) -> int | None: ...
    @property
    def tokens_out(self) -> int | None: ...
    @property
    def cost(self) -> float | None: ...


Pricing = Callable[[Reported], dict[str, Any]]
"""The fields of `LlmCall` that say where its cost is from."""

_BY_CLIENT = {"cost_source": "client"}
_UNPRICED = {"cost_source": UNPRICED.source}


async def pricing_of(call: Call[Any, Any], items: Sequence[Reported]) -> Pricing:
    """How to price these items of a request."""
    if all(item.cost is not None for item in items):
        return lambda item: _BY_CLIENT
    now, defaults = call.services.clock.now(), system_prices()
    try:
        overrides = await tenant_prices(call.services).of(call.tenant, now)
    except DatabaseUnavailable:
        return lambda item: _BY_CLIENT if item.cost is not None else _UNPRICED

    def pricing(item: Reported) -> dict[str, Any]:
        if item.cost is not None:
            return _BY_CLIENT
        priced = price_of(defaults, overrides, item.model, now)
        cost = priced.price.cost(item.tokens_in or 0, item.tokens_out or 0)
        if priced is UNPRICED or cost > COST_MAX_PICO:
            return _UNPRICED
        return {
            "cost_source": priced.source,
            "cost_pico": cost,
            "price_in_pico": priced.price.input_pico,
            "price_out_pico": priced.price.output_pico,
            "price_model": priced.name,
            "price_revision": priced.revision,
        }

    return pricing
