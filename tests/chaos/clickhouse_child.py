"""What ClickHouse holds, told by a process of its own: the embedded engine allows one at a time.

`python -m tests.chaos.clickhouse_child FOLDER` prints the tables as the oracle names them.
With `--fill POSITION…` it runs the analytics loop, on the environment's settings, up to those.
"""

import asyncio
import json
import sys
from typing import Any

import chdb

QUERIES = {
    "calls": "SELECT run_id, count(), sum(total_tokens), toString(sum(toInt128(cost_pico))) "
    "FROM llm_calls_v6 FINAL GROUP BY run_id",
    "steps": "SELECT run_id, count() FROM steps_v2 FINAL GROUP BY run_id",
    "started": "SELECT run_id, count() FROM run_starts_v4 FINAL GROUP BY run_id",
    "persons": "SELECT run_id, user_id, inputs FROM run_starts_v4 FINAL WHERE sealed_for != ''",
    "previews": "SELECT run_id, prompt_preview FROM llm_calls_v6 FINAL WHERE sealed_for != ''",
    "completed": "SELECT run_id, count() FROM run_completions_v4 FINAL GROUP BY run_id",
    "audit": "SELECT tenant, count(), max(seq), max(hash) FROM "
    "(SELECT * FROM audit_records_v1 FINAL) GROUP BY tenant",
    "rows": "SELECT 'llm_calls', count(), uniqExact(tenant, run_id, id) FROM llm_calls_v6 "
    "UNION ALL SELECT 'audit_records', count(), uniqExact(tenant, seq) FROM audit_records_v1",
}


def contents(folder: str) -> dict[str, list[Any]]:
    """Each query's rows, sorted."""
    connection = chdb.connect(folder)
    cursor = connection.cursor()
    found = {}
    for name, query in QUERIES.items():
        cursor.execute(query)
        found[name] = sorted([*map(str, row)] for row in cursor.fetchall())
    return found


async def fill(lasts: list[str]) -> None:
    """Run the analytics loop until it has the last records of the log, given as positions."""
    from infra.config import load_settings
    from schemas.envelope import Position
    from streams.__main__ import analytics
    from streams.runtime import clickhouse

    settings, stop = load_settings(), asyncio.Event()
    async with clickhouse(settings) as views:
        loop = asyncio.create_task(analytics(settings, stop, lambda: None))
        for last in lasts:
            assert await views.reached(Position.parse(last), 120), f"{last} was not reached"
        stop.set()
        await loop


def main() -> None:
    if sys.argv[1] == "--fill":
        asyncio.run(fill(sys.argv[2:]))
    else:
        json.dump(contents(sys.argv[1]), sys.stdout)


if __name__ == "__main__":
    main()
