"""The fan-out: which watchers an event triggers, in which order, and what they are told."""

from typing import Any

import msgspec
import pytest

from commands.approvals.watcher import TriggerWatcher
from schemas.approvals.check_in import CheckInHeld
from schemas.approvals.signal import SignalBroadcast
from schemas.approvals.watcher import WatcherTriggered
from schemas.envelope import SYSTEM, Actor, Envelope
from streams.approvals.room_feed import of_a_room, told_of
from streams.approvals.watching import Happened, happened, triggers

AT = 1_700_000_000_000_000
SIGNAL = SignalBroadcast("room_1", "deploy", '{"env":"prod"}', "usr_1", "Ada", AT)


def envelope(id: str = "evt_1", tenant: str = "ten_1", **fields: Any) -> Envelope:
    return Envelope(
        id,
        fields.pop("type", "approvals.signal_broadcast.v1"),
        tenant,
        "approvals.signal/sig_1",
        1,
        AT,
        Actor("user", "usr_1"),
        correlation_id="req_1",
        **fields,
    )


def event(id: str = "evt_1", tenant: str = "ten_1", offset: int = 7) -> Happened:
    found = happened(envelope(id, tenant), SIGNAL, 2, offset)
    assert found is not None
    return found


def watcher(id: str = "wat_1", **fields: Any) -> dict[str, Any]:
    return {
        "tenant": "ten_1",
        "id": id,
        "room_id": "room_1",
        "agent_id": "agt_1",
        "event_types": ["signal.broadcast"],
        "filter": "{}",
        "created_at": AT - 1,
        **fields,
    }


def test_a_match_is_a_command_whose_id_follows_from_the_two() -> None:
    (request,) = triggers([event()], [watcher()])
    assert (request.tenant, request.stream_id, request.actor) == ("ten_1", "wat_1", SYSTEM)
    assert request.correlation_id == "req_1"
    command = request.command
    assert isinstance(command, TriggerWatcher)
    assert (command.event_id, command.partition, command.offset) == ("evt_1", 2, 7)
    assert msgspec.json.decode(command.body) == {
        "type": "signal.broadcast",
        "timestamp": "2023-11-14T22:13:20Z",
        "data": {
            "signal_id": "sig_1",
            "room_id": "room_1",
            "occurred_at": "2023-11-14T22:13:20Z",
            "type": "deploy",
            "payload": {"env": "prod"},
            "sent_by": "usr_1",
            "sent_by_name": "Ada",
        },
    }
    (again,) = triggers([event()], [watcher()])
    assert again.command_id == request.command_id
    assert again.fingerprint
    (other,) = triggers([event("evt_2")], [watcher()])
    assert other.command_id != request.command_id


@pytest.mark.parametrize(
    "fields",
    [
        {"event_types": ["check_in.created"]},
        {"filter": '{"payload.env":"dev"}'},
        {"room_id": "room_2"},
        {"tenant": "ten_2"},
        {"created_at": AT + 1},
    ],
    ids=["another type", "another field", "another room", "another tenant", "made later"],
)
def test_what_does_not_match_triggers_nothing(fields: dict[str, Any]) -> None:
    assert triggers([event()], [watcher(**fields)]) == []


def test_every_watcher_is_triggered_in_the_order_of_the_log() -> None:
    events = [event(f"evt_{number}", offset=number) for number in range(3)]
    found = triggers(events, [watcher("wat_1"), watcher("wat_2")])
    for id in ("wat_1", "wat_2"):
        offsets = [one.command.offset for one in found if one.stream_id == id]  # type: ignore[attr-defined]
        assert offsets == [0, 1, 2]


def test_a_trigger_triggers_nothing() -> None:
    triggered = WatcherTriggered("room_1", "agt_1", "evt_1", "signal.broadcast", 2, 7, AT)
    about = envelope(type="approvals.watcher_triggered.v1")
    assert happened(about, triggered, 2, 8) is None
    told = told_of(about, triggered)
    assert told is not None
    assert (told.name, told.fields["event_id"]) == ("watcher.triggered", "evt_1")


def test_a_check_in_is_told_as_its_stream_tells_it() -> None:
    held = CheckInHeld("room_1", "agt_1", AT)
    found = happened(envelope(type="approvals.check_in_held.v1"), held, 2, 7)
    assert found is not None
    assert (found.told.name, found.fields["overdue"]) == ("check_in.held", True)


@pytest.mark.parametrize(
    ("type", "told"),
    [
        ("approvals.check_in_created.v1", True),
        ("approvals.signal_broadcast.v1", True),
        ("approvals.watcher_triggered.v1", True),
        ("approvals.watcher_created.v1", False),
        ("approvals.room_created.v1", False),
        ("billing.usage_recorded.v1", False),
    ],
)
def test_which_events_are_of_a_room(type: str, told: bool) -> None:
    assert of_a_room(type) is told
