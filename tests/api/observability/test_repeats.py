"""A repeat of a report changes nothing, whatever it says, also before ClickHouse has put it away.

Each report is folded by itself, so that the first one and its repeat lie in different parts, and
merges are stopped: whoever read the rows as they lie would count the repeat.
"""

from typing import Any

import pytest

from projections.observability import CLICKHOUSE_VIEWS
from tests.api.observability.world import World

QUESTIONS = (
    "llm-calls/",
    "llm-calls/?sort=-cost",
    "llm-calls/?search=first",
    "llm-calls/?search=second",
    "llm-calls/?agent=first",
    "llm-calls/?agent=second",
    "llm-calls/?model=gpt-4o",
    "llm-calls/c/",
    "analytics/models/?period=30d",
    "analytics/models/?period=30d&agent=first",
    "analytics/models/?period=30d&agent=second",
    "sessions/",
    "sessions/?sort=-run_count",
    "sessions/?agent=second",
    "sessions/?search=second",
    "sessions/first/",
    "users/",
    "users/?sort=first_seen",
    "users/first/",
)


async def answers(world: World) -> dict[str, Any]:
    return {path: await world.read(path) for path in QUESTIONS}


@pytest.fixture
async def unmerged(world: World) -> World:
    for view in CLICKHOUSE_VIEWS:
        await world.clickhouse.command(f"SYSTEM STOP MERGES {view.table}")
    return world


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "one"}], ids=["own id", "derived id"])
async def test_what_a_repeat_says_is_in_no_answer(unmerged: World, headers: dict[str, str]) -> None:
    world = unmerged
    first = {"agent_name": "first", "session_id": "first", "user_id": "first"}
    run_id = (await world.report("start/", first, headers))["run_id"]
    await world.calls(run_id, {"id": "c", "cost": 1, "prompt_preview": "the first"})
    world.clock.advance(60)
    await world.report(f"{run_id}/complete/", {"status": "error"})
    records = list(world.records)
    await world.fold(records)
    before = await answers(world)
    assert before["llm-calls/?search=first"]["count"] == 1
    assert before["sessions/"]["results"][0]["total_duration"] == 60
    world.clock.advance(86_400)
    await world.calls(run_id, {"id": "c", "cost": 9, "prompt_preview": "the second"})
    await world.report(f"{run_id}/complete/", {"status": "success"})
    # For another user it would be another run: the id says for whom it is.
    second = {"agent_name": "second", "session_id": "second", "user_id": "first"}
    if headers:
        await world.report("start/", second, headers)
    # Records that are delivered once more, too, and in a part of their own.
    await world.fold(world.records[len(records) :])
    await world.fold(records)
    lying = await world.clickhouse.query("SELECT count() AS n FROM llm_calls_v6 SETTINGS final = 0")
    assert lying == [{"n": 3}]
    assert await answers(world) == before
