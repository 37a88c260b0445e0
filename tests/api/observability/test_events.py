"""Governance events: kept as they came, and listed by what they say of themselves."""

from typing import Any

import pytest

from schemas.observability.governance import GovernanceEventsRecorded
from streams.telemetry import codec
from tests.api.harness import OTHER_TENANT, TENANT
from tests.api.observability.world import World

RECORD = "/api/v1/observe/events/"
CHECK = {
    "event_type": "policy_check",
    "agent_name": "my-agent",
    "action": "allow",
    "timestamp": "2025-01-15T10:30:00Z",
}


async def post(world: World, body: Any, headers: dict[str, str] | None = None) -> Any:
    return await world.app.client.post(RECORD, json=body, headers=headers or world.key)


async def listed(world: World, query: str = "") -> list[Any]:
    return list((await world.read(f"events/?{query}"))["results"])


async def test_an_event_is_listed_with_what_it_says_and_as_it_came(world: World) -> None:
    override = {"operator": "admin@acme.com", "depth": {"n": [1.5, None]}, "id": "theirs"}
    await world.events(CHECK, override)
    await world.fold()
    body = await world.read("events/")
    second, first = body.pop("results")
    assert body == {"count": 2, "next": None, "previous": None, "next_cursor": None}
    assert first.pop("id") != second.pop("id")
    assert first == {
        **CHECK,
        "received_at": "2025-01-15T12:00:00Z",
        "event": CHECK,
    }
    assert second == {
        "event_type": "",
        "agent_name": "",
        "action": "",
        "timestamp": "2025-01-15T12:00:00Z",
        "received_at": "2025-01-15T12:00:00Z",
        "event": override,
    }


async def test_events_lie_on_the_log_under_their_tenant(world: World) -> None:
    await world.events(CHECK)
    (record,) = world.records
    assert record.key == TENANT.encode()
    event = codec().decode(record.value)
    assert isinstance(event, GovernanceEventsRecorded)
    assert [item.event_type for item in event.events] == ["policy_check"]


@pytest.mark.parametrize(
    "odd",
    [
        {"event_type": 7, "agent_name": None, "action": ["x"], "timestamp": 1736942400},
        {"timestamp": "yesterday"},
        {"timestamp": ""},
        {},
    ],
)
async def test_what_cannot_be_lifted_out_stays_in_the_event(
    world: World, odd: dict[str, Any]
) -> None:
    await world.events(odd)
    await world.fold()
    (found,) = await listed(world)
    assert found["event"] == odd
    assert (found["event_type"], found["agent_name"], found["action"]) == ("", "", "")
    assert found["timestamp"] == found["received_at"]


async def test_events_are_filtered_newest_first_and_paged(world: World) -> None:
    await world.events(
        {**CHECK, "n": 1},
        {"event_type": "override", "agent_name": "b", "timestamp": "2025-01-15T11:00:00+00:00"},
        {"event_type": "override", "agent_name": "my-agent"},
    )
    await world.fold()
    selections = [
        ("", ["my-agent", "b", "my-agent"]),
        ("event_type=override", ["my-agent", "b"]),
        ("agent=my-agent", ["my-agent", "my-agent"]),
        ("start=2025-01-15T10:30:00Z&end=2025-01-15T11:00:00Z", ["b", "my-agent"]),
        ("end=2025-01-14", []),
        ("limit=1&offset=1", ["b"]),
        ("event_type=&agent=&start=&end=&limit=1", ["my-agent"]),
    ]
    for query, agents in selections:
        assert (query, [row["agent_name"] for row in await listed(world, query)]) == (query, agents)
    body = await world.read("events/?limit=1")
    assert body["next"].endswith("events/?limit=1&offset=1")


async def test_the_same_idempotency_key_counts_once(world: World) -> None:
    for _ in range(2):
        await world.events(CHECK, CHECK, **{"Idempotency-Key": "k"})
    await world.events(CHECK)
    await world.fold()
    assert (await world.read("events/"))["count"] == 3


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "events"),
        ({"events": {}}, "events"),
        ({"events": [CHECK, 7]}, "events[1]"),
        ({"events": [None]}, "events[0]"),
        ({"events": [{**CHECK, "action": "x" * 501}]}, "events[0].action"),
    ],
)
async def test_bad_input_is_refused_with_the_field_s_name(
    world: World, body: Any, field: str
) -> None:
    answer = await post(world, body)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(f"{field}:")
    assert world.records == []


async def test_an_event_that_no_record_can_hold_is_named(world: World) -> None:
    answer = await post(world, {"events": [CHECK, {"x": "y" * 1_000_000}]})
    assert answer.status_code == 413
    assert answer.json()["error"].startswith("events[1]")
    assert world.records == []


async def test_agents_report_and_readers_read(world: World) -> None:
    answer = await post(world, {"events": []})
    assert (answer.status_code, answer.json()) == (200, {"status": "ok", "count": 0})
    viewer = world.app.key(roles=("viewer",))
    assert (await post(world, {"events": [CHECK]}, viewer)).status_code == 403
    assert (await world.ask("events/", viewer)).status_code == 200
    await world.events(CHECK)
    await world.fold()
    assert (await world.read("events/", world.app.human(OTHER_TENANT)))["count"] == 0
