"""A tenant's own price of a model: set, changed, removed. Calls keep the price they were made at.

Any model may be priced, also one that the system has no price for.
"""

from collections.abc import Mapping, Sequence
from typing import Any, assert_never

from msgspec import Struct

from commands.decider import Context, Decider
from commands.refusals import NotFound
from schemas.observability.model_cost import (
    STREAM,
    ModelCostEvent,
    ModelCostRemoved,
    ModelCostSet,
    TokenPrice,
)
from schemas.unions import members


class SetModelCost(Struct, frozen=True, tag="observability.set_model_cost.v1", kw_only=True):
    """From now on a token of the stream's model costs so many picodollars."""

    input_price_pico: TokenPrice
    output_price_pico: TokenPrice


class RemoveModelCost(Struct, frozen=True, tag="observability.remove_model_cost.v1"):
    """From now on the system's price holds again."""


ModelCostCommand = SetModelCost | RemoveModelCost


class ModelCost(Struct, frozen=True):
    """`current` is None before it was set and after it was removed; revision never goes back.

    changed_at: since when it has been as it is.
    """

    revision: int = 0
    current: ModelCostSet | None = None
    changed_at: int = 0


def decide(
    command: ModelCostCommand, state: ModelCost, context: Context
) -> Sequence[ModelCostEvent]:
    """Raises NotFound."""
    # Two deciders' clocks may differ: a later setting never begins before an earlier one.
    now = max(context.now, state.changed_at)
    current = state.current
    match command:
        case SetModelCost():
            price = (command.input_price_pico, command.output_price_pico)
            if current is not None and price == (
                current.input_price_pico,
                current.output_price_pico,
            ):
                return []
            return [
                ModelCostSet(
                    model=context.stream_id,
                    revision=state.revision + 1,
                    input_price_pico=command.input_price_pico,
                    output_price_pico=command.output_price_pico,
                    since=now,
                    replaces=0 if current is None else current.revision,
                )
            ]
        case RemoveModelCost():
            if current is None:
                raise NotFound("There is no cost of your own for this model")
            return [ModelCostRemoved(model=context.stream_id, revision=current.revision, until=now)]
    assert_never(command)


def evolve(state: ModelCost, event: ModelCostEvent) -> ModelCost:
    match event:
        case ModelCostSet():
            return ModelCost(event.revision, event, event.since)
        case ModelCostRemoved():
            return ModelCost(event.revision, None, event.until)
    assert_never(event)


def _answer(command: ModelCostCommand, state: ModelCost, context: Context) -> ModelCostEvent:
    """The event that made the state what it is."""
    if state.current is not None:
        return state.current
    return ModelCostRemoved(
        model=context.stream_id, revision=state.revision, until=state.changed_at
    )


def _describe(command: ModelCostCommand) -> Mapping[str, Any]:
    match command:
        case SetModelCost():
            return {
                "input_price_pico": command.input_price_pico,
                "output_price_pico": command.output_price_pico,
            }
        case RemoveModelCost():
            return {}
    assert_never(command)


DECIDER: Decider[ModelCostCommand, ModelCost, ModelCostEvent] = Decider(
    stream=STREAM,
    commands=members(ModelCostCommand),
    events=members(ModelCostEvent),
    initial=ModelCost(),
    decide=decide,
    evolve=evolve,
    answer=_answer,
    describe=_describe,
)
