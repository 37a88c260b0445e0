"""What a call costs, in whole picodollars: prices by token, a tenant's own and their times.

Nothing is a float here: tokens are whole, prices are whole picodollars for a token, so costs add up
to the same in any order.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Literal, Protocol

from msgspec import Struct, structs

from schemas.observability.model_cost import (
    PICODOLLARS_PER_TOKEN,
    ModelCostEvent,
    ModelCostRemoved,
    ModelCostSet,
)

CostSource = Literal["client", "override", "default", "unpriced"]


class Price(Struct, frozen=True):
    """Picodollars for one token."""

    input_pico: int
    output_pico: int

    def cost(self, tokens_in: int, tokens_out: int) -> int:
        """What so many tokens come to."""
        return tokens_in * self.input_pico + tokens_out * self.output_pico


def per_token(dollars_per_million: float) -> int:
    """A price as people write it, to the nearest picodollar for a token.

    The number is read as its shortest decimal, so that 0.15 is fifteen hundredths and no more.
    """
    return round(Decimal(repr(dollars_per_million)) * PICODOLLARS_PER_TOKEN)


def per_million(pico_per_token: int) -> float:
    """A price as people write it: the number of dollars nearest to it."""
    return pico_per_token / PICODOLLARS_PER_TOKEN


class Override(Struct, frozen=True):
    """A tenant's own price of a model, from `since` until (not at) `until`; None: until now."""

    revision: int
    price: Price
    since: int
    until: int | None = None

    def holds(self, instant: int) -> bool:
        """Whether it is the price at an instant (microseconds)."""
        return self.since <= instant and (self.until is None or instant < self.until)


History = tuple[Override, ...]
"""The overrides of one model, ascending by revision; their times do not overlap."""


class DefaultPrice(Protocol):
    """A row of the system's table (`system_prices.SystemPrice`)."""

    @property
    def name(self) -> str: ...

    def at(self, instant: int) -> Price: ...


class Defaults(Protocol):
    """The system's table."""

    def find(self, name: str, /) -> DefaultPrice | None: ...


class Priced(Struct, frozen=True):
    """A price and where it is from. name: what the override or the row of the table goes by."""

    source: CostSource
    price: Price
    revision: int = 0
    name: str = ""


UNPRICED = Priced("unpriced", Price(0, 0))


def with_event(history: History, event: ModelCostEvent) -> History:
    """The history after an event of its model; one that it has seen changes nothing."""
    match event:
        case ModelCostSet():
            if history and history[-1].revision >= event.revision:
                return history
            price = Price(event.input_price_pico, event.output_price_pico)
            ended = tuple(_ended(item, event.since) for item in history)
            return (*ended, Override(event.revision, price, event.since))
        case ModelCostRemoved():
            return tuple(
                _ended(item, event.until) if item.revision == event.revision else item
                for item in history
            )


def _ended(override: Override, until: int) -> Override:
    return override if override.until is not None else structs.replace(override, until=until)


def price_of(
    defaults: Defaults, overrides: Mapping[str, History], model: str, instant: int
) -> Priced:
    """The price of a model's tokens at an instant.

    The tenant's own for exactly this name; else its own for the row of the system's table that the
    name means; else the row's.
    """
    row = defaults.find(model)
    for name in (model,) if row is None or row.name == model else (model, row.name):
        for override in reversed(overrides.get(name, ())):
            if override.holds(instant):
                return Priced("override", override.price, override.revision, name)
    if row is None:
        return UNPRICED
    return Priced("default", row.at(instant), 0, row.name)
