"""What agents use, in Postgres: rows in, `attribution.attribute`, rows out.

All of it runs inside the batch's transaction, behind the windows' locks and with its rows in sorted
order. The reports of a run are all in one partition, so nobody else looks at its rows meanwhile.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import psycopg

from projections.billing.usage_windows import BY_AGENT, RUNS, UNNAMED
from streams.billing.attribution import Attributed, Portion, Report, RunKey, Who, attribute
from streams.billing.states import write

Connection = psycopg.AsyncConnection[Any]

_SAME = "(tenant, run_id) IN (SELECT * FROM unnest(%s::text[], %s::text[]))"
# `attribution.merged`, as a statement.
_MERGE = f"""
INSERT INTO {BY_AGENT} AS held (tenant, window_kind, who, agent_name, workflow_name, agent_id,
  window_start, runs, calls, tokens, nanodollars)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (tenant, window_kind, who) DO UPDATE SET window_start = EXCLUDED.window_start,
""" + ",\n".join(
    f"  {column} = EXCLUDED.{column} + CASE WHEN held.window_start = EXCLUDED.window_start "
    f"THEN held.{column} ELSE 0 END"
    for column in ("runs", "calls", "tokens", "nanodollars")
) + "\nWHERE held.window_start <= EXCLUDED.window_start"  # fmt: skip


async def count(connection: Connection, reports: Sequence[Report]) -> None:
    """Count what the reports say for those who used it."""
    if not reports:
        return
    runs = sorted({report.run for report in reports})
    known = await _known(connection, runs)
    waiting = await _waiting(connection, [run for run in runs if run not in known])
    await _save(connection, attribute(reports, known, waiting))


async def _known(connection: Connection, runs: Sequence[RunKey]) -> dict[RunKey, Who]:
    cursor = await connection.execute(
        f"SELECT * FROM {RUNS} WHERE {_SAME}".encode(), _columns(runs)
    )
    return {
        RunKey(row["tenant"], row["run_id"]): Who(
            row["agent_name"], row["workflow_name"], row["agent_id"]
        )
        for row in await cursor.fetchall()
    }


async def _waiting(connection: Connection, runs: Sequence[RunKey]) -> dict[RunKey, list[Portion]]:
    found: dict[RunKey, list[Portion]] = defaultdict(list)
    if runs:
        cursor = await connection.execute(
            f"SELECT * FROM {UNNAMED} WHERE {_SAME}".encode(), _columns(runs)
        )
        for row in await cursor.fetchall():
            portion = Portion(
                row["used_at"], 0, row["calls"], int(row["tokens"]), int(row["nanodollars"])
            )
            found[RunKey(row["tenant"], row["run_id"])].append(portion)
    return found


def _columns(runs: Sequence[RunKey]) -> tuple[list[str], list[str]]:
    return [run.tenant for run in runs], [run.run_id for run in runs]


async def _save(connection: Connection, found: Attributed) -> None:
    await write(
        connection,
        f"INSERT INTO {RUNS} VALUES (%s, %s, %s, %s, %s)",
        [(*run, *who) for run, who in found.begun.items()],
    )
    await write(
        connection,
        f"DELETE FROM {UNNAMED} WHERE tenant = %s AND run_id = %s",
        sorted(found.named),
    )
    await write(
        connection,
        f"INSERT INTO {UNNAMED} VALUES (%s, %s, %s, %s, %s, %s, %s)",
        [
            (*run, offset, portion.at, portion.calls, portion.tokens, portion.nanodollars)
            for run, portions in found.unnamed.items()
            for offset, portion in portions.items()
        ],
    )
    await write(
        connection,
        _MERGE,
        [(*key, *row.who, *row[1:]) for key, row in sorted(found.rows.items())],
    )
