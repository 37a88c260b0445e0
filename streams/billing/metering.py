"""Metering, pure: what an event used, which windows it counts in, which alerts that sets off.

`read` turns events of the topics `billing` and `telemetry` into steps; `step` folds them into a
tenant's state. `streams/billing/ledger.py` keeps that state in Postgres.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, assert_never

from msgspec import Struct

from schemas.avro_derivation import tag_of
from schemas.billing.budget import BudgetRemoved, BudgetSet
from schemas.billing.usage import UsageRecorded
from schemas.billing.window import WINDOW_KINDS, WindowKind, window_of
from schemas.envelope import Envelope
from schemas.observability.run import LlmCall, LlmCallsRecorded, RunStarted

METERED: frozenset[str] = frozenset(
    tag_of(struct)
    for struct in (UsageRecorded, BudgetSet, BudgetRemoved, LlmCallsRecorded, RunStarted)
)
"""The types of event that count here; others need not be decoded."""

NANODOLLARS = 1_000_000_000


class Used(Struct, frozen=True):
    """`records` usages of together `quantity` at the instant `at` (microseconds UTC)."""

    meter: str
    quantity: int
    at: int
    records: int = 1


class BudgetStands(Struct, frozen=True):
    """A budget that was set in the window that starts at `since`; it looks at no earlier one."""

    budget: BudgetSet
    since: int

    def covers(self, key: "WindowKey") -> bool:
        """Whether the budget is about this window."""
        return (
            key.start >= self.since
            and key.meter == self.budget.meter
            and key.kind == self.budget.window
        )


class BudgetEnded(Struct, frozen=True):
    """A budget was removed."""

    budget_id: str


Step = Used | BudgetStands | BudgetEnded


class WindowKey(NamedTuple):
    """One window of one meter; sorts by meter, kind and start."""

    meter: str
    kind: WindowKind
    start: int


class Amount(NamedTuple):
    """What a window has come to."""

    quantity: int = 0
    records: int = 0


class Alert(NamedTuple):
    """A share of a budget that a window has come to. Known without its total, which may differ."""

    budget_id: str
    revision: int
    window_start: int
    percent: int


class State(Struct, frozen=True):
    """One tenant: the windows that are needed, its budgets, the alerts that were set off.

    The windows needed are those that a step adds to, and all that a budget which is set covers.
    alerts maps each to the total that set it off.
    """

    amounts: Mapping[WindowKey, Amount] = {}
    budgets: Mapping[str, BudgetStands] = {}
    alerts: Mapping[Alert, int] = {}


def step(state: State, event: Step) -> State:
    """The state after one step. Every alert comes once, however far a window goes beyond it."""
    match event:
        case Used():
            amounts = dict(state.amounts)
            keys = keys_of(event)
            for key in keys:
                before = amounts.get(key, Amount())
                amounts[key] = Amount(
                    before.quantity + event.quantity, before.records + event.records
                )
            return _alerted(State(amounts, state.budgets, state.alerts), keys)
        case BudgetStands():
            budgets = {**state.budgets, event.budget.budget_id: event}
            return _alerted(State(state.amounts, budgets, state.alerts), state.amounts)
        case BudgetEnded():
            left = {id: item for id, item in state.budgets.items() if id != event.budget_id}
            return State(state.amounts, left, state.alerts)
    assert_never(event)


def _alerted(state: State, keys: Iterable[WindowKey]) -> State:
    """The state with the alerts that the totals of these windows set off."""
    fresh: dict[Alert, int] = {}
    for stands in state.budgets.values():
        budget = stands.budget
        for key in filter(stands.covers, keys):
            total = state.amounts.get(key, Amount()).quantity
            for percent in budget.alert_percents:
                alert = Alert(budget.budget_id, budget.revision, key.start, percent)
                if total * 100 >= budget.limit * percent and alert not in state.alerts:
                    fresh[alert] = total
    if not fresh:
        return state
    return State(state.amounts, state.budgets, {**state.alerts, **fresh})


def keys_of(used: Used) -> list[WindowKey]:
    """The windows that a usage counts in."""
    return [WindowKey(used.meter, kind, window_of(kind, used.at).start) for kind in WINDOW_KINDS]


def read(event: Any, envelope: Envelope, counted: Collection[bytes] = ()) -> Sequence[Step]:
    """The steps of an event. `counted`: the marks of the run's LLM calls that counted before."""
    match event:
        case UsageRecorded():
            return [Used(event.meter, event.quantity, event.occurred_at)]
        case BudgetSet():
            return [BudgetStands(event, window_of(event.window, envelope.time).start)]
        case BudgetRemoved():
            return [BudgetEnded(event.budget_id)]
        case LlmCallsRecorded():
            return _llm_calls(event, envelope, counted)
    return []


def _llm_calls(
    event: LlmCallsRecorded, envelope: Envelope, counted: Collection[bytes]
) -> Sequence[Step]:
    calls = {mark(call.id): call for call in reversed(event.calls)}  # the first of an id stands
    fresh = [call for key, call in calls.items() if key not in counted]
    sums = {
        "llm.calls": len(fresh),
        "llm.tokens_in": sum(call.tokens_in for call in fresh),
        "llm.tokens_out": sum(call.tokens_out for call in fresh),
        "llm.cost_nanodollars": sum(_nanodollars(call) for call in fresh),
    }
    return [
        Used(meter, quantity, envelope.time, len(fresh))
        for meter, quantity in sums.items()
        if quantity
    ]


def _nanodollars(call: LlmCall) -> int:
    """To the nearest one; a cost that we priced is divided as a whole number."""
    if call.cost is not None:
        return round(call.cost * NANODOLLARS)
    return (call.cost_pico + 500) // 1000


def mark(call_id: str) -> bytes:
    """Eight bytes that stand for a call's id among those of its run."""
    return hashlib.sha256(call_id.encode()).digest()[:8]
