"""Threads over HTTP: written by who takes part, read in order."""

from typing import Any

import pytest

from commands.approvals.thread import MESSAGES_MAX
from tests.api.approvals.client import error
from tests.api.approvals.conftest import Waitroom


async def write(waitroom: Waitroom, id: str, who: dict[str, str], body: str, **more: Any) -> Any:
    return await waitroom.call("POST", f"/v1/check-ins/{id}/messages", who, {"body": body, **more})


async def test_people_and_the_agent_that_asked_talk_about_a_check_in(waitroom: Waitroom) -> None:
    await waitroom.room()
    agent, other = await waitroom.agent(), await waitroom.agent("Marvin")
    id = (await waitroom.check_in(agent))["id"]
    first = await write(
        waitroom,
        id,
        agent,
        "Which account?",
        message_type="question",
        metadata={"b": 1, "a": 2},
        attachments=[{"name": "a.csv", "url": "https://files.example/a.csv"}],
    )
    assert first.status_code == 201
    message = first.json()["data"]
    assert message["id"].startswith("msg_")
    assert (message["number"], message["check_in_id"]) == (1, id)
    assert (message["author_type"], message["author_name"]) == ("agent", "Robby")
    assert (message["message_type"], message["metadata"]) == ("question", {"a": 2, "b": 1})
    second = (await write(waitroom, id, waitroom.person, "The new one")).json()["data"]
    assert (second["number"], second["message_type"], second["author_type"]) == (
        2,
        "comment",
        "user",
    )
    assert (second["metadata"], second["attachments"]) == ({}, [])
    assert error(await write(waitroom, id, other, "Me too")) == (403, "FORBIDDEN")
    for reader in (agent, other, waitroom.person):
        thread = (await waitroom.call("GET", f"/v1/check-ins/{id}/messages", reader)).json()
        assert thread == {"data": [message, second], "cursor": None, "has_more": False}
        whole = (await waitroom.call("GET", f"/v1/check-ins/{id}", reader)).json()["data"]
        assert whole["messages"] == [message, second]
        assert [(each["name"], each["role"]) for each in whole["participants"]] == [
            ("Robby", "requester"),
            ("User 1", "author"),
        ]


async def test_a_thread_is_read_in_pages_oldest_first(waitroom: Waitroom) -> None:
    await waitroom.room()
    id = (await waitroom.task())["id"]
    written = [f"message {number}" for number in range(5)]
    for body in written:
        await write(waitroom, id, waitroom.person, body)
    seen: list[str] = []
    cursor, more = "", True
    while more:
        path = f"/v1/check-ins/{id}/messages?limit=2&cursor={cursor}"
        page = (await waitroom.person_calls("GET", path)).json()
        seen += [message["body"] for message in page["data"]]
        cursor, more = page["cursor"], page["has_more"]
        if len(seen) == 2:
            # What is written meanwhile comes at the end and moves nothing.
            await write(waitroom, id, waitroom.person, "late")
    assert seen == [*written, "late"]
    for wrong in ("limit=0", "limit=101", "cursor=nonsense"):
        answer = await waitroom.person_calls("GET", f"/v1/check-ins/{id}/messages?{wrong}")
        assert error(answer) == (400, "VALIDATION_ERROR")


async def test_the_same_idempotency_key_writes_once(waitroom: Waitroom) -> None:
    await waitroom.room()
    id = (await waitroom.task())["id"]
    who = waitroom.person | {"Idempotency-Key": "once"}
    answers = [await write(waitroom, id, who, "hello") for _ in range(2)]
    assert answers[0].json() == answers[1].json()
    thread = (await waitroom.person_calls("GET", f"/v1/check-ins/{id}/messages")).json()
    assert len(thread["data"]) == 1


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"body": ""},
        {"body": "x" * 10_001},
        {"body": "x", "message_type": "shout"},
        {"body": "x", "metadata": []},
        {"body": "x", "metadata": {"x": "y" * 10_240}},
        {"body": "x", "attachments": {}},
        {"body": "x", "attachments": ["a"]},
        {"body": "x", "attachments": [{}] * 21},
        {"body": "x", "attachments": [{"x": "y" * 10_240}]},
    ],
)
async def test_a_message_out_of_limits_is_refused(waitroom: Waitroom, body: Any) -> None:
    await waitroom.room()
    id = (await waitroom.task())["id"]
    answer = await waitroom.person_calls("POST", f"/v1/check-ins/{id}/messages", body)
    assert error(answer) == (400, "VALIDATION_ERROR")


async def test_the_largest_message_is_taken(waitroom: Waitroom) -> None:
    await waitroom.room()
    id = (await waitroom.task())["id"]
    largest = await write(waitroom, id, waitroom.person, "\U0001f600" * 10_000)
    assert largest.status_code == 201


async def test_a_thread_has_an_end(waitroom: Waitroom) -> None:
    await waitroom.room()
    id = (await waitroom.task())["id"]
    for number in range(MESSAGES_MAX):
        assert (await write(waitroom, id, waitroom.person, f"{number}")).status_code == 201
    assert error(await write(waitroom, id, waitroom.person, "one more")) == (409, "CONFLICT")
    whole = (await waitroom.person_calls("GET", f"/v1/check-ins/{id}")).json()["data"]
    assert len(whole["messages"]) == MESSAGES_MAX


async def test_what_is_written_is_in_no_audit_record(waitroom: Waitroom) -> None:
    await waitroom.room()
    id = (await waitroom.task())["id"]
    await write(waitroom, id, waitroom.person, "between us")
    audit = waitroom.harness.bus._workspace.effects.audit
    assert audit[-1].action == "approvals.post_message"
    assert "between us" not in repr(audit)
