"""A room's events as server-sent events: what is told, to whom, and from where."""

import json
from typing import Any

import pytest

from schemas.approvals import EVENTS
from schemas.approvals.trust import TrustMoved
from tests.api.approvals.streaming import live_waitroom
from tests.api.fake_log import dispatched
from tests.api.harness import OTHER_TENANT

PATH = "/v1/rooms/payments/events"


def frames(text: str) -> list[tuple[str, str, dict[str, Any]]]:
    """id, event and data of each event in a stream."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        if "event" in fields:
            found.append((fields["id"], fields["event"], json.loads(fields["data"])))
    return found


async def test_a_room_is_followed_and_no_other() -> None:
    async with live_waitroom() as it:
        await it.room()
        await it.room("Refunds")
        agent = await it.agent()
        async with it.stream(PATH, it.person) as reader:
            await reader.until("retry:")
            await it.check_in(agent, room="refunds")
            asked = await it.check_in(agent, context={"amount": 3})
            path = f"/v1/check-ins/{asked['id']}"
            body = {"reason": "half", "modifications": {"amount": 1}}
            await it.person_calls("POST", f"{path}/modify", body)
            last = await it.check_in(agent)
            await it.call("DELETE", f"/v1/check-ins/{last['id']}", agent)
            text = await reader.until("check_in.withdrawn")
        assert [event for _, event, _ in frames(text)] == [
            "check_in.created",
            "check_in.decided",
            "check_in.created",
            "check_in.withdrawn",
        ]
        created, decided = frames(text)[0][2], frames(text)[1][2]
        assert created["check_in_id"] == decided["check_in_id"] == asked["id"]
        assert (created["context"], created["status"]) == ({"amount": 3}, "pending")
        assert (decided["status"], decided["modifications"]) == ("modified", {"amount": 1})
        assert decided["payload_hash"] == asked["payload_hash"]


@pytest.mark.parametrize("by", ["header", "query"])
async def test_a_stream_goes_on_behind_the_last_event_seen(by: str) -> None:
    async with live_waitroom() as it:
        await it.room()
        agent = await it.agent()
        async with it.stream(PATH, agent) as reader:
            await reader.until("retry:")
            first = await it.check_in(agent)
            text = await reader.until(first["id"])
        seen = frames(text)[-1][0]
        missed = [await it.check_in(agent) for _ in range(3)]
        await dispatched(it.hub, it.log, it.hub.partition_of("ten_test"))
        headers = agent | ({"Last-Event-ID": seen} if by == "header" else {})
        query = f"last_event_id={seen}" if by == "query" else ""
        async with it.stream(PATH, headers, query) as reader:
            text = await reader.until(missed[-1]["id"])
        told = [data["check_in_id"] for _, _, data in frames(text)]
        assert told == [check_in["id"] for check_in in missed]


async def test_a_position_that_is_none_is_refused() -> None:
    async with live_waitroom() as it:
        await it.room()
        for position in ("7", "events:x:1", "billing:0:1"):
            answer = await it.person_calls("GET", PATH + f"?last_event_id={position}")
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "VALIDATION_ERROR")


async def test_nobody_follows_a_room_that_is_not_theirs() -> None:
    async with live_waitroom() as it:
        await it.room()
        room = await it.room("Refunds")
        narrow = await it.agent(room_scopes=[room["id"]])
        for headers in (it.harness.human(OTHER_TENANT), narrow):
            answer = await it.call("GET", PATH, headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "NOT_FOUND")


def test_every_event_of_a_check_in_names_its_room() -> None:
    for event in EVENTS:
        tag = event.__struct_config__.tag
        if str(tag).startswith("approvals.check_in_"):
            assert {"room_id", "agent_id"} <= set(event.__struct_fields__)
    assert not str(TrustMoved.__struct_config__.tag).startswith("approvals.check_in_")
