"""A batch as a value: what is staged, what is not, and that folding gives the same."""

from collections.abc import Sequence
from typing import Any, assert_never

from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from commands.decider import (
    Claim,
    ClearTimer,
    Context,
    Decider,
    Emit,
    Lookup,
    Release,
    SetTimer,
)
from commands.refusals import AlreadyDone
from schemas.envelope import Actor, Envelope
from schemas.platform.audit_chain import verify
from streams.deciding import Registry, Workspace
from streams.effects import Incoming
from streams.needs import looked_up, needs_of

ACTOR = Actor("user", "usr_1")


class Opened(Struct, frozen=True, tag="test.opened.v1"):
    slug: str


class Closed(Struct, frozen=True, tag="test.closed.v1"):
    slug: str


class Noted(Struct, frozen=True, tag="test.noted.v1"):
    text: str


class Open(Struct, frozen=True, tag="test.open.v1"):
    slug: str


class Close(Struct, frozen=True, tag="test.close.v1"):
    pass


class Break(Struct, frozen=True, tag="test.break.v1"):
    pass


class Door(Struct, frozen=True):
    slug: str = ""
    notes: int = 0


def decide(command: Open | Close | Break, door: Door, context: Context) -> Sequence[Any]:
    match command:
        case Open():
            if context.find("slug", command.slug) not in (None, context.stream_id):
                raise AlreadyDone("taken", slug=command.slug)
            return [Opened(command.slug), Emit("test.door", "journal", Noted(command.slug))]
        case Close():
            return [Closed(door.slug)] if door.slug else []
        case Break():
            raise RuntimeError("a bug")
    assert_never(command)


def evolve(door: Door, event: Opened | Closed | Noted) -> Door:
    match event:
        case Opened():
            return Door(event.slug, door.notes)
        case Closed():
            return Door("", door.notes)
        case Noted():
            return Door(door.slug, door.notes + 1)
    assert_never(event)


def claims(event: Any, id: str) -> Sequence[Claim | Release]:
    if isinstance(event, Opened):
        return [Claim("slug", event.slug)]
    return [Release("slug", event.slug)] if isinstance(event, Closed) else []


def timers(event: Any, id: str) -> Sequence[SetTimer | ClearTimer]:
    if isinstance(event, Opened):
        return [SetTimer("close", 99, Close())]
    return [ClearTimer("close")] if isinstance(event, Closed) else []


DOOR: Decider[Any, Door, Any] = Decider(
    stream="test.door",
    commands=(Open, Close, Break),
    events=(Opened, Closed, Noted),
    initial=Door(),
    decide=decide,
    evolve=evolve,
    loads=lambda command, id: (
        [Lookup("slug", command.slug, "test.door")] if isinstance(command, Open) else []
    ),
    claims=claims,
    timers=timers,
    answer=lambda command, door, context: {"slug": door.slug},
)
REGISTRY = Registry([DOOR])


def incoming(offset: int, id: str, command: Any, key: str = "", fingerprint: str = "") -> Incoming:
    envelope = Envelope(
        key or f"cmd_{offset}", "test.command.v1", "ten_1", f"test.door/{id}", 0, 0, ACTOR
    )
    return Incoming(offset, envelope, command, fingerprint)


def workspace() -> Workspace:
    numbers = iter(range(10_000))
    return Workspace(
        registry=REGISTRY,
        states={},
        lookups={},
        outcomes={},
        heads={},
        new_id=lambda prefix: f"{prefix}_{next(numbers)}",
    )


def test_later_commands_of_a_batch_see_what_earlier_ones_did() -> None:
    space = workspace()
    first = space.handle(incoming(0, "a", Open("front")), now=1)
    second = space.handle(incoming(1, "b", Open("front")), now=2)
    assert (first.status, first.answer) == ("accepted", '{"slug":"front"}')
    assert (second.status, second.code, second.details) == (
        "refused",
        "conflict",
        '{"slug":"front"}',
    )
    assert space.effects.lookups == {("ten_1", "slug", "front"): "a"}


def test_no_answer_is_made_for_a_timer() -> None:
    space = workspace()
    fired = incoming(0, "a", Open("front"), fingerprint="timer")._replace(timer="timeout@1")
    handled = space.handle(fired, now=1)
    assert (handled.status, handled.answer, handled.events) == ("accepted", "null", 2)


def test_events_of_other_streams_are_numbered_in_those() -> None:
    space = workspace()
    space.handle(incoming(0, "a", Open("x")), now=1)
    space.handle(incoming(1, "b", Open("y")), now=1)
    versions = [(e.envelope.stream, e.envelope.version) for e in space.effects.events]
    assert versions == [
        ("test.door/a", 1),
        ("test.door/journal", 1),
        ("test.door/b", 1),
        ("test.door/journal", 2),
    ]


def test_a_bug_leaves_nothing_behind_but_a_dead_letter_and_an_audit_record() -> None:
    space = workspace()
    outcome = space.handle(incoming(0, "a", Break()), now=1)
    assert (outcome.status, outcome.events) == ("failed", 0)
    assert space.effects.events == []
    assert space.effects.states == {}
    assert [dead.incident for dead in space.effects.dead] == [outcome.incident]
    assert [record.outcome for record in space.effects.audit] == ["failed"]


def test_a_repeat_answers_the_first_answer_and_advances_the_offset() -> None:
    space = workspace()
    first = space.handle(incoming(0, "a", Open("x"), "cmd_k", "f"), now=1)
    again = space.handle(incoming(7, "a", Open("x"), "cmd_k", "f"), now=2)
    other = space.handle(incoming(8, "a", Open("y"), "cmd_k", "g"), now=3)
    assert (again.replay, again.answer, again.command_offset) == (True, first.answer, 7)
    assert (other.status, other.code) == ("refused", "idempotency_key_reused")
    assert len(space.effects.audit) == 1


def test_needs_name_the_streams_behind_look_ups() -> None:
    batch = [incoming(0, "b", Open("front"))]
    needs = needs_of(REGISTRY, batch)
    assert needs.lookups == {("ten_1", "slug", "front")}
    found = looked_up(REGISTRY, batch, {("ten_1", "slug", "front"): "a"})
    assert found == {("ten_1", "test.door", "a")}


commands = st.one_of(
    st.builds(Open, st.sampled_from(["x", "y", "z"])), st.just(Close()), st.just(Break())
)


@given(st.lists(st.tuples(st.sampled_from("abc"), commands), max_size=30))
def test_folding_the_log_gives_what_deciding_gave(history: list[tuple[str, Any]]) -> None:
    space = workspace()
    for offset, (id, command) in enumerate(history):
        space.handle(incoming(offset, id, command), now=offset)
    decided = space.effects
    folded_space = workspace()
    folded_space.fold(decided.events, decided.audit, decided.outcomes)
    folded = folded_space.effects
    assert folded.states == decided.states
    assert folded.lookups == decided.lookups
    assert folded.timers == decided.timers
    assert folded.heads == decided.heads
    assert verify(decided.audit) is None
    by_stream: dict[str, list[int]] = {}
    for item in decided.events:
        by_stream.setdefault(item.envelope.stream, []).append(item.envelope.version)
    for versions in by_stream.values():
        assert versions == list(range(1, len(versions) + 1))
