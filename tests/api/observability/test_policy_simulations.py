"""Proposed policies, replayed over runs in a real ClickHouse engine."""

from typing import Any

import httpx
import msgspec
import pytest

from api.observability import policy_simulations
from schemas.observability.policy import AgentsRule, Definition, rules_of
from tests.api.harness import OTHER_TENANT
from tests.api.observability.world import World

PATH = "/api/v1/observe/policies/simulate/"
BUDGET = {
    "name": "a dollar a day",
    "rule": {"kind": "budget", "unit": "usd", "limit": 1, "window": "day", "warn_percent": 50},
}


async def ask(world: World, **body: Any) -> httpx.Response:
    return await world.app.client.post(PATH, json=body, headers=world.key)


async def simulated(world: World, **body: Any) -> Any:
    answer = await ask(world, **body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def four_runs(world: World) -> list[str]:
    """Runs an hour apart, with a cost of half a dollar each; the third is another agent's."""
    made = []
    for agent in ("support-bot", "support-bot", "research-bot", "support-bot"):
        run = await world.start(agent)
        world.clock.advance(60)
        await world.calls(run, {"cost": 0.5, "model": f"model-of-{agent}"})
        world.clock.advance(3540)
        made.append(run)
    await world.fold()
    return made


def spoken(counts: dict[str, int]) -> dict[str, int]:
    return {action: count for action, count in counts.items() if count}


async def test_a_budget_says_whom_it_would_have_warned_and_stopped(world: World) -> None:
    runs = await four_runs(world)
    found = await simulated(world, policy=BUDGET, days=1)
    assert (found["runs"], found["changed"], found["truncated"]) == (4, 3, False)
    assert spoken(found["before"]) == {"allow": 4}
    assert spoken(found["after"]) == {"allow": 1, "warn": 1, "block": 2}
    assert [run["run_id"] for run in found["sample"]] == runs[:0:-1]
    assert found["sample"][0]["after"] == {
        "action": "block", "reason": "budget exhausted: 1.5 of 1 usd used in this day",
    }  # fmt: skip
    scoped = {**BUDGET, "scope": {"agent_names": ["support-*"]}}
    found = await simulated(world, policy=scoped, days=1)
    assert spoken(found["after"]) == {"allow": 2, "warn": 1, "block": 1}
    assert (found["since"], found["until"]) == ("2025-01-14T16:00:00Z", "2025-01-15T16:00:00Z")
    assert world.app.bus.payloads() == [], "nothing is changed"


async def test_models_are_those_that_the_runs_called(world: World) -> None:
    runs = await four_runs(world)
    policy = {"name": "m", "rule": {"kind": "models", "allow": ["model-of-support-bot"]}}
    found = await simulated(world, policy=policy)
    assert [run["run_id"] for run in found["sample"]] == [runs[2]]


async def test_it_takes_the_place_of_the_policy_that_it_names(world: World) -> None:
    await four_runs(world)
    denies = Definition(name="deny", rules=rules_of(AgentsRule(deny=["*"])))
    row = {"policy_id": "pol_1", "revision": 1, "definition": msgspec.to_builtins(denies)}
    world.app.reads.when("FROM agent_policies_v1", [row])
    beside = await simulated(world, policy=BUDGET)
    assert spoken(beside["before"]) == spoken(beside["after"]) == {"block": 4}
    instead = await simulated(world, policy=BUDGET, policy_id="pol_1")
    assert spoken(instead["after"]) == {"allow": 1, "warn": 1, "block": 2}
    assert (await ask(world, policy=BUDGET, policy_id="pol_9")).status_code == 404


async def test_only_the_newest_are_judged_where_there_are_too_many(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await four_runs(world)
    monkeypatch.setattr(policy_simulations, "RUNS_MAX", 2)
    found = await simulated(world, policy=BUDGET)
    assert (found["runs"], found["truncated"]) == (2, True)
    assert found["since"] == "2025-01-15T14:00:00Z"
    assert spoken(found["after"]) == {"block": 2}, "what was used before counts"
    monkeypatch.setattr(policy_simulations, "USAGE_ROWS_MAX", 1)
    answer = await ask(world, policy=BUDGET)
    assert (answer.status_code, answer.json()) == (
        400, {"error": "days: There is too much to replay"},
    )  # fmt: skip


async def test_another_tenant_s_runs_and_earlier_ones_are_not_replayed(world: World) -> None:
    await four_runs(world)
    other = await world.app.client.post(
        PATH, json={"policy": BUDGET}, headers=world.app.key(OTHER_TENANT)
    )
    assert other.json()["runs"] == 0
    world.clock.advance(86_400)
    assert (await simulated(world, policy=BUDGET, days=1))["runs"] == 0


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"policy": BUDGET, "days": 91}, "days"),
        ({"policy": BUDGET, "days": 0}, "days"),
        ({"policy": {**BUDGET, "name": ""}}, "policy.name"),
        (
            {"policy": {"name": "p", "rule": {"kind": "redaction", "patterns": ["("]}}},
            "policy.rule.patterns[0]",
        ),
    ],
)
async def test_what_cannot_be_meant_is_refused_by_its_place(
    world: World, body: dict[str, Any], place: str
) -> None:
    answer = await ask(world, **body)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(f"{place}: ")
