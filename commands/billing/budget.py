"""A budget: set, changed, removed. It never refuses usage; it says when a share was reached."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, assert_never

from msgspec import Meta, Struct

from commands.decider import Context, Decider
from commands.refusals import InvalidCommand, NotFound
from schemas.billing.budget import (
    STREAM,
    BudgetEvent,
    BudgetRemoved,
    BudgetSet,
    Limit,
    Percent,
)
from schemas.billing.usage import Meter
from schemas.billing.window import WindowKind
from schemas.unions import members


class SetBudget(Struct, frozen=True, tag="billing.set_budget.v1", kw_only=True):
    """Set or change the budget; alerts come at the percents of the limit, each once a window."""

    meter: Meter
    window: WindowKind
    limit: Limit
    alert_percents: Annotated[list[Percent], Meta(min_length=1, max_length=10)]


class RemoveBudget(Struct, frozen=True, tag="billing.remove_budget.v1"):
    """End the budget."""


BudgetCommand = SetBudget | RemoveBudget


class Budget(Struct, frozen=True):
    """`current` is None before it was set and after it was removed; revision never goes back."""

    revision: int = 0
    current: BudgetSet | None = None


def decide(command: BudgetCommand, state: Budget, context: Context) -> Sequence[BudgetEvent]:
    """Raises InvalidCommand, NotFound."""
    match command:
        case SetBudget():
            return _set(command, state, context)
        case RemoveBudget():
            if state.revision == 0:
                raise NotFound("no such budget")
            if state.current is None:
                return []
            return [BudgetRemoved(budget_id=context.stream_id, revision=state.revision)]
    assert_never(command)


def _set(command: SetBudget, state: Budget, context: Context) -> Sequence[BudgetEvent]:
    if context.stream_id != budget_id(command.meter, command.window):
        raise InvalidCommand("a budget is known by its meter and window", field="meter")
    event = BudgetSet(
        budget_id=context.stream_id,
        revision=state.revision + 1,
        meter=command.meter,
        window=command.window,
        limit=command.limit,
        alert_percents=sorted(set(command.alert_percents)),
    )
    current = state.current
    if current is not None and (current.limit, current.alert_percents) == (
        event.limit,
        event.alert_percents,
    ):
        return []
    return [event]


def budget_id(meter: str, window: WindowKind) -> str:
    """A tenant has one budget for each meter and kind of window."""
    return f"{meter}@{window}"


def evolve(state: Budget, event: BudgetEvent) -> Budget:
    match event:
        case BudgetSet():
            return Budget(event.revision, event)
        case BudgetRemoved():
            return Budget(state.revision, None)
    assert_never(event)


def _answer(command: BudgetCommand, state: Budget, context: Context) -> BudgetSet | None:
    return state.current


def _describe(command: BudgetCommand) -> Mapping[str, Any]:
    match command:
        case SetBudget():
            return {
                "meter": command.meter,
                "window": command.window,
                "limit": command.limit,
                "alert_percents": command.alert_percents,
            }
        case RemoveBudget():
            return {}
    assert_never(command)


DECIDER: Decider[BudgetCommand, Budget, BudgetEvent] = Decider(
    stream=STREAM,
    commands=members(BudgetCommand),
    events=members(BudgetEvent),
    initial=Budget(),
    decide=decide,
    evolve=evolve,
    answer=_answer,
    describe=_describe,
)
