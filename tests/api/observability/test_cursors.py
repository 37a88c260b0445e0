"""Cursors: every list, in each of its orders, can be read from its first row to its last."""

import base64
import json
from typing import Any, get_args

import pytest

from api.observability import llm_calls, pages, scores, sessions, users
from tests.api.observability.world import World

SCORES = "/api/v1/evaluations/scores/"
SORTED: list[tuple[str, Any]] = [
    ("llm-calls/", llm_calls.Sort),
    ("sessions/", sessions.Sort),
    ("users/", users.Sort),
    (SCORES, scores.Sort),
]
LISTS = [(path, f"sort={sort}") for path, sorts in SORTED for sort in get_args(sorts)]
LISTS.append(("events/", ""))


async def much(world: World) -> None:
    """Seven of everything, with ties in each order."""
    for number in range(7):
        run = await world.start(f"a{number % 2}", session_id=f"s/{number}", user_id=f"u{number}")
        calls = [{"cost": number % 2, "model": f"m{number % 3}", "id": f"c{n}"} for n in range(2)]
        await world.calls(run, *calls)
        value = None if number % 3 == 2 else number % 2 - 0.1
        score = {"name": f"n{number % 2}", "numeric_value": value}
        await world.report(f"{run}/scores/", {"scores": [score]})
        if number % 3 == 0:
            world.clock.advance(1e-6)
    await world.events(*({"event_type": "x", "n": number} for number in range(7)))
    await world.fold()


async def test_every_list_is_the_same_by_cursors_by_links_and_at_once(world: World) -> None:
    await much(world)
    for path, query in LISTS:
        whole = (await world.read(f"{path}?{query}&limit=100"))["results"]
        assert len(whole) >= 7
        assert await by_cursors(world, path, query, len(whole)) == whole, (path, query)
        assert await by_links(world, path, query) == whole, (path, query)


@pytest.mark.parametrize("few", [0, 100])
async def test_a_search_is_the_same_whether_few_or_many_are_found(
    world: World, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    await much(world)
    monkeypatch.setattr(llm_calls, "FEW_MAX", few)
    everything = await world.read("llm-calls/?limit=100")
    found = await world.read("llm-calls/?search=m&limit=100")
    assert {**found, "next": None} == everything
    assert await by_cursors(world, "llm-calls/", "search=m", 14) == everything["results"]
    assert await by_links(world, "llm-calls/", "search=m") == everything["results"]


async def by_cursors(world: World, path: str, query: str, count: int) -> list[Any]:
    found, cursor = [], ""
    while cursor is not None:
        body = await world.read(f"{path}?{query}&limit=3&cursor={cursor}")
        found += body["results"]
        cursor = body["next_cursor"]
        assert body["count"] == count
    return found


async def by_links(world: World, path: str, query: str) -> list[Any]:
    first = await world.read(f"{path}?{query}&limit=3")
    body = await world.read(f"{path}?{query}&limit=3&cursor={first['next_cursor']}")
    found = first["results"] + body["results"]
    while body["next"] is not None:
        answer = await world.app.client.get(body["next"], headers=world.human)
        body = answer.json()
        found += body["results"]
    return found


async def test_what_arrives_meanwhile_shifts_nothing(world: World) -> None:
    await much(world)
    first = await world.read("sessions/?limit=3")
    world.clock.advance(60)
    await world.start(session_id="newest")
    await world.fold()
    second = await world.read(f"sessions/?limit=3&cursor={first['next_cursor']}")
    seen = [row["session_id"] for body in (first, second) for row in body["results"]]
    assert len(set(seen)) == 6
    assert "newest" not in seen


def cursor_of(*values: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode()


async def test_a_cursor_of_another_list_or_order_is_refused(world: World) -> None:
    await much(world)
    given = (await world.read("sessions/?limit=3"))["next_cursor"]
    refused = [
        f"sessions/?sort=run_count&cursor={given}",
        f"users/?cursor={given}",
        f"llm-calls/?cursor={given}",
        f"sessions/?cursor={cursor_of('session_id -last_activity', 'x', 'y')}",
        f"sessions/?cursor={cursor_of('session_id -last_activity', 2**63, 'y')}",
        f"sessions/?cursor={cursor_of('session_id -last_activity', 1)}",
        f"sessions/?cursor={cursor_of('session_id -last_activity', 1, chr(0))}",
        f"sessions/?cursor={cursor_of()}",
        "sessions/?cursor=e30",
        "sessions/?cursor=%25",
    ]
    for path in refused:
        answer = await world.ask(path)
        assert (path, answer.status_code) == (path, 400)
        assert answer.json()["error"].startswith("cursor")


async def test_the_link_goes_on_by_cursor_where_an_offset_would_reach_too_deep(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "MAX_OFFSET", 5)
    await much(world)
    first = await world.read("users/?limit=3&offset=3&sort=first_seen")
    assert "cursor=" in first["next"]
    answer = await world.app.client.get(first["next"], headers=world.human)
    assert [row["user_id"] for row in answer.json()["results"]] == ["u6"]
    assert answer.json()["next"] is None
