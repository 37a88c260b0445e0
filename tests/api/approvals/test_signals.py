"""Signals: what people tell a room, who may, and that whoever follows the room hears it."""

from typing import Any

import pytest

from schemas.approvals.signal import SignalBroadcast
from tests.api.approvals.conftest import Waitroom
from tests.api.approvals.streaming import live_waitroom
from tests.api.approvals.test_room_events import PATH, frames

SIGNAL = "/v1/rooms/payments/signal"


async def test_a_signal_is_broadcast_and_answered(waitroom: Waitroom) -> None:
    room = await waitroom.room()
    body = {"type": "deploy", "payload": {"env": "prod", "at": 1.50}}
    answer = await waitroom.person_calls("POST", SIGNAL, body)
    assert answer.status_code == 201
    sent = answer.json()["data"]
    assert sent["id"].startswith("sig_")
    assert (sent["room_id"], sent["type"]) == (room["id"], "deploy")
    assert sent["payload"] == {"env": "prod", "at": 1.5}
    (recorded,) = waitroom.harness.bus.emitted(SignalBroadcast)
    assert recorded.payload == '{"at":1.5,"env":"prod"}'


async def test_a_payload_may_be_left_out(waitroom: Waitroom) -> None:
    await waitroom.room()
    answer = await waitroom.person_calls("POST", SIGNAL, {"type": "ping"})
    assert answer.json()["data"]["payload"] == {}


async def test_the_same_key_is_one_signal(waitroom: Waitroom) -> None:
    await waitroom.room()
    headers = waitroom.person | {"Idempotency-Key": "once"}
    answers = [await waitroom.call("POST", SIGNAL, headers, {"type": "x"}) for _ in range(2)]
    assert answers[0].json() == answers[1].json()
    assert len(waitroom.harness.bus.emitted(SignalBroadcast)) == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "type"),
        ({"type": ""}, "type"),
        ({"type": "x" * 201}, "type"),
        ({"type": "x", "payload": []}, "payload"),
        ({"type": "x", "payload": {"a": "x" * 10_240}}, "payload"),
    ],
)
async def test_what_is_not_a_signal_is_refused(waitroom: Waitroom, body: Any, field: str) -> None:
    await waitroom.room()
    answer = await waitroom.person_calls("POST", SIGNAL, body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "VALIDATION_ERROR")
    assert field in str(error)


async def test_agents_and_viewers_do_not_signal(waitroom: Waitroom) -> None:
    await waitroom.room()
    viewer = waitroom.harness.human(roles=["viewer"])
    for headers in (await waitroom.agent(), viewer):
        answer = await waitroom.call("POST", SIGNAL, headers, {"type": "x"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "FORBIDDEN")


async def test_whoever_follows_the_room_hears_it() -> None:
    async with live_waitroom() as it:
        await it.room()
        await it.room("Refunds")
        agent = await it.agent()
        async with it.stream(PATH, agent) as reader:
            await reader.until("retry:")
            other = {"type": "elsewhere"}
            await it.person_calls("POST", "/v1/rooms/refunds/signal", other)
            body = {"type": "deploy", "payload": {"env": "prod"}}
            sent = (await it.person_calls("POST", SIGNAL, body)).json()["data"]
            text = await reader.until(sent["id"])
        ((_, event, told),) = frames(text)
        assert (event, told["signal_id"]) == ("signal.broadcast", sent["id"])
        assert told["type"] == "deploy"
        assert (told["payload"], told["sent_by"]) == ({"env": "prod"}, sent["sent_by"])
