"""A key that is scoped to a room sees that room, and of any other room nothing at all."""

from typing import Any

import pytest

from api.approvals import ROUTES
from api.routing import Route, Who
from tests.api.approvals.conftest import Waitroom

BODIES: dict[str, Any] = {
    "/v1/rooms/{room}/check-in": {"action": "x"},
    "/v1/check-ins/{id}/messages": {"body": "x"},
    "/v1/check-ins/{id}/outcome": {"status": "succeeded"},
    "/v1/rooms/{room}/watch": {"event_types": ["signal.broadcast"]},
}
# What an agent's key opens about a room, or about a check-in or a task in it.
ABOUT_A_ROOM = [route for route in ROUTES if Who.AGENT in route.who and "{" in route.path]


def named(route: Route) -> str:
    return f"{route.method} {route.path}"


def test_there_is_something_to_try() -> None:
    assert len(ABOUT_A_ROOM) >= 13


@pytest.mark.parametrize("route", ABOUT_A_ROOM, ids=named)
async def test_a_scoped_key_finds_nothing_in_another_room(waitroom: Waitroom, route: Route) -> None:
    own, other = await waitroom.room("Own"), await waitroom.room("Other")
    wide = await waitroom.agent("Wide")
    narrow = await waitroom.agent("Narrow", room_scopes=[own["id"]])
    asked = await waitroom.check_in(wide, "other")
    task = await waitroom.task("other")
    watch = BODIES["/v1/rooms/{room}/watch"]
    watcher = (await waitroom.call("POST", "/v1/rooms/other/watch", wide, watch)).json()["data"]
    body = BODIES.get(route.path, {}) if route.body is not None else None
    paths = [route.path.replace("{room}", room) for room in (other["id"], other["slug"])]
    if "{id}" in route.path:
        ids = [watcher["id"]] if "watchers" in route.path else [asked["id"], task["id"]]
        paths = [route.path.replace("{id}", id).replace("{event}", "evt_1") for id in ids]
    for path in paths:
        answer = await waitroom.call(route.method, path, narrow, body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "NOT_FOUND"), path


async def test_a_scoped_key_works_in_its_own_room(waitroom: Waitroom) -> None:
    own = await waitroom.room("Own")
    await waitroom.room("Other")
    narrow = await waitroom.agent("Narrow", room_scopes=[own["id"]])
    rooms = (await waitroom.call("GET", "/v1/rooms", narrow)).json()["data"]
    assert [room["id"] for room in rooms] == [own["id"]]
    task = await waitroom.task("own")
    assert (await waitroom.acts(narrow, "claim", task["id"])).status_code == 200
    path = f"/v1/check-ins/{task['id']}/messages"
    assert (await waitroom.call("POST", path, narrow, {"body": "done"})).status_code == 201
    for name in (own["slug"], own["id"]):
        listed = (await waitroom.call("GET", f"/v1/rooms/{name}/tasks", narrow)).json()["data"]
        assert [item["id"] for item in listed] == [task["id"]]
    claimed = (await waitroom.call("GET", "/v1/check-ins/claimed", narrow)).json()["data"]
    assert [item["id"] for item in claimed] == [task["id"]]
