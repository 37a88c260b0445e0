"""Blanks a person's rows in ClickHouse, and does not return before none is left."""

import asyncio
import logging
from collections.abc import Mapping

from infra.clickhouse import AnalyticsUnavailable, ClickHouse
from projections.clickhouse import ClickHouseView
from projections.observability.erased_rows import (
    TABLES,
    UNFINISHED,
    blank_rows,
    count_rows,
    is_of,
)

logger = logging.getLogger(__name__)

_PAUSE_SECONDS, _PAUSE_SECONDS_MAX = 0.05, 2.0


async def blank_view(engine: ClickHouse, view: ClickHouseView, tenant: str, key: str) -> int:
    """Blank what was sealed under a key in every table of a view, older versions and those of a
    rebuild included; how many rows of the live table it is. Raises AnalyticsUnavailable."""
    person, rows = {"tenant": tenant, "key": key}, {}
    for found in await engine.query(TABLES):
        table, columns = found["held_in"], found["columns"]
        if is_of(view, table):
            statements = blank_rows(view, table, columns), count_rows(view, table, columns)
            rows[table] = await _blank(engine, table, statements, person)
    if view.table not in rows:
        raise AnalyticsUnavailable(f"{view.table} is not there yet")
    return rows[view.table]


async def _blank(
    engine: ClickHouse, table: str, statements: tuple[str, str], person: Mapping[str, str]
) -> int:
    blank, count_left = statements
    pause = _PAUSE_SECONDS
    while True:
        (count,) = await engine.query(count_left, person)
        if not count["full"]:
            return int(count["rows"])
        unfinished = await engine.query(UNFINISHED, {"table": table})
        for mutation in unfinished:
            if mutation["failed"]:
                logger.warning("a mutation of %s fails: %s", table, mutation["failed"])
        if not unfinished:
            await engine.command(blank, person)
        await asyncio.sleep(pause)
        pause = min(pause * 2, _PAUSE_SECONDS_MAX)
