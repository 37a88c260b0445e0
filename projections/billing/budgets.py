"""`budgets`: the budgets of a tenant, and the last share of each that was reached."""

from collections.abc import Sequence
from typing import Any

from projections.statements import Delete, Put, Set, Statement, View, json_text
from schemas.billing.budget import BudgetReached, BudgetRemoved, BudgetSet
from schemas.envelope import Envelope


def reduce(event: Any, envelope: Envelope) -> Sequence[Statement]:
    match event:
        case BudgetSet():
            values = {
                "revision": event.revision,
                "meter": event.meter,
                "window_kind": event.window,
                "limit_quantity": event.limit,
                "alert_percents": json_text(event.alert_percents),
                "set_at": envelope.time,
                # A new setting starts its alerts anew.
                "reached_percent": 0,
                "reached_window_start": None,
                "reached_at": None,
            }
            return [Put(_key(event.budget_id, envelope), values)]
        case BudgetRemoved():
            return [Delete(_key(event.budget_id, envelope))]
        case BudgetReached():
            values = {
                "reached_percent": event.percent,
                "reached_window_start": event.window_start,
                "reached_at": envelope.time,
            }
            return [Set(_key(event.budget_id, envelope), values)]
    return []


def _key(budget_id: str, envelope: Envelope) -> dict[str, str]:
    return {"tenant": envelope.tenant, "budget_id": budget_id}


BUDGETS = View(
    name="budgets",
    version=1,
    events=(BudgetSet, BudgetRemoved, BudgetReached),
    columns={
        "tenant": "text",
        "budget_id": "text",
        "revision": "bigint",
        "meter": "text",
        "window_kind": "text",
        "limit_quantity": "bigint",
        "alert_percents": "jsonb",
        "set_at": "bigint",
        "reached_percent": "int",
        "reached_window_start": "bigint",
        "reached_at": "bigint",
    },
    key=("tenant", "budget_id"),
    reduce=reduce,
)

# Parameters: tenant, the budget_id after which to go on, limit.
PAGE = f"""
SELECT * FROM {BUDGETS.table} WHERE tenant = %s AND budget_id > %s ORDER BY budget_id LIMIT %s
"""
