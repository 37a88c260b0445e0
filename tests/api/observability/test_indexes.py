"""What is looked for among millions is looked for in an index, and what is added up is read from
the sums that are kept: the engine's own plan says so."""

from itertools import groupby

import pytest

from projections.observability.cost_versions import AS_IT_CAME
from projections.observability.items import RUNS_NAMED
from projections.observability.llm_call_list import (
    Selection,
    names_of_runs,
    names_of_runs_anywhere,
    one,
    order_by,
    page,
)
from projections.observability.llm_call_sums import aggregates, per_model_and_day
from projections.observability.ordering import Query, Window
from projections.observability.run_groups import Groups, costs, count, details
from projections.observability.run_groups import order_by as order_of_groups
from projections.observability.run_groups import page as page_of_groups
from projections.observability.run_starts import RUN_STARTS
from projections.observability.unmerged import as_they_lie
from projections.prompts.prompt_calls import per_hash
from tests.api.harness import TENANT
from tests.api.observability.world import World


@pytest.mark.parametrize(
    ("index", "query"),
    [
        ("by_prompt", per_hash(TENANT, ["ff"])),
        ("by_id", one(TENANT, "c")),
        ("by_run", names_of_runs_anywhere(TENANT, ["run_1"])),
        ("(run_id in 1-element set)", names_of_runs(TENANT, ["run_1"], [1])),
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


HOUR = 1_736_942_400_000_000
USERS = Groups(tenant=TENANT, by="user_id")


@pytest.mark.parametrize(
    ("name", "query"),
    [
        ("kept_by_hour", aggregates(Selection(tenant=TENANT, models=["m"]))),
        ("kept_by_hour", per_model_and_day(Selection(tenant=TENANT, since=HOUR, until=2 * HOUR))),
        ("by_cost", page(Selection(tenant=TENANT), order_by("-cost"), Window(25))),
        ("session_numbers", count(Groups(tenant=TENANT, by="session_id"))),
        ("kept_by_user_id", count(USERS)),
        ("in_order_of_session_id", details(TENANT, "session_id", ["s1"])),
        ("in_order_of_user_id", costs(TENANT, "user_id", ["u1"], AS_IT_CAME)),
        ("in_order_of_runs", details(TENANT, "user_id", ["u1"])),
        ("kept_by_run", costs(TENANT, "user_id", ["u1"], AS_IT_CAME)),
        (
            "kept_by_user_id",
            page_of_groups(USERS, order_of_groups("run_count", descending=True), Window(25)),
        ),
        ("kept_by_session_id", count(Groups(tenant=TENANT, by="session_id", search="s"))),
    ],
)
async def test_it_is_read_from_what_is_kept(world: World, name: str, query: Query) -> None:
    for number in range(3):
        run_id = await world.start(f"a{number}", session_id=f"s{number}", user_id=f"u{number}")
        await world.calls(run_id, {"cost": number})
        await world.report(f"{run_id}/complete/", {})
    await world.fold()
    sql, params = as_they_lie(query)
    plan = await world.clickhouse.query(f"EXPLAIN indexes = 1, projections = 1 {sql}", params)
    assert any(name in row["explain"] for row in plan), plan


async def test_in_the_order_of_their_numbers_runs_of_a_person_lie_together(world: World) -> None:
    persons = {}
    for number in range(12):
        user = {"user_id": f"u{number % 3}"} if number % 4 else {}
        persons[await world.start("a", **user)] = user.get("user_id", "")
    await world.fold()
    rows = await world.clickhouse.query(
        f"SELECT run_id, starts.run = named.run AS same FROM {RUN_STARTS.table} AS starts"
        f" INNER JOIN {RUNS_NAMED} AS named USING (run_id) ORDER BY starts.run",
        {"run_ids": list(persons)},
    )
    assert len(rows) == 12
    assert all(row["same"] for row in rows)
    in_order = [persons[row["run_id"]] for row in rows]
    assert in_order[0] == ""
    assert len(list(groupby(in_order))) == len(set(in_order)) == 4
