"""What a priced call looks like once it is read: list, sums and detail, out of a real engine."""

from tests.api.observability.world import World

COST = (100 * 2_500_000 + 20 * 10_000_000) / 10**12


async def test_a_priced_call_is_listed_summed_and_explained(world: World) -> None:
    run = await world.start()
    await world.calls(
        run,
        {"id": "priced"},
        {"id": "given", "cost": 0.25},
        {"id": "unknown", "model": "our-own"},
    )
    await world.fold()
    listed = await world.read("llm-calls/?sort=cost")
    assert [(row["id"], row["cost"]) for row in listed["results"]] == [
        ("unknown", 0.0),
        ("priced", COST),
        ("given", 0.25),
    ]
    assert listed["aggregates"]["total_cost"] == 0.25045
    assert "pricing" not in listed["results"][0]
    unknown, priced, given = [
        (await world.read(f"llm-calls/{row['id']}/"))["pricing"] for row in listed["results"]
    ]
    assert priced == {
        "source": "default",
        "input_cost_per_million": 2.5,
        "output_cost_per_million": 10.0,
        "model_id": "gpt-4o",
        "revision": None,
        "repriced": None,
    }
    assert given["source"] == "client"
    assert unknown["source"] == "unpriced"
    assert given["input_cost_per_million"] is unknown["input_cost_per_million"] is None


async def test_an_own_price_is_named_by_its_revision(world: World) -> None:
    run = await world.start()
    answer = await world.app.client.put(
        "/api/v1/observe/model-costs/our-own/",
        json={"input_cost_per_million": 0.000001, "output_cost_per_million": 1},
        headers=world.key,
    )
    assert answer.status_code == 200, answer.text
    await world.calls(run, {"id": "own", "model": "our-own"})
    await world.fold()
    detail = await world.read("llm-calls/own/")
    assert detail["cost"] == (100 + 20_000_000) / 10**12
    assert detail["pricing"] == {
        "source": "override",
        "input_cost_per_million": 0.000001,
        "output_cost_per_million": 1.0,
        "model_id": "our-own",
        "revision": 1,
        "repriced": None,
    }
    sums = await world.read("analytics/models/")
    assert sums["aggregates"]["total_cost"] == detail["cost"]
