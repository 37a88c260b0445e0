"""Model costs over HTTP: the merged table, a tenant's own prices, and calls priced by them."""

from typing import Any
from urllib.parse import quote

import pytest

from api.observability import ROUTES
from api.observability.tenant_prices import tenant_prices
from commands.observability.model_cost import SetModelCost
from infra.postgres import DatabaseUnavailable
from schemas.observability.model_cost import ModelCostRemoved, ModelCostSet
from schemas.observability.run import LlmCall
from streams.telemetry import codec
from tests.api.harness import OTHER_TENANT, TENANT, Harness

COSTS = "/api/v1/observe/model-costs/"
BODY = {"input_cost_per_million": 2.0, "output_cost_per_million": 8.0}


def was_set(model: str, revision: int = 1, since: int = 0, **more: Any) -> ModelCostSet:
    prices = {"input_price_pico": 2, "output_price_pico": 8, **more}
    return ModelCostSet(model=model, revision=revision, since=since, **prices)


def row(model: str, revision: int = 1, since: int = 0, ended_at: int | None = None) -> Any:
    return {
        "model": model, "revision": revision, "input_price_pico": 3_000_000,
        "output_price_pico": 4_000_000, "since": since, "ended_at": ended_at,
    }  # fmt: skip


async def priced(app: Harness, *items: dict[str, Any], tenant: str = TENANT) -> list[LlmCall]:
    """Calls as the log has them, after they were reported."""
    key = app.key(tenant)
    start = await app.client.post(
        "/api/v1/observe/runs/start/", json={"agent_name": "a"}, headers=key
    )
    given = {"model": "gpt-4o", "tokens_in": 1000, "tokens_out": 10}
    answer = await app.client.post(
        f"/api/v1/observe/runs/{start.json()['run_id']}/llm-calls/",
        json={"calls": [{**given, **item} for item in items]},
        headers=key,
    )
    assert answer.status_code == 200, answer.text
    calls: list[LlmCall] = codec().decode(app.log.records["telemetry"][-1].value).calls
    return calls


async def table(app: Harness) -> dict[str, Any]:
    answer = await app.client.get(COSTS, headers=app.key(roles=("viewer",)))
    assert answer.status_code == 200, answer.text
    return {found["model_id"]: found for found in answer.json()["models"]}


async def test_the_table_is_the_systems_with_the_tenants_in_its_place() -> None:
    async with Harness(ROUTES) as app:
        app.reads.when(
            "model_costs", [row("gpt-4o", 4, since=app.clock.now()), row("our/own:v1", 1)]
        )
        models = await table(app)
        assert models["gpt-4o"] == {
            "model_id": "gpt-4o",
            "input_cost_per_million": 3.0,
            "output_cost_per_million": 4.0,
            "source": "override",
            "revision": 4,
            "since": "2023-11-14T22:13:20Z",
        }
        assert models["our/own:v1"]["source"] == "override"
        assert models["gpt-4o-mini"] == {
            "model_id": "gpt-4o-mini",
            "input_cost_per_million": 0.15,
            "output_cost_per_million": 0.6,
            "source": "default",
            "revision": None,
            "since": None,
        }
        assert list(models) == sorted(models)
        assert app.reads.asked[-1][1][0] == TENANT


async def test_what_has_ended_is_not_in_the_table() -> None:
    async with Harness(ROUTES) as app:
        app.reads.when("model_costs", [row("gpt-4o", ended_at=2**60), row("gone", ended_at=2**60)])
        models = await table(app)
        assert models["gpt-4o"]["source"] == "default"
        assert "gone" not in models


@pytest.mark.parametrize(
    "model", ["gpt-4o", "openai/gpt-4o", "anthropic.claude-3-5-sonnet-20240620-v1:0", "a/b/c:d.e"]
)
@pytest.mark.parametrize("encode", [str, lambda model: quote(model, safe="")])
async def test_any_models_cost_is_set_and_removed(model: str, encode: Any) -> None:
    async with Harness(ROUTES) as app:
        key = app.key(roles=("developer",))
        for end in ("", "/"):
            path = f"{COSTS}{encode(model)}{end}"
            answer = await app.client.put(path, json=BODY, headers=key)
            assert answer.status_code == 200, answer.text
            assert answer.json() == {
                "model_id": model,
                "input_cost_per_million": 2.0,
                "output_cost_per_million": 8.0,
                "source": "override",
                "revision": 2 if end else 1,
                "since": "2023-11-14T22:13:20Z",
            }
            assert (await app.client.delete(path, headers=key)).status_code == 204
            gone = await app.client.delete(path, headers=key)
            assert gone.status_code == 404
            assert gone.json() == {"error": "There is no cost of your own for this model"}
        request = app.bus.requests[0]
        assert request.stream_id == model
        assert request.command == SetModelCost(
            input_price_pico=2_000_000, output_price_pico=8_000_000
        )


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "input_cost_per_million"),
        ({"input_cost_per_million": 1}, "output_cost_per_million"),
        ({**BODY, "input_cost_per_million": -0.1}, "input_cost_per_million"),
        ({**BODY, "output_cost_per_million": "8"}, "output_cost_per_million"),
        ({**BODY, "output_cost_per_million": 1_000_001}, "output_cost_per_million"),
        ({**BODY, "output_cost_per_million": None}, "output_cost_per_million"),
    ],
)
async def test_a_bad_body_is_refused_with_the_fields_name(body: Any, field: str) -> None:
    async with Harness(ROUTES) as app:
        answer = await app.client.put(f"{COSTS}gpt-4o/", json=body, headers=app.key())
        assert answer.status_code == 400
        assert field in answer.json()["error"]
        assert app.bus.requests == []


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
async def test_a_name_that_no_model_has_is_refused(method: str) -> None:
    async with Harness(ROUTES) as app:
        answer = await app.client.request(
            method, f"{COSTS}{'m' * 501}", json=BODY, headers=app.key()
        )
        assert answer.status_code == 400
        assert "model_id" in answer.json()["error"]


async def test_who_only_reads_sets_nothing() -> None:
    async with Harness(ROUTES) as app:
        viewer = app.key(roles=("viewer",))
        for method in ("PUT", "DELETE"):
            answer = await app.client.request(method, f"{COSTS}gpt-4o/", json=BODY, headers=viewer)
            assert answer.status_code == 403
        assert app.bus.requests == []


async def test_a_call_without_a_cost_is_priced_and_keeps_its_price() -> None:
    async with Harness(ROUTES) as app:
        given, default, unknown = await priced(
            app, {"cost": 0.5}, {"model": "openai/gpt-4o-2024-08-06"}, {"model": "our-own"}
        )
        assert (given.cost, given.cost_source, given.cost_pico) == (0.5, "client", 0)
        assert (default.cost, default.cost_source) == (None, "default")
        assert (default.price_in_pico, default.price_out_pico) == (2_500_000, 10_000_000)
        assert (default.price_model, default.price_revision) == ("gpt-4o", 0)
        assert default.cost_pico == 1000 * 2_500_000 + 10 * 10_000_000
        assert (unknown.cost_source, unknown.cost_pico) == ("unpriced", 0)
        assert unknown.whole_cost_pico == 0


async def test_a_cost_of_nothing_is_the_clients_word() -> None:
    async with Harness(ROUTES) as app:
        (call,) = await priced(app, {"cost": 0})
        assert (call.cost, call.cost_source) == (0.0, "client")


async def test_prices_are_read_once_and_only_when_they_are_needed() -> None:
    async with Harness(ROUTES) as app:
        await priced(app, {"cost": 1.0})
        assert app.reads.asked == []
        for _ in range(3):
            await priced(app, {})
        assert len(app.reads.asked) == 1


async def test_a_cost_holds_from_the_moment_of_its_answer_until_that_of_its_removal() -> None:
    async with Harness(ROUTES) as app:
        path, key = f"{COSTS}gpt-4o/", app.key()
        await app.client.put(path, json=BODY, headers=key)
        app.clock.advance(seconds=1)
        (own,) = await priced(app, {})
        assert (own.cost_source, own.cost_pico, own.price_revision) == (
            "override", 1000 * 2_000_000 + 10 * 8_000_000, 1,
        )  # fmt: skip
        await app.client.delete(path, headers=key)
        (default,) = await priced(app, {})
        assert default.cost_source == "default"


async def test_the_log_tells_of_what_another_process_took() -> None:
    async with Harness(ROUTES) as app:
        prices = tenant_prices(app.services)
        assert [call.cost_source for call in await priced(app, {})] == ["default"]
        prices.apply(TENANT, was_set("gpt-4o"))
        assert [call.cost_source for call in await priced(app, {})] == ["override"]
        assert [call.cost_source for call in await priced(app, {}, tenant=OTHER_TENANT)] == [
            "default"
        ]
        prices.apply(TENANT, ModelCostRemoved(model="gpt-4o", revision=1, until=1))
        assert [call.cost_source for call in await priced(app, {})] == ["default"]


async def test_the_log_may_be_ahead_of_the_database() -> None:
    async with Harness(ROUTES) as app:
        app.reads.when("model_costs", [row("gpt-4o", 1)])
        prices = tenant_prices(app.services)
        prices.apply(TENANT, was_set("gpt-4o", 1))
        prices.apply(TENANT, was_set("gpt-4o", 2, since=5, replaces=1))
        (call,) = await priced(app, {})
        assert (call.price_revision, call.price_in_pico) == (2, 2)


async def test_what_comes_while_prices_are_read_is_not_lost() -> None:
    async with Harness(ROUTES) as app:
        prices = tenant_prices(app.services)

        def rows(*_: Any) -> list[dict[str, Any]]:
            prices.apply(TENANT, was_set("gpt-4o"))
            return []

        app.reads.when("model_costs", rows)
        assert [call.cost_source for call in await priced(app, {})] == ["override"]


async def test_after_a_gap_prices_are_read_anew() -> None:
    async with Harness(ROUTES) as app:
        await priced(app, {})
        tenant_prices(app.services).clear()
        app.reads.when("model_costs", [row("gpt-4o")])
        assert [call.cost_source for call in await priced(app, {})] == ["override"]


async def test_without_the_database_calls_are_taken_and_no_price_is_guessed() -> None:
    async with Harness(ROUTES) as app:
        known, app.reads.fail_with = app.reads.fail_with, DatabaseUnavailable("away")
        calls = await priced(app, {}, {"cost": 0.5})
        assert [call.cost_source for call in calls] == ["unpriced", "client"]
        # Nobody waits for it again at once, and what is known goes on.
        app.reads.fail_with = AssertionError("it is not asked")
        assert [call.cost_source for call in await priced(app, {})] == ["unpriced"]
        app.reads.fail_with = known


async def test_a_database_that_goes_away_later_is_not_missed() -> None:
    async with Harness(ROUTES) as app:
        await priced(app, {})
        app.reads.fail_with = DatabaseUnavailable("away")
        assert [call.cost_source for call in await priced(app, {})] == ["default"]


async def test_what_would_cost_more_than_a_call_may_is_left_unpriced() -> None:
    async with Harness(ROUTES) as app:
        (call,) = await priced(app, {"tokens_in": 10**12})
        assert (call.cost_source, call.cost_pico) == ("unpriced", 0)
