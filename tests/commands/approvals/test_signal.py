"""A signal: people tell a room something, once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands.approvals.room import STREAM as ROOM
from commands.approvals.room import Room, RoomNotFound
from commands.approvals.signal import DECIDER, BroadcastSignal, SignalExists
from commands.decider import Ref
from commands.refusals import ActorForbidden
from schemas.approvals.signal import SignalBroadcast
from schemas.envelope import SYSTEM, Actor
from tests.given import AGENT, HUMAN, NOW, Given

STATES = {Ref(ROOM, "room_1"): Room(slug="payments")}
DEPLOY = BroadcastSignal("room_1", "deploy", '{"env":"prod"}')
BROADCAST = SignalBroadcast("room_1", "deploy", '{"env":"prod"}', "usr_1", "Ada", NOW)


def test_a_signal_is_broadcast() -> None:
    Given(DECIDER, states=STATES).when(DEPLOY).then(BROADCAST)


def test_the_same_signal_again_is_quiet() -> None:
    Given(DECIDER, BROADCAST, states=STATES).when(DEPLOY).then_quiet()


@pytest.mark.parametrize("actor", [AGENT, SYSTEM, Actor("api_key", "key_1")])
def test_only_people_signal(actor: Actor) -> None:
    Given(DECIDER, states=STATES, actor=actor).when(DEPLOY).then_refused(ActorForbidden)


def test_a_room_that_is_not_there_is_told_nothing() -> None:
    Given(DECIDER).when(DEPLOY).then_refused(RoomNotFound)


def test_another_signal_under_the_same_id_is_refused() -> None:
    other = BroadcastSignal("room_1", "deploy", '{"env":"dev"}')
    Given(DECIDER, BROADCAST, states=STATES).when(other).then_refused(SignalExists)


@given(st.lists(st.sampled_from([DEPLOY, BroadcastSignal("room_1", "x", "{}")]), max_size=8))
def test_a_signal_is_never_broadcast_twice(commands: list[BroadcastSignal]) -> None:
    it, told = Given(DECIDER, states=STATES, actor=HUMAN), 0
    for command in commands:
        try:
            events = it.when(command).decided()
        except SignalExists:
            continue
        told += len(events)
        for event in events:
            it.state = DECIDER.evolve(it.state, event)
    assert told == bool(commands)
