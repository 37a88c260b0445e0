"""Sessions and users: runs grouped by what they name, exact whatever the order of the reports."""

from typing import Any
from urllib.parse import quote, urlencode

import pytest

from tests.api.harness import OTHER_TENANT
from tests.api.observability.world import World


async def three_sessions(world: World) -> dict[str, str]:
    """Runs a minute apart: a and b of s1 (of user u1 and u2), c of S_2 (u1), d of s%3 (u3).

    a took 5.25 s and failed, b goes on, c took a second.
    """
    runs = {
        "a": await world.start("support-bot", "handle-ticket", session_id="s1", user_id="u1"),
    }
    await world.calls(runs["a"], {"cost": 0.1}, {"cost": 0.2, "model": "claude"})
    world.clock.advance(5.25)
    await world.report(f"{runs['a']}/complete/", {"status": "error"})
    world.clock.advance(54.75)
    runs["b"] = await world.start("research-bot", session_id="s1", user_id="u2", trace_id="t-1")
    await world.calls(runs["b"], {"cost": 1e-12})
    world.clock.advance(60)
    runs["c"] = await world.start("support-bot", session_id="S_2", user_id="u1")
    world.clock.advance(1)
    await world.report(f"{runs['c']}/complete/", {})
    world.clock.advance(59)
    runs["d"] = await world.start("writer", session_id="s%3", user_id="u3")
    await world.calls(runs["d"], {"cost": 5})
    await world.calls(await world.start("nobody's"), {"cost": 100})
    await world.fold()
    return runs


async def test_a_session_adds_up_its_runs_to_the_last_digit(world: World) -> None:
    await three_sessions(world)
    assert await world.read("sessions/?search=s1") == {
        "results": [
            {
                "session_id": "s1",
                "run_count": 2,
                "first_run": "2025-01-15T12:00:00Z",
                "last_activity": "2025-01-15T12:01:00Z",
                "total_duration": 5.25,
                "total_cost": 0.300000000001,
                "total_tokens": 360,
                "agents": ["research-bot", "support-bot"],
            }
        ],
        "count": 1,
        "next": None,
        "previous": None,
        "next_cursor": None,
    }


async def test_a_session_in_full(world: World) -> None:
    runs = await three_sessions(world)
    assert await world.read("sessions/s1/") == {
        "session_id": "s1",
        "aggregates": {
            "run_count": 2,
            "total_duration": 5.25,
            "total_cost": 0.300000000001,
            "total_tokens": 360,
            "agents": ["research-bot", "support-bot"],
        },
        "runs": [
            {
                "id": runs["a"],
                "agent_name": "support-bot",
                "workflow_name": "handle-ticket",
                "started_at": "2025-01-15T12:00:00Z",
                "completed_at": "2025-01-15T12:00:05.250000Z",
                "duration": 5.25,
                "status": "error",
                "cost": 0.3,
                "tokens": 240,
                "trace_id": "",
            },
            {
                "id": runs["b"],
                "agent_name": "research-bot",
                "workflow_name": "default",
                "started_at": "2025-01-15T12:01:00Z",
                "completed_at": None,
                "duration": None,
                "status": "running",
                "cost": 1e-12,
                "tokens": 120,
                "trace_id": "t-1",
            },
        ],
    }
    page = await world.read("sessions/s1/?limit=1&offset=1")
    assert [run["id"] for run in page["runs"]] == [runs["b"]]
    assert page["aggregates"]["run_count"] == 2
    behind = await world.read("sessions/s1/?offset=2")
    assert (behind["runs"], behind["aggregates"]) == ([], page["aggregates"])


async def test_runs_that_began_at_once_are_each_on_one_page(world: World) -> None:
    ids = [await world.start(session_id="s", user_id="u") for _ in range(3)]
    await world.fold()
    pages = [await world.read(f"sessions/s/?limit=1&offset={place}") for place in range(3)]
    assert [run["id"] for page in pages for run in page["runs"]] == sorted(ids)
    newest_first = await world.read("users/u/?limit=2")
    assert [run["id"] for run in newest_first["runs"]] == sorted(ids)[:0:-1]


async def test_a_user_in_full(world: World) -> None:
    runs = await three_sessions(world)
    found = await world.read("users/u1/")
    assert [run["id"] for run in found.pop("runs")] == [runs["c"], runs["a"]]
    assert found == {
        "user_id": "u1",
        "aggregates": {
            "run_count": 2,
            "total_duration": 6.25,
            "total_cost": 0.3,
            "total_tokens": 240,
            "agents": ["support-bot"],
            "first_seen": "2025-01-15T12:00:00Z",
            "last_seen": "2025-01-15T12:02:01Z",
        },
        "cost_by_model": [
            {"model": "claude", "total_cost": 0.2, "total_tokens": 120, "call_count": 1},
            {"model": "gpt-4o", "total_cost": 0.1, "total_tokens": 120, "call_count": 1},
        ],
    }
    assert len((await world.read("users/u1/?limit=1"))["runs"]) == 1


async def test_a_user_of_the_list(world: World) -> None:
    await three_sessions(world)
    body = await world.read("users/?agent=research-bot")
    assert body["results"] == [
        {
            "user_id": "u2",
            "run_count": 1,
            "first_seen": "2025-01-15T12:01:00Z",
            "last_seen": "2025-01-15T12:01:00Z",
            "total_duration": 0.0,
            "total_cost": 1e-12,
            "total_tokens": 120,
            "agents": ["research-bot"],
        }
    ]


SELECTIONS: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ["s%3", "S_2", "s1"]),
    ({"search": "s_"}, ["S_2"]),
    ({"search": "%"}, ["s%3"]),
    ({"search": "S"}, ["s%3", "S_2", "s1"]),
    ({"search": "x"}, []),
    ({"agent": "support-bot"}, ["S_2", "s1"]),
    ({"agent": "nobody's"}, []),
    ({"start": "2025-01-15T12:02:00Z"}, ["s%3", "S_2"]),
    ({"end": "2025-01-15T12:02:00Z"}, ["S_2", "s1"]),
    ({"end": "2025-01-15T12:01:59Z"}, ["s1"]),
    ({"start": "2025-01-15T12:00:30Z", "agent": "support-bot"}, ["S_2"]),
    ({"start": "2025-01-15", "end": "2025-01-15"}, ["s%3", "S_2", "s1"]),
    ({"end": "2025-01-14"}, []),
    ({"sort": "last_activity"}, ["s1", "S_2", "s%3"]),
    ({"sort": "first_run"}, ["s1", "S_2", "s%3"]),
    ({"sort": "-first_run"}, ["s%3", "S_2", "s1"]),
    ({"sort": "run_count"}, ["S_2", "s%3", "s1"]),
    ({"sort": "-run_count"}, ["s1", "S_2", "s%3"]),
    ({"limit": "1", "offset": "1"}, ["S_2"]),
    ({"search": "", "agent": "", "start": "", "end": "", "cursor": ""}, ["s%3", "S_2", "s1"]),
]


async def test_filters_sorts_and_pages(world: World) -> None:
    await three_sessions(world)
    for query, found in SELECTIONS:
        body = await world.read(f"sessions/?{urlencode(query)}")
        assert (query, [row["session_id"] for row in body["results"]]) == (query, found)
    for sort, users in (("first_seen", ["u1", "u2", "u3"]), ("-last_seen", ["u3", "u1", "u2"])):
        body = await world.read(f"users/?sort={sort}")
        assert [row["user_id"] for row in body["results"]] == users


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("offset=-1", "offset"),
        ("offset=1000001", "offset"),
        ("sort=session_id", "sort"),
        ("start=yesterday", "start"),
        ("cursor=nonsense", "cursor"),
    ],
)
async def test_bad_parameters_are_refused_with_their_name(
    world: World, query: str, field: str
) -> None:
    for path in ("sessions/", "users/"):
        answer = await world.ask(f"{path}?{query}")
        assert answer.status_code == 400
        assert answer.json()["error"].startswith(field)


async def test_an_offset_beyond_reach_is_told_of_the_cursor(world: World) -> None:
    answer = await world.ask("sessions/?offset=1000001")
    assert "next_cursor" in answer.json()["error"]


ODD = ["a/b", "50%", "%2F", "a b+c", "x\n\ty", "größe ✓", "'; DROP TABLE x --", "{id:String}", "\\"]


async def test_ids_may_hold_anything(world: World) -> None:
    for odd in ODD:
        await world.start(session_id=odd, user_id=odd)
    await world.fold()
    for odd in ODD:
        path = quote(odd, safe="")
        assert (await world.read(f"sessions/{path}/"))["session_id"] == odd
        assert (await world.read(f"users/{path}/"))["user_id"] == odd
        (found,) = (await world.read(f"users/?search={path}&sort=run_count"))["results"][:1]
        assert odd.lower() in found["user_id"].lower()
    assert (await world.read("sessions/?limit=1000"))["count"] == len(ODD)


async def test_what_nobody_named_is_not_found(world: World) -> None:
    await three_sessions(world)
    stranger = world.app.human(OTHER_TENANT)
    for path in ("sessions/", "users/"):
        assert (await world.ask(f"{path}nothing/")).status_code == 404
        body = await world.read(path, stranger)
        assert (body["results"], body["count"]) == ([], 0)
    assert (await world.ask("sessions/s1/", stranger)).status_code == 404
    assert (await world.ask("users/u1/", stranger)).status_code == 404


async def test_a_run_that_ended_before_it_began_lasted_no_time(world: World) -> None:
    """The clocks of two API processes differ."""
    run_id = await world.start(session_id="s")
    world.clock.advance(-3)
    await world.report(f"{run_id}/complete/", {})
    await world.fold()
    found = await world.read("sessions/s/")
    assert found["aggregates"]["total_duration"] == 0
    assert found["runs"][0]["duration"] == 0


async def test_a_page_has_at_most_100(world: World) -> None:
    for number in range(105):
        await world.start(session_id=f"s{number:03}", user_id="u")
    await world.fold()
    assert len((await world.read("sessions/"))["results"]) == 25
    body = await world.read("sessions/?limit=1000")
    assert (len(body["results"]), body["count"]) == (100, 105)
    assert body["next"].endswith("limit=100&offset=100")
