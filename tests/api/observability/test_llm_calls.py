"""Listing LLM calls: every filter, sort, page and sum, as the document has them."""

from typing import Any
from urllib.parse import urlencode

from tests.api.harness import OTHER_TENANT
from tests.api.observability.world import World

LIST = "llm-calls/"


async def three_calls(world: World) -> tuple[str, str]:
    """Calls a, b, c a minute apart: a and b of support-bot's run, c of another agent's."""
    first = await world.start("support-bot", "handle-ticket")
    second = await world.start("research-bot")
    await world.calls(
        first,
        {
            "id": "a",
            "cost": 0.001175,
            "task": "answer_question",
            "prompt_preview": "How do I reset my PASSWORD?",
            "response_preview": "Click Forgot Password",
        },
    )
    world.clock.advance(60)
    await world.calls(first, {"id": "b", "model": "claude", "cost": 0.1, "tokens_in": 1000})
    world.clock.advance(60)
    await world.calls(second, {"id": "c", "cost": 0.2, "tokens_out": 500, "task": "50%_off"})
    await world.fold()
    return first, second


async def ids(world: World, **query: Any) -> list[str]:
    body = await world.read(f"{LIST}?{urlencode(query, doseq=True)}")
    return [row["id"] for row in body["results"]]


async def test_a_call_has_all_its_fields_and_its_runs_names(world: World) -> None:
    run_id, _ = await three_calls(world)
    body = await world.read(f"{LIST}?search=forgot")
    assert body == {
        "results": [
            {
                "id": "a",
                "run_id": run_id,
                "model": "gpt-4o",
                "task": "answer_question",
                "agent_name": "support-bot",
                "workflow_name": "handle-ticket",
                "tokens_in": 100,
                "tokens_out": 20,
                "total_tokens": 120,
                "cost": 0.001175,
                "created_at": "2025-01-15T12:00:00Z",
                "prompt_preview": "How do I reset my PASSWORD?",
                "response_preview": "Click Forgot Password",
                "prompt_hash": "",
            }
        ],
        "count": 1,
        "next": None,
        "previous": None,
        "next_cursor": None,
        "aggregates": {
            "total_cost": 0.001175,
            "total_tokens": 120,
            "total_calls": 1,
            "models_used": ["gpt-4o"],
        },
    }


SELECTIONS: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ["c", "b", "a"]),
    ({"model": "claude"}, ["b"]),
    ({"model": ["claude", "gpt-4o"]}, ["c", "b", "a"]),
    ({"model": "gpt"}, []),
    ({"agent": "support-bot"}, ["b", "a"]),
    ({"agent": "nobody"}, []),
    ({"min_cost": "0.1"}, ["c", "b"]),
    ({"max_cost": "0.1"}, ["b", "a"]),
    ({"min_tokens": "601"}, ["b"]),
    ({"max_tokens": "120"}, ["a"]),
    ({"start": "2025-01-15T12:01:00Z"}, ["c", "b"]),
    ({"end": "2025-01-15T12:01:00Z"}, ["b", "a"]),
    ({"start": "2025-01-15T13:01:00+01:00"}, ["c", "b"]),
    ({"start": "2025-01-15", "end": "2025-01-15"}, ["c", "b", "a"]),
    ({"end": "2025-01-14"}, []),
    ({"search": "CLAUDE"}, ["b"]),
    ({"search": "reset my password"}, ["a"]),
    ({"search": "assw"}, ["a"]),
    ({"search": "50%_"}, ["c"]),
    ({"search": "5_%"}, []),
    ({"search": "\\"}, []),
    ({"sort": "created_at"}, ["a", "b", "c"]),
    ({"sort": "cost"}, ["a", "b", "c"]),
    ({"sort": "-cost"}, ["c", "b", "a"]),
    ({"sort": "total_tokens"}, ["a", "c", "b"]),
    ({"sort": "-total_tokens"}, ["b", "c", "a"]),
    ({"sort": "model"}, ["b", "c", "a"]),
    ({"sort": "-model"}, ["c", "a", "b"]),
    ({"limit": "1", "offset": "1"}, ["b"]),
    ({"search": "", "agent": "", "model": "", "start": ""}, ["c", "b", "a"]),
    ({"model": "gpt-4o", "agent": "support-bot", "max_cost": "1"}, ["a"]),
]


async def test_filters_sorts_and_pages(world: World) -> None:
    await three_calls(world)
    for query, found in SELECTIONS:
        assert (query, await ids(world, **query)) == (query, found)


async def test_aggregates_are_of_the_whole_selection_not_of_the_page(world: World) -> None:
    await three_calls(world)
    body = await world.read(f"{LIST}?limit=1")
    assert len(body["results"]) == 1
    assert body["count"] == 3
    assert body["aggregates"] == {
        "total_cost": 0.301175,
        "total_tokens": 120 + 1020 + 600,
        "total_calls": 3,
        "models_used": ["claude", "gpt-4o"],
    }


async def test_pages_link_to_each_other(world: World) -> None:
    await three_calls(world)
    url: str | None = f"http://weir.test/api/v1/observability/{LIST}?limit=1&model=gpt-4o"
    seen = []
    while url:
        body = (await world.app.client.get(url, headers=world.human)).json()
        seen += [row["id"] for row in body["results"]]
        last, url = url, body["next"]
    assert seen == ["c", "a"]
    before = (await world.app.client.get(last, headers=world.human)).json()["previous"]
    body = (await world.app.client.get(before, headers=world.human)).json()
    assert [row["id"] for row in body["results"]] == ["c"]
    assert body["previous"] is None


async def test_the_defaults_are_25_newest_first_and_at_most_100(world: World) -> None:
    run_id = await world.start()
    await world.calls(run_id, *({"id": f"{n:03}"} for n in range(120)))
    await world.fold()
    body = await world.read(LIST)
    assert [row["id"] for row in body["results"]] == [f"{n:03}" for n in range(119, 94, -1)]
    assert len((await world.read(f"{LIST}?limit=1000"))["results"]) == 100


REFUSED = [
    ("limit=0", "limit"),
    ("limit=many", "limit"),
    ("offset=-1", "offset"),
    ("sort=size", "sort"),
    ("min_cost=cheap", "min_cost"),
    ("min_cost=nan", "min_cost"),
    ("max_tokens=1.5", "max_tokens"),
    ("start=yesterday", "start"),
    ("end=2025-13-01", "end"),
]


async def test_bad_parameters_are_refused_with_their_name(world: World) -> None:
    for query, field in REFUSED:
        answer = await world.ask(f"{LIST}?{query}")
        assert (query, answer.status_code) == (query, 400)
        assert answer.json()["error"].startswith(field)


async def test_a_call_in_full(world: World) -> None:
    run_id = await world.start("support-bot", "handle-ticket")
    preview = "long " * 200
    call = {"id": "c/1 ü", "prompt_preview": preview, "metadata": {"k": [1, None]}, "cost": 1e-7}
    await world.calls(run_id, call)
    await world.fold()
    (listed,) = (await world.read(LIST))["results"]
    assert listed["prompt_preview"] == preview[:500]
    found = await world.read(f"{LIST}c%2F1%20%C3%BC/")
    assert found["prompt_preview"] == preview
    assert found["metadata"] == {"k": [1, None]}
    assert found["agent_name"] == "support-bot"
    assert found["cost"] == 1e-7


async def test_the_models_used_are_listed_once_in_order(world: World) -> None:
    await three_calls(world)
    assert await world.read(f"{LIST}models/") == {"models": ["claude", "gpt-4o"]}


async def test_nothing_of_another_tenant_is_ever_seen(world: World) -> None:
    await three_calls(world)
    stranger = world.app.human(OTHER_TENANT)
    body = await world.read(LIST, stranger)
    assert (body["results"], body["count"]) == ([], 0)
    assert body["aggregates"] == {
        "total_cost": 0.0,
        "total_tokens": 0,
        "total_calls": 0,
        "models_used": [],
    }
    assert await world.read(f"{LIST}models/", stranger) == {"models": []}
    assert (await world.ask(f"{LIST}a/", stranger)).status_code == 404
    assert (await world.ask(f"{LIST}nothing/")).status_code == 404


async def test_reading_needs_a_person_or_an_api_key(world: World) -> None:
    assert (await world.app.client.get("/api/v1/observability/llm-calls/")).status_code == 401
    assert (await world.ask(LIST, world.app.agent())).status_code == 403
    assert (await world.ask(LIST, world.key)).status_code == 200


async def test_model_analytics_add_up_exactly(world: World) -> None:
    run_id, other = await world.start("a"), await world.start("b")
    await world.calls(run_id, *({"cost": 0.1} for _ in range(30)))
    world.clock.advance(3 * 86_400)
    await world.calls(run_id, {"model": "claude", "cost": 1.0})
    await world.calls(other, {"model": "free", "cost": 0})
    await world.fold()
    assert await world.read("analytics/models/?agent=a") == {
        "period": "7d",
        "aggregates": {"total_cost": 4.0, "total_tokens": 31 * 120, "total_calls": 31},
        "model_totals": [
            {
                "model": "gpt-4o",
                "total_cost": 3.0,
                "total_tokens": 3600,
                "total_calls": 30,
                "percentage": 75.0,
            },
            {
                "model": "claude",
                "total_cost": 1.0,
                "total_tokens": 120,
                "total_calls": 1,
                "percentage": 25.0,
            },
        ],
        "time_series": [
            {
                "date": "2025-01-15",
                "model": "gpt-4o",
                "cost": 3.0,
                "tokens": 3600,
                "calls": 30,
            },
            {"date": "2025-01-18", "model": "claude", "cost": 1.0, "tokens": 120, "calls": 1},
        ],
    }
    day = await world.read("analytics/models/?period=1d")
    assert [row["model"] for row in day["model_totals"]] == ["claude", "free"]
    assert (await world.read("analytics/models/?period=30d"))["aggregates"]["total_calls"] == 32
    refused = await world.ask("analytics/models/?period=2w")
    assert refused.status_code == 400
    assert refused.json()["error"].startswith("period")
