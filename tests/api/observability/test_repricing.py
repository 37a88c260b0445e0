"""Repricing calls: what it would change, what it has changed, and what it leaves as it was."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.observability.repricing import new_prices
from commands.observability.prices import Override, Price
from commands.observability.repricing import RepriceCalls
from commands.observability.system_prices import SystemPrices
from tests.api.observability.world import World

REPRICE = "/api/v1/observe/model-costs/reprice/"
DAY = {"from": "2025-01-15", "to": "2025-01-15T12:00:00Z"}  # until the world's noon
ROW = {
    "model": "our-own", "revision": 3, "input_price_pico": 7, "output_price_pico": 11,
    "since": 0, "ended_at": None,
}  # fmt: skip
OWN = (100 * 7 + 20 * 11) / 10**12
GPT_4O = (100 * 2_500_000 + 20 * 10_000_000) / 10**12


async def ask(world: World, **body: Any) -> Any:
    answer = await world.app.client.post(REPRICE, json={**DAY, **body}, headers=world.key)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    # What was decided is in the read model before it is answered.
    repricings = [
        {
            "version": len(sent) - at,
            "repriced_at": world.clock.now(),
            "prices": msgspec.to_builtins(command.prices),
        }
        for sent in [[r.command for r in world.app.bus.requests if is_repricing(r.command)]]
        for at, command in enumerate(reversed(sent))
    ]
    world.app.reads.when("repricings", repricings)
    return found


def is_repricing(command: object) -> bool:
    return isinstance(command, RepriceCalls)


async def reported(world: World) -> None:
    """Five calls at eleven: of a model without a price, of one with, and with a cost of its own."""
    world.clock.advance(seconds=-3600)
    run = await world.start(session_id="s", user_id="u")
    await world.calls(
        run,
        {"id": "own-1", "model": "our-own"},
        {"id": "own-2", "model": "our-own"},
        {"id": "said", "model": "our-own", "cost": 0.25},
        {"id": "default"},
        {"id": "unknown", "model": "nobody-knows"},
    )
    await world.fold()
    world.clock.advance(seconds=3600)
    world.app.reads.when("model_costs", [ROW])


async def costs_of(world: World, query: str = "") -> dict[str, float]:
    listed = await world.read(f"llm-calls/{query}")
    return {row["id"]: row["cost"] for row in listed["results"]}


BEFORE = {"own-1": 0.0, "own-2": 0.0, "said": 0.25, "default": GPT_4O, "unknown": 0.0}
AFTER = {**BEFORE, "own-1": OWN, "own-2": OWN}


async def test_a_dry_run_says_what_would_change_and_changes_nothing(world: World) -> None:
    await reported(world)
    assert await ask(world) == {
        "dry_run": True,
        "models": [
            {"model": "gpt-4o", "calls": 1, "old_cost": GPT_4O, "new_cost": GPT_4O},
            {"model": "our-own", "calls": 2, "old_cost": 0.0, "new_cost": 2 * OWN},
        ],
        "old_cost": GPT_4O,
        "new_cost": GPT_4O + 2 * OWN,
        "version": None,
    }
    assert [r for r in world.app.bus.requests if is_repricing(r.command)] == []
    assert await costs_of(world) == BEFORE


async def test_what_was_repriced_costs_that_everywhere(world: World) -> None:
    await reported(world)
    looked = await ask(world)
    done = await ask(world, dry_run=False)
    assert done == {**looked, "dry_run": False, "version": 1}
    assert await costs_of(world) == AFTER
    listed = await world.read("llm-calls/")
    assert listed["aggregates"]["total_cost"] == 0.25 + GPT_4O + 2 * OWN
    assert list(await costs_of(world, "?sort=-cost")) == [
        "said", "default", "own-2", "own-1", "unknown",
    ]  # fmt: skip
    assert set(await costs_of(world, "?min_cost=5e-10&max_cost=1e-8")) == {"own-1", "own-2"}
    sums = await world.read("analytics/models/")
    assert {row["model"]: row["total_cost"] for row in sums["model_totals"]} == {
        "our-own": 0.25 + 2 * OWN, "gpt-4o": GPT_4O, "nobody-knows": 0.0,
    }  # fmt: skip


async def test_sessions_and_users_cost_what_their_calls_do(world: World) -> None:
    await reported(world)
    await ask(world, dry_run=False)
    total = (await world.read("llm-calls/"))["aggregates"]["total_cost"]
    assert total == 0.25 + GPT_4O + 2 * OWN
    (session,) = (await world.read("sessions/"))["results"]
    (user,) = (await world.read("users/"))["results"]
    assert (session["total_cost"], user["total_cost"]) == (total, total)
    for path in ("sessions/s/", "users/u/"):
        found = await world.read(path)
        assert found["aggregates"]["total_cost"] == total
        assert [run["cost"] for run in found["runs"]] == [total]
    assert [(row["model"], row["total_cost"]) for row in found["cost_by_model"]] == [
        ("our-own", 0.25 + 2 * OWN), ("gpt-4o", GPT_4O), ("nobody-knows", 0.0),
    ]  # fmt: skip


@pytest.mark.parametrize("sort", ["cost", "-cost"])
async def test_cursors_follow_the_order_of_what_calls_cost_now(world: World, sort: str) -> None:
    await reported(world)
    await ask(world, dry_run=False)
    whole = list(await costs_of(world, f"?sort={sort}"))
    found, cursor = [], ""
    while cursor is not None:
        body = await world.read(f"llm-calls/?sort={sort}&limit=1&cursor={cursor}")
        found += [row["id"] for row in body["results"]]
        cursor = body["next_cursor"]
    assert found == whole
    assert [AFTER[id] for id in found] == sorted(AFTER.values(), reverse=sort == "-cost")


async def test_the_cost_before_stays_visible(world: World) -> None:
    await reported(world)
    await ask(world, dry_run=False)
    detail = await world.read("llm-calls/own-1/")
    assert detail["cost"] == OWN
    assert detail["pricing"] == {
        "source": "unpriced",
        "input_cost_per_million": None,
        "output_cost_per_million": None,
        "model_id": None,
        "revision": None,
        "repriced": {
            "version": 1,
            "repriced_at": "2025-01-15T12:00:00Z",
            "original_cost": 0.0,
            "source": "override",
            "input_cost_per_million": 7e-6,
            "output_cost_per_million": 11e-6,
            "model_id": "our-own",
            "revision": 3,
        },
    }
    assert (await world.read("llm-calls/said/"))["pricing"]["repriced"] is None


async def test_only_the_models_and_the_time_that_were_asked_for(world: World) -> None:
    await reported(world)
    await ask(world, dry_run=False, models=["gpt-4o", "nobody-knows"])
    assert await costs_of(world) == BEFORE
    assert (await ask(world, to="2025-01-15T11:00:00Z"))["models"] == []
    nothing = await ask(world, dry_run=False, models=["nobody-knows"])
    assert (nothing["models"], nothing["version"]) == ([], None)


async def test_the_latest_version_holds(world: World) -> None:
    await reported(world)
    await ask(world, dry_run=False)
    world.app.reads.when("model_costs", [{**ROW, "revision": 4, "output_price_pico": 0}])
    again = await ask(world, dry_run=False, models=["our-own"])
    assert again["version"] == 2
    assert (again["old_cost"], again["new_cost"]) == (2 * OWN, 1400e-12)
    assert await costs_of(world) == {**BEFORE, "own-1": 700e-12, "own-2": 700e-12}
    assert (await world.read("llm-calls/default/"))["pricing"]["repriced"]["version"] == 1


async def test_a_call_whose_row_comes_later_is_repriced_too(world: World) -> None:
    await reported(world)
    await ask(world, dry_run=False)
    world.clock.advance(seconds=-1800)
    run = await world.start()
    # It was on its way, unpriced, when the repricing was decided.
    world.app.reads.when("model_costs", [])
    world.app.services.caches.clear()
    await world.calls(run, {"id": "late", "model": "our-own"})
    world.clock.advance(seconds=1800)
    await world.fold()
    assert (await costs_of(world))["late"] == OWN


async def test_what_would_cost_more_than_a_call_may_keeps_its_cost(world: World) -> None:
    await reported(world)
    run = await world.start()
    await world.calls(run, {"id": "huge", "model": "dear", "tokens_in": 10**12})
    await world.fold()
    world.clock.advance(seconds=1)
    world.app.reads.when("model_costs", [{**ROW, "model": "dear", "input_price_pico": 10**12}])
    done = await ask(world, dry_run=False, models=["dear"], to="2025-01-15T12:00:01Z")
    assert done["models"] == [{"model": "dear", "calls": 1, "old_cost": 0.0, "new_cost": 0.0}]
    assert (await costs_of(world))["huge"] == 0.0


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"from": None}, "from"),
        ({"from": "yesterday"}, "from"),
        ({"from": ""}, "from"),
        ({"to": "2025-01-14"}, "to"),
        ({"to": "2025-01-15"}, "to"),
        ({"to": "2025-01-16"}, "to"),
        ({"models": "gpt-4o"}, "models"),
        ({"models": ["m"] * 201}, "models"),
    ],
)
async def test_a_bad_range_is_refused_with_the_fields_name(
    world: World, body: Any, field: str
) -> None:
    answer = await world.app.client.post(REPRICE, json={**DAY, **body}, headers=world.key)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"].startswith(field)
    assert world.app.bus.requests == []


TABLE = SystemPrices(
    {
        "source": "a test",
        "providers": [
            {
                "id": "acme", "named": None, "claims": ["starts", "bolt"], "lends": [],
                "models": [["bolt", ["starts", "bolt"], [[0, 3, 4], [100, 5, 6], [200, 7, 8]]]],
            }
        ],
    }
)  # fmt: skip


def test_the_systems_price_is_the_one_of_each_time_and_an_own_one_that_of_now() -> None:
    time = {"since": 50, "until": 250, "now": 300}
    default = new_prices(TABLE, {}, ["bolt-1", "nut"], **time)
    assert [(p.model, p.since, p.until, p.input_price_pico) for p in default] == [
        ("bolt-1", 50, 100, 3), ("bolt-1", 100, 200, 5), ("bolt-1", 200, 250, 7),
    ]  # fmt: skip
    own = {"bolt": (Override(2, Price(1, 1), 290),)}
    (price,) = new_prices(TABLE, own, ["bolt-1", "nut"], **time)
    assert (price.since, price.until, price.input_price_pico) == (50, 250, 1)
    assert (price.source, price.price_model, price.price_revision) == ("override", "bolt", 2)


@given(st.integers(0, 300), st.integers(1, 300))
def test_stretches_fill_the_time_without_a_gap(since: int, length: int) -> None:
    until = since + length
    found = new_prices(TABLE, {}, ["bolt"], since=since, until=until, now=1_000)
    edges = [(price.since, price.until) for price in found]
    assert edges[0][0] == since
    assert edges[-1][1] == until
    assert [end for _, end in edges[:-1]] == [begin for begin, _ in edges[1:]]
    row = TABLE.find("bolt")
    assert row is not None
    for price in found:
        for instant in (price.since, price.until - 1):
            assert row.at(instant) == Price(price.input_price_pico, price.output_price_pico)
