"""Repricing: the calls of some time get another cost. The one before stays known."""

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from commands.decider import Context, Decider
from commands.refusals import InvalidCommand, Refusal
from schemas.observability.repricing import STREAM, CallsRepriced, NewPrice, NewPrices

VERSIONS_MAX = 50
"""Each is a condition in every query on costs."""


class RepriceCalls(Struct, frozen=True, tag="observability.reprice_calls.v1"):
    """Price the calls that came without a cost at these prices, each for its model and time."""

    prices: NewPrices


class TooManyRepricings(Refusal):
    """A tenant's calls were repriced as often as they may be."""

    code = "too_many_repricings"
    kind = "conflict"


class Repricings(Struct, frozen=True):
    """How many there were, and the prices of the last one."""

    version: int = 0
    last: tuple[NewPrice, ...] = ()


def decide(command: RepriceCalls, state: Repricings, context: Context) -> Sequence[CallsRepriced]:
    """Raises InvalidCommand, TooManyRepricings."""
    if any(price.since >= price.until for price in command.prices):
        raise InvalidCommand("a price holds for no time", field="prices")
    # The last version once more would change nothing.
    if not command.prices or tuple(command.prices) == state.last:
        return []
    if state.version >= VERSIONS_MAX:
        raise TooManyRepricings(f"Calls can be repriced {VERSIONS_MAX} times")
    return [
        CallsRepriced(
            version=state.version + 1, repriced_at=context.now, prices=list(command.prices)
        )
    ]


def evolve(state: Repricings, event: CallsRepriced) -> Repricings:
    return Repricings(event.version, tuple(event.prices))


def _answer(command: RepriceCalls, state: Repricings, context: Context) -> int:
    return state.version


def _describe(command: RepriceCalls) -> Mapping[str, Any]:
    return {
        "models": sorted({price.model for price in command.prices}),
        "since": min((price.since for price in command.prices), default=None),
        "until": max((price.until for price in command.prices), default=None),
    }


DECIDER: Decider[RepriceCalls, Repricings, CallsRepriced] = Decider(
    stream=STREAM,
    commands=(RepriceCalls,),
    events=(CallsRepriced,),
    initial=Repricings(),
    decide=decide,
    evolve=evolve,
    answer=_answer,
    describe=_describe,
)
