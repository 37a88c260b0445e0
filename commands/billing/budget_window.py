"""What a budget came to in one window: each share of it is reached once.

The usage processor (`streams/billing`) adds up and sends `MarkBudgetReached`; it may send it again
after a crash. Whether it counts is decided here, against the budget as it is now.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from commands.billing.budget import Budget
from commands.decider import Context, Decider, Ref
from commands.refusals import InvalidCommand
from schemas.billing.budget import (
    STREAM,
    WINDOW_STREAM,
    BudgetReached,
    BudgetWindowEvent,
    Percent,
    Total,
)
from schemas.billing.window import window_of
from schemas.types import Micros


class MarkBudgetReached(Struct, frozen=True, tag="billing.mark_budget_reached.v1", kw_only=True):
    """The usage in the window that starts at `window_start` has come to `total`."""

    budget_id: str
    revision: int
    window_start: Micros
    percent: Percent
    total: Total


class BudgetWindow(Struct, frozen=True):
    """The percents reached of the budget's last revision that reached any."""

    revision: int = 0
    reached: tuple[int, ...] = ()


def decide(
    command: MarkBudgetReached, state: BudgetWindow, context: Context
) -> Sequence[BudgetWindowEvent]:
    """Quiet about a budget that was changed or removed meanwhile. Raises InvalidCommand.

    A total that has come to one share has come to the lower ones, too. They are reached in order,
    in whatever order the marks of several partitions arrive.
    """
    budget: Budget = context.state(STREAM, command.budget_id)
    current = budget.current
    if current is None or current.revision != command.revision:
        return []
    if state.revision == command.revision and command.percent in state.reached:
        return []
    if command.percent not in current.alert_percents:
        raise InvalidCommand("the budget has no alert at this percent", field="percent")
    if command.total * 100 < current.limit * command.percent:
        raise InvalidCommand("the total is below this percent of the limit", field="total")
    window = window_of(current.window, command.window_start)
    if context.stream_id != budget_window_id(command.budget_id, window.start):
        raise InvalidCommand("the window starts at another time", field="window_start")
    before = state.reached if state.revision == command.revision else ()
    return [
        BudgetReached(
            budget_id=command.budget_id,
            revision=command.revision,
            meter=current.meter,
            window=current.window,
            window_start=window.start,
            window_end=window.end,
            percent=percent,
            limit=current.limit,
            total=command.total,
        )
        for percent in current.alert_percents
        if percent <= command.percent and percent not in before
    ]


def budget_window_id(budget_id: str, window_start: int) -> str:
    """The stream of a budget's window; `window_start` in microseconds UTC."""
    return f"{budget_id}@{window_start}"


def evolve(state: BudgetWindow, event: BudgetWindowEvent) -> BudgetWindow:
    before = state.reached if state.revision == event.revision else ()
    return BudgetWindow(event.revision, (*before, event.percent))


def _loads(command: MarkBudgetReached, stream_id: str) -> Sequence[Ref]:
    return [Ref(STREAM, command.budget_id)]


def _describe(command: MarkBudgetReached) -> Mapping[str, Any]:
    return {
        "budget_id": command.budget_id,
        "revision": command.revision,
        "percent": command.percent,
        "total": command.total,
    }


DECIDER: Decider[MarkBudgetReached, BudgetWindow, BudgetWindowEvent] = Decider(
    stream=WINDOW_STREAM,
    commands=(MarkBudgetReached,),
    events=(BudgetReached,),
    initial=BudgetWindow(),
    decide=decide,
    evolve=evolve,
    loads=_loads,
    describe=_describe,
)
