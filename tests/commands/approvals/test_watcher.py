"""A watcher: an agent's own, triggered in order and never twice, silent once it is removed."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands.approvals.agent import STREAM as AGENTS
from commands.approvals.agent import Agent
from commands.approvals.room import STREAM as ROOM
from commands.approvals.room import Room, RoomNotFound
from commands.approvals.watcher import (
    DECIDER,
    SLOT,
    WATCHERS_OF_ROOM_MAX,
    CreateWatcher,
    RemoveWatcher,
    RoomIsWatchedEnough,
    TriggerWatcher,
    WatcherExists,
    WatcherNotFound,
)
from commands.decider import Claim, Emit, Ref, Release
from commands.platform.webhook_endpoint import STREAM as ENDPOINT
from commands.platform.webhook_endpoint import WebhookEndpoint
from commands.refusals import ActorForbidden, InvalidCommand
from schemas.approvals.watcher import WatcherCreated, WatcherRemoved, WatcherTriggered
from schemas.envelope import SYSTEM, Actor
from schemas.platform.webhook import (
    WebhookEndpointClosed,
    WebhookEndpointOpened,
    WebhookRequested,
)
from tests.given import AGENT, HUMAN, NOW, Given

ID = "wat_1"
URL = "https://agents.example/hooks"
ACTIVE = Agent(name="Robby", key_hash="ab", active=True)
WATCH = CreateWatcher("room_1", "agt_1", ["signal.broadcast"])
HOOK = msgspec.structs.replace(WATCH, webhook_url=URL)
CREATED = WatcherCreated("room_1", "agt_1", ["signal.broadcast"], "{}", "", NOW, slot=0)
HOOKED = msgspec.structs.replace(CREATED, webhook_url=URL)
REMOVE = RemoveWatcher("room_1", "agt_1")
REMOVED = WatcherRemoved("room_1", "agt_1", NOW, slot=0)


def trigger(offset: int, partition: int = 1) -> TriggerWatcher:
    return TriggerWatcher(
        room_id="room_1",
        agent_id="agt_1",
        event_id=f"evt_{offset}",
        event_type="signal.broadcast",
        body='{"type":"signal.broadcast"}',
        partition=partition,
        offset=offset,
    )


def triggered(offset: int, partition: int = 1) -> WatcherTriggered:
    return WatcherTriggered(
        "room_1", "agt_1", f"evt_{offset}", "signal.broadcast", partition, offset, NOW
    )


def requested(offset: int) -> Emit:
    body = '{"type":"signal.broadcast"}'
    event = WebhookRequested(ID, f"evt_{offset}", "signal.broadcast", body, NOW)
    return Emit(ENDPOINT, ID, event)


def watcher(*events: Any, actor: Actor = AGENT, endpoint: str = "", **fields: Any) -> Given:
    states: dict[Ref, Any] = {
        Ref(ROOM, "room_1"): Room(slug="payments"),
        Ref(AGENTS, "agt_1"): msgspec.structs.replace(ACTIVE, **fields),
    }
    if endpoint:
        states[Ref(ENDPOINT, ID)] = WebhookEndpoint("agt_1", endpoint)  # type: ignore[arg-type]
    return Given(DECIDER, *events, id=ID, actor=actor, states=states)


def test_an_agent_watches_a_room() -> None:
    watcher().when(WATCH).then(CREATED)


def test_a_webhook_has_an_endpoint_whose_secret_derives_from_the_command() -> None:
    opened = WebhookEndpointOpened(URL, "cmd_1", "agt_1", NOW)
    watcher().when(HOOK).then(HOOKED, Emit(ENDPOINT, ID, opened))


def test_watching_again_is_quiet_and_otherwise_refused() -> None:
    watcher(CREATED).when(WATCH).then_quiet()
    watcher(CREATED).when(HOOK).then_refused(WatcherExists)


def test_a_watcher_takes_a_free_place_of_the_room_and_gives_it_back() -> None:
    it = watcher()
    it.found = {(SLOT, f"room_1/{slot}"): "wat_2" for slot in (0, 1, 3)}
    it.when(WATCH).then(msgspec.structs.replace(CREATED, slot=2))
    assert DECIDER.claims(CREATED, ID) == (Claim(SLOT, "room_1/0"),)
    assert DECIDER.claims(REMOVED, ID) == (Release(SLOT, "room_1/0"),)


def test_a_room_has_only_so_many_watchers() -> None:
    it = watcher()
    it.found = {(SLOT, f"room_1/{slot}"): "wat_2" for slot in range(WATCHERS_OF_ROOM_MAX)}
    it.when(WATCH).then_refused(RoomIsWatchedEnough)


def test_a_watcher_from_before_places_were_counted_is_removed_as_it_is() -> None:
    before = msgspec.structs.replace(CREATED, slot=-1)
    removed = msgspec.structs.replace(REMOVED, slot=-1)
    watcher(before).when(REMOVE).then(removed)
    assert [DECIDER.claims(event, ID) for event in (before, removed)] == [(), ()]


@pytest.mark.parametrize(
    "it",
    [
        Given(DECIDER, actor=AGENT, states={Ref(AGENTS, "agt_1"): ACTIVE}),
        watcher(room_scopes=["room_2"]),
    ],
)
def test_a_room_that_the_agent_does_not_see_is_not_there(it: Given) -> None:
    it.when(WATCH).then_refused(RoomNotFound)


def test_nobody_watches_for_somebody_else() -> None:
    for it in (watcher(actor=HUMAN), watcher(actor=Actor("agent", "agt_2"))):
        it.when(WATCH).then_refused(ActorForbidden)
    watcher(active=False).when(WATCH).then_refused(ActorForbidden)


def test_what_can_never_match_is_refused() -> None:
    for fields in ({"event_types": []}, {"filter": '{"a":{"like":1}}'}):
        command = msgspec.structs.replace(WATCH, **fields)
        refusal = watcher().when(command).then_refused(InvalidCommand)
        assert refusal.details["field"] in ("event_types", "filter.a")


def test_an_event_triggers_a_watcher() -> None:
    watcher(CREATED, actor=SYSTEM).when(trigger(5)).then(triggered(5))


def test_an_event_is_sent_to_the_endpoint_in_the_same_breath() -> None:
    it = watcher(HOOKED, actor=SYSTEM, endpoint="active")
    it.when(trigger(5)).then(triggered(5), requested(5))


def test_what_triggered_already_is_quiet() -> None:
    it = watcher(CREATED, triggered(5), actor=SYSTEM)
    it.when(trigger(5)).then_quiet()
    it.when(trigger(4)).then_quiet()
    it.when(trigger(6)).then(triggered(6))


def test_another_partition_has_its_own_order() -> None:
    watcher(CREATED, triggered(5), actor=SYSTEM).when(trigger(3, 2)).then(triggered(3, 2))


@pytest.mark.parametrize(
    "it",
    [
        watcher(actor=SYSTEM),
        watcher(CREATED, REMOVED, actor=SYSTEM),
        watcher(CREATED, actor=SYSTEM, active=False),
        watcher(HOOKED, actor=SYSTEM, endpoint="disabled"),
    ],
    ids=["absent", "removed", "its agent deactivated", "its endpoint disabled"],
)
def test_a_watcher_that_is_over_is_not_triggered(it: Given) -> None:
    it.when(trigger(5)).then_quiet()


def test_only_the_log_triggers() -> None:
    for actor in (AGENT, HUMAN):
        watcher(CREATED, actor=actor).when(trigger(5)).then_refused(ActorForbidden)


def test_the_agent_removes_its_watcher_and_its_endpoint_closes() -> None:
    watcher(CREATED).when(REMOVE).then(REMOVED)
    closed = Emit(ENDPOINT, ID, WebhookEndpointClosed(NOW))
    watcher(HOOKED, endpoint="active").when(REMOVE).then(REMOVED, closed)
    watcher(CREATED, REMOVED).when(REMOVE).then_quiet()


def test_nobody_else_removes_it() -> None:
    for actor in (HUMAN, Actor("agent", "agt_2"), SYSTEM):
        watcher(CREATED, actor=actor).when(REMOVE).then_refused(ActorForbidden)
    watcher().when(REMOVE).then_refused(WatcherNotFound)


@given(st.lists(st.tuples(st.sampled_from(["trigger", "remove"]), st.integers(0, 9))))
def test_each_event_triggers_once_in_order_and_never_after_the_end(
    steps: list[tuple[str, int]],
) -> None:
    it = watcher(HOOKED, endpoint="active")
    seen: list[int] = []
    sent: list[str] = []
    over = False
    for kind, offset in steps:
        command, actor = (REMOVE, AGENT) if kind == "remove" else (trigger(offset), SYSTEM)
        for event in it.by(actor).when(command).decided():
            assert not over
            if isinstance(event, Emit):
                if isinstance(event.event, WebhookRequested):
                    sent.append(event.event.event_id)
                continue
            it.state = DECIDER.evolve(it.state, event)
            if isinstance(event, WatcherTriggered):
                seen.append(event.offset)
        over = over or kind == "remove"
    assert seen == sorted(set(seen))
    assert sent == [f"evt_{offset}" for offset in seen]
