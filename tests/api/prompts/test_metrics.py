"""How much versions were used: calls reported to a real ClickHouse engine, joined by their hash."""

from pathlib import Path

from commands.prompts.content import hash_of
from tests.api.observability.world import world
from tests.api.prompts.conftest import Prompts


async def test_versions_have_the_calls_that_reported_their_hash(
    prompts: Prompts, tmp_path: Path
) -> None:
    prompt_id = (await prompts.create("support", "one"))["id"]
    for content in ("two", "one", "never called"):
        await prompts.add(prompt_id, content)
    await prompts.create("other", "three")
    async with world(tmp_path) as reports:
        run = await reports.start()
        one, two = {"prompt_hash": hash_of("one")}, {"prompt_hash": hash_of("two")}
        await reports.calls(run, {**one, "cost": 0.1}, {**one, "cost": 0.2}, {"cost": 5.0})
        await reports.calls(
            run, {**two, "tokens_in": 7, "cost": 0.4}, {"prompt_hash": hash_of("three")}
        )
        await reports.fold()
        prompts.harness.services.analytics = reports.clickhouse
        metrics = await prompts.ask(f"{prompt_id}/metrics/")
    ones = {"call_count": 2, "total_tokens": 240, "total_cost": 0.3}
    assert metrics == {
        "prompt_id": prompt_id,
        "prompt_name": "support",
        "totals": {"call_count": 3, "total_tokens": 267, "total_cost": 0.7},
        "versions": [
            {"version": 1, "content_hash": hash_of("one"), **ones},
            {
                "version": 2,
                "content_hash": hash_of("two"),
                "call_count": 1,
                "total_tokens": 27,
                "total_cost": 0.4,
            },
            {"version": 3, "content_hash": hash_of("one"), **ones},
            {
                "version": 4,
                "content_hash": hash_of("never called"),
                "call_count": 0,
                "total_tokens": 0,
                "total_cost": 0.0,
            },
        ],
    }


async def test_many_versions_are_asked_a_thousand_at_a_time(prompts: Prompts) -> None:
    prompt_id = (await prompts.create())["id"]
    rows = [{"version": n, "content_hash": f"{n:064}"} for n in range(1, 2502)]
    prompts.harness.reads.when("SELECT version, content_hash", rows)
    found = [{"prompt_hash": f"{7:064}", "calls": 1, "tokens": "3", "total_pico": "0"}]
    prompts.harness.analytics.when("prompt_hash IN", found)
    metrics = await prompts.ask(f"{prompt_id}/metrics/")
    sizes = [len(parameters["hashes"]) for _, parameters in prompts.harness.analytics.asked]
    assert sizes == [1000, 1000, 501]
    assert metrics["totals"]["call_count"] == 1
    assert len(metrics["versions"]) == 2501
