"""The states of the tenants in a batch: rows in, `metering.State`, rows out.

All of it runs inside the batch's transaction. A tenant's lock is shared by who counts its usage and
held alone by who changes its budgets; so of a budget that is set and a usage that crosses it at the
same time, in whatever partitions, the later one sees the other.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg

from projections.billing.usage_windows import ALERTS, BUDGETS, TENANT_LOCK, WINDOWS
from schemas.billing.budget import BudgetSet
from schemas.billing.window import window_of
from streams.billing.metering import (
    Alert,
    Amount,
    BudgetEnded,
    BudgetStands,
    State,
    Step,
    Used,
    WindowKey,
    keys_of,
)

Connection = psycopg.AsyncConnection[Any]
Steps = Mapping[str, Sequence[Step]]


async def load(connection: Connection, steps: Steps) -> dict[str, State]:
    """The tenants' states as far as the steps need them, their windows locked."""
    await _lock_tenants(connection, steps)
    keys = sorted(
        {
            (tenant, key)
            for tenant, events in steps.items()
            for event in events
            if isinstance(event, Used)
            for key in keys_of(event)
        }
    )
    await write(
        connection,
        f"INSERT INTO {WINDOWS} VALUES (%s, %s, %s, %s, %s, 0, 0) ON CONFLICT DO NOTHING",
        [(tenant, *key, window_of(key.kind, key.start).end) for tenant, key in keys],
    )
    keys = sorted({*keys, *await _covered(connection, steps)})
    amounts = await _amounts(connection, keys)
    budgets = await _budgets(connection, list(steps))
    alerts = await _alerts(connection, list(steps), keys)
    return {tenant: State(amounts[tenant], budgets[tenant], alerts[tenant]) for tenant in steps}


async def _lock_tenants(connection: Connection, steps: Steps) -> None:
    for tenant, events in sorted(steps.items()):
        alone = any(not isinstance(event, Used) for event in events)
        lock = "pg_advisory_xact_lock" if alone else "pg_advisory_xact_lock_shared"
        await connection.execute(f"SELECT {lock}(%s, hashtext(%s))".encode(), (TENANT_LOCK, tenant))


async def _covered(connection: Connection, steps: Steps) -> set[tuple[str, WindowKey]]:
    """The windows there are that a budget which is set covers."""
    found: set[tuple[str, WindowKey]] = set()
    for tenant, events in steps.items():
        for event in events:
            if isinstance(event, BudgetStands):
                meter, kind = event.budget.meter, event.budget.window
                rows = await _rows(
                    connection,
                    f"SELECT window_start FROM {WINDOWS} WHERE tenant = %s AND meter = %s "
                    "AND window_kind = %s AND window_start >= %s",
                    tenant,
                    meter,
                    kind,
                    event.since,
                )
                found |= {(tenant, WindowKey(meter, kind, row["window_start"])) for row in rows}
    return found


async def _amounts(
    connection: Connection, keys: Sequence[tuple[str, WindowKey]]
) -> Mapping[str, Mapping[WindowKey, Amount]]:
    amounts: dict[str, dict[WindowKey, Amount]] = defaultdict(dict)
    for row in await _rows(
        connection,
        f"SELECT w.* FROM {WINDOWS} w JOIN unnest(%s::text[], %s::text[], %s::text[], "
        "%s::bigint[]) AS k (tenant, meter, window_kind, window_start) "
        "USING (tenant, meter, window_kind, window_start) "
        "ORDER BY tenant, meter, window_kind, window_start FOR UPDATE OF w",
        [tenant for tenant, _ in keys],
        [key.meter for _, key in keys],
        [key.kind for _, key in keys],
        [key.start for _, key in keys],
    ):
        key = WindowKey(row["meter"], row["window_kind"], row["window_start"])
        amounts[row["tenant"]][key] = Amount(int(row["quantity"]), row["records"])
    return amounts


async def _budgets(
    connection: Connection, tenants: Sequence[str]
) -> Mapping[str, Mapping[str, BudgetStands]]:
    budgets: dict[str, dict[str, BudgetStands]] = defaultdict(dict)
    sql = f"SELECT * FROM {BUDGETS} WHERE tenant = ANY(%s)"
    for row in await _rows(connection, sql, tenants):
        budget = BudgetSet(
            budget_id=row["budget_id"],
            revision=row["revision"],
            meter=row["meter"],
            window=row["window_kind"],
            limit=row["limit_quantity"],
            alert_percents=row["alert_percents"],
        )
        budgets[row["tenant"]][budget.budget_id] = BudgetStands(budget, row["since"])
    return budgets


async def _alerts(
    connection: Connection, tenants: Sequence[str], keys: Sequence[tuple[str, WindowKey]]
) -> Mapping[str, Mapping[Alert, int]]:
    alerts: dict[str, dict[Alert, int]] = defaultdict(dict)
    for row in await _rows(
        connection,
        f"SELECT tenant, budget_id, revision, window_start, percent, total FROM {ALERTS} "
        "WHERE tenant = ANY(%s) AND window_start = ANY(%s)",
        tenants,
        sorted({key.start for _, key in keys}),
    ):
        alert = Alert(row["budget_id"], row["revision"], row["window_start"], row["percent"])
        alerts[row["tenant"]][alert] = int(row["total"])
    return alerts


async def save_amounts(
    connection: Connection, before: Mapping[str, State], after: Mapping[str, State]
) -> None:
    """Write the totals that changed."""
    await write(
        connection,
        f"UPDATE {WINDOWS} SET quantity = %s, records = %s WHERE tenant = %s AND meter = %s "
        "AND window_kind = %s AND window_start = %s",
        [
            (*amount, tenant, *key)
            for tenant, state in after.items()
            for key, amount in state.amounts.items()
            if amount != before[tenant].amounts.get(key)
        ],
    )


async def save_budgets(connection: Connection, steps: Steps) -> None:
    """Write the budgets that were set or removed, in order."""
    for tenant, events in steps.items():
        for event in events:
            if isinstance(event, BudgetEnded):
                await write(
                    connection,
                    f"DELETE FROM {BUDGETS} WHERE tenant = %s AND budget_id = %s",
                    [(tenant, event.budget_id)],
                )
            elif isinstance(event, BudgetStands):
                await write(
                    connection,
                    f"INSERT INTO {BUDGETS} VALUES (%s, %s, %s, %s, %s, %s, %s, %s) "
                    "ON CONFLICT (tenant, budget_id) DO UPDATE SET "
                    "revision = EXCLUDED.revision, limit_quantity = EXCLUDED.limit_quantity, "
                    "alert_percents = EXCLUDED.alert_percents, since = EXCLUDED.since",
                    [_row(tenant, event)],
                )


def _row(tenant: str, stands: BudgetStands) -> Sequence[Any]:
    budget = stands.budget
    return (
        tenant,
        budget.budget_id,
        budget.revision,
        budget.meter,
        budget.window,
        budget.limit,
        list(budget.alert_percents),
        stands.since,
    )


async def _rows(connection: Connection, sql: str, *params: Any) -> list[dict[str, Any]]:
    cursor = await connection.execute(sql.encode(), params)
    return await cursor.fetchall()


async def write(connection: Connection, sql: str, rows: Sequence[Sequence[Any]]) -> None:
    """Execute once for each row, in as few round trips as it takes."""
    if rows:
        async with connection.cursor() as cursor:
            await cursor.executemany(sql.encode(), rows)
