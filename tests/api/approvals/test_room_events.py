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


async def test_a_task_is_followed_from_its_post_to_its_end() -> None:
    async with live_waitroom() as it:
        await it.room()
        robby, marvin = await it.agent(), await it.agent("Marvin")
        async with it.stream(PATH, robby) as reader:
            await reader.until("retry:")
            task = await it.task(context={"month": 3})
            path = f"/v1/check-ins/{task['id']}"
            claimed = (await it.acts(robby, "claim", task["id"])).json()["data"]
            await it.acts(robby, "release", task["id"])
            await it.acts(robby, "claim", task["id"])
            await it.acts(robby, "help", task["id"], {"body": "which day?"})
            await it.acts(marvin, "join", task["id"])
            body = {"body": "done", "message_type": "result", "metadata": {"rows": 3}}
            written = (await it.call("POST", f"{path}/messages", robby, body)).json()["data"]
            body = {"reason": "almost", "modifications": {"month": 4}}
            await it.person_calls("POST", f"{path}/modify", body)
            text = await reader.until("check_in.decided")
        told = frames(text)
        assert [event for _, event, _ in told] == [
            "check_in.created",
            "check_in.claimed",
            "check_in.released",
            "check_in.claimed",
            "check_in.help_requested",
            "check_in.message",
            "check_in.decided",
        ]
        assert {data["check_in_id"] for _, _, data in told} == {task["id"]}
        assert {data["room_id"] for _, _, data in told} == {task["room_id"]}
        created, taken, freed, _, help, message, decided = (data for _, _, data in told)
        assert (created["kind"], created["agent_id"]) == ("task", None)
        assert created["context"] == {"month": 3}
        assert taken["agent_id"] == claimed["agent_id"]
        assert taken["claim_expires_at"] == claimed["claim_expires_at"]
        assert (freed["cause"], freed["status"]) == ("agent", "pending")
        assert help["body"] == "which day?"
        same = ("number", "author_type", "author_id", "body", "message_type", "metadata")
        assert {name: message[name] for name in same} == {name: written[name] for name in same}
        assert message["message_id"] == written["id"]
        assert (decided["status"], decided["modifications"]) == ("modified", {"month": 4})


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
        if str(tag).startswith(("approvals.check_in_", "approvals.task_", "approvals.message_")):
            assert "room_id" in event.__struct_fields__
    assert not str(TrustMoved.__struct_config__.tag).startswith("approvals.check_in_")
