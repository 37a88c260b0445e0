"""What is looked for among millions is looked for in an index: the engine's own plan says so."""

import pytest

from projections.observability.cost_versions import AS_IT_CAME
from projections.observability.llm_call_list import Selection, names_of_runs, one
from projections.observability.llm_call_sums import aggregates
from projections.observability.ordering import Query
from projections.observability.run_groups import costs_of_runs, details
from projections.prompts.prompt_calls import per_hash
from tests.api.harness import TENANT
from tests.api.observability.world import World


@pytest.mark.parametrize(
    ("index", "query"),
    [
        ("by_prompt", per_hash(TENANT, ["ff"])),
        ("by_id", one(TENANT, "c")),
        ("by_run", costs_of_runs(TENANT, ["run_1"], AS_IT_CAME)),
        ("by_run", names_of_runs(TENANT, ["run_1"])),
        ("by_session", details(TENANT, "session_id", ["s"])),
        ("by_user", details(TENANT, "user_id", ["u"])),
        ("by_text", aggregates(Selection(tenant=TENANT, search="iece"))),
        ("by_time", aggregates(Selection(tenant=TENANT, since=1_736_942_400_000_000))),
        ("PrimaryKey", aggregates(Selection(tenant=TENANT))),
    ],
)
async def test_it_is_found_by_its_index(world: World, index: str, query: Query) -> None:
    run_id = await world.start(session_id="s", user_id="u")
    await world.calls(run_id, {"id": "c", "prompt_hash": "ff", "prompt_preview": "a piece"})
    await world.fold()
    plan = await world.clickhouse.query(f"EXPLAIN indexes = 1 {query.sql}", query.params)
    assert any(index in row["explain"] for row in plan), plan
