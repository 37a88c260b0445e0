"""Whatever order a run's reports arrive in, and however often each, the answers are the same."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from infra.ids import new_id
from infra.kafka import Record
from tests.api.observability.world import World, world

REPORTS = 10  # records that `report` makes
arrivals = st.lists(st.integers(0, REPORTS - 1), max_size=2 * REPORTS).flatmap(
    lambda extra: st.permutations([*range(REPORTS), *extra])
)


async def report(world: World, tenant: str) -> tuple[list[Record], dict[str, str]]:
    """Report two runs under a new tenant; the records, and the names of the runs by their ids."""
    world.key = world.app.key(tenant)
    world.app.log.records.clear()
    one = await world.start("a", "w", session_id="s", user_id="u")
    two = await world.start("b", session_id="s", user_id="v")
    await world.calls(one, {"id": "x", "cost": 0.1}, {"id": "y", "cost": 0.2, "model": "claude"})
    await world.calls(two, {"id": "x", "cost": 0.7}, {"id": "z", "cost": 1e-12})
    await world.report(f"{one}/complete/", {"status": "error"})
    await world.report(f"{two}/complete/", {"steps": [{"step_name": "s", "id": "s1"}]})
    scores = [{"id": "1", "name": "n", "numeric_value": 0.1}, {"id": "2", "name": "n"}]
    await world.report(f"{one}/scores/", {"scores": scores})
    await world.report(f"{two}/scores/", {"scores": [{**scores[0], "numeric_value": 0.2}]})
    await world.events({"event_type": "first"}, {"event_type": "second"})
    records = list(world.records)
    assert len(records) == REPORTS
    return records, {one: "one", two: "two"}


async def answers(world: World, tenant: str, names: dict[str, str]) -> Any:
    """Everything that can be asked, with the runs' ids replaced by their names."""
    headers = world.app.human(tenant, cookie=True)
    found = [
        await world.read(path, headers)
        for path in (
            "llm-calls/?sort=created_at",
            "llm-calls/?agent=a&sort=-cost",
            "llm-calls/?search=claude",
            "llm-calls/models/",
            "analytics/models/",
            "sessions/",
            "sessions/s/",
            "users/?sort=first_seen",
            "users/v/",
            "/api/v1/evaluations/scores/",
            "/api/v1/evaluations/scores/analytics/",
            "events/",
        )
    ]
    found.append(
        await world.clickhouse.query(
            "SELECT run_id, agent_name, status,"
            " (SELECT count() FROM steps_v2 WHERE tenant = {t:String}) AS steps"
            " FROM run_starts_v4 JOIN run_completions_v4 USING (tenant, run_id)"
            " WHERE tenant = {t:String} ORDER BY agent_name",
            {"t": tenant},
        )
    )
    text = json.dumps(found)
    for run_id, name in names.items():
        text = text.replace(run_id, name)
    # The id of a governance event is made of the request's.
    text = re.sub(r"gov_[0-9a-z]+_", "gov_", text)
    return json.loads(text)


def test_answers_do_not_depend_on_the_order_or_number_of_arrivals(tmp_path: Path) -> None:
    with asyncio.Runner() as runner:
        made = world(tmp_path)
        here = runner.run(made.__aenter__())

        async def arrive(order: list[int]) -> Any:
            tenant = new_id("ten")
            records, names = await report(here, tenant)
            for index in order:
                await here.fold([records[index]])
            return await answers(here, tenant, names)

        expected = runner.run(arrive(list(range(REPORTS))))
        assert expected[0]["count"] == 4
        assert [found["total_cost"] for found in expected[5]["results"]] == [1.000000000001]
        assert expected[9]["aggregates"]["avg_numeric_value"] == 0.15

        @settings(max_examples=10, print_blob=True)
        @given(arrivals)
        def check(order: list[int]) -> None:
            assert runner.run(arrive(order)) == expected

        try:
            check()
        finally:
            runner.run(made.__aexit__(None, None, None))
