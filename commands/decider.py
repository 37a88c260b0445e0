"""The Decider: a pure `decide(command, state) -> events` and `evolve(state, event) -> state`.

The form is J. Chassaing's Decider (2021), as emmett has it. A decider module holds its commands,
its state, `decide`, `evolve` and closes with `DECIDER = Decider(...)`. The loop that runs it
(`streams/decider.py`) owns one partition of the log, hence every state of the tenants in it: what a
command needs from other streams it names in `loads`, uniqueness is a claim on the look-up index.

Nothing here does I/O or reads a clock: `Context.now` is given, ids come in with the command.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from msgspec import Struct

from schemas.envelope import Actor

C = TypeVar("C")  # the union of commands
S = TypeVar("S")  # the state
E = TypeVar("E")  # the union of events


class Ref(Struct, frozen=True):
    """The state of a stream: `stream` is the type (`approvals.room`), `id` its id."""

    stream: str
    id: str


class Lookup(Struct, frozen=True):
    """A key of the look-up index, and the stream type whose state to load when it is found."""

    index: str
    key: str
    stream: str = ""


class Claim(Struct, frozen=True):
    """This event's stream takes a unique key (a slug, an address) within the tenant."""

    index: str
    key: str


class Release(Struct, frozen=True):
    """This event's stream gives a key back."""

    index: str
    key: str


class SetTimer(Struct, frozen=True):
    """At `due_at` (microseconds UTC) the scheduler sends `command` to this event's stream.

    `name` is unique within the stream; setting it again replaces it.
    """

    name: str
    due_at: int
    command: Struct


class ClearTimer(Struct, frozen=True):
    """The named timer of this event's stream will not fire any more."""

    name: str


class Emit(Struct, frozen=True):
    """An event for another stream of the same tenant than the command's."""

    stream: str
    id: str
    event: Any


class Context(Struct, frozen=True):
    """What surrounds a command: who, when, and the states that `loads` named.

    now: microseconds UTC, the decider loop's clock. stream_id: the command's target stream.
    """

    tenant: str
    stream_id: str
    actor: Actor
    now: int
    command_id: str
    states: Mapping[Ref, Any]
    found: Mapping[tuple[str, str], str]
    version: int = 0

    def state(self, stream: str, id: str) -> Any:
        """A loaded state. Raises KeyError when `loads` did not name it (a bug in the decider)."""
        return self.states[Ref(stream, id)]

    def find(self, index: str, key: str) -> str | None:
        """The stream id that holds a key of the look-up index, if any (named in `loads`)."""
        return self.found.get((index, key))


def _no_loads(command: Any, stream_id: str) -> Sequence[Ref | Lookup]:
    return ()


def _no_effects(event: Any, stream_id: str) -> Sequence[Any]:
    return ()


def _no_answer(command: Any, state: Any, context: Context) -> Any:
    return None


class Decider(Struct, Generic[C, S, E], frozen=True, kw_only=True):
    """One stream type.

    stream: `domain.name`, also the audit's resource type. commands: the command structs it takes.
    events: the event structs it folds. initial: the state before any event. version: raise it when
    the state's shape or `evolve` changes, so that stored states are folded anew from the log.
    decide(command, state, context) -> events (or `Emit`s), or raises a Refusal. An empty list is
    an accepted repeat. evolve(state, event) -> state, total over `events`.
    shape: the type to read stored states as, when it isn't `type(initial)` (a tagged union).
    loads(command, stream_id): states and look-ups the command needs besides its own stream.
    claims(event, stream_id) -> Claim | Release. timers(event, stream_id) -> SetTimer | ClearTimer.
    answer(command, state_after, context): what the caller is told, a struct or plain JSON values;
    must hold no secret, since it is kept for idempotent repeats.
    describe(command): what the audit record says of the command besides its name, plain JSON
    values, no secrets.
    """

    stream: str
    commands: tuple[type[Struct], ...]
    events: tuple[type[Struct], ...]
    initial: S
    decide: Callable[[C, S, Context], Sequence[E | Emit]]
    evolve: Callable[[S, E], S]
    version: int = 1
    shape: Any = None
    loads: Callable[[C, str], Sequence[Ref | Lookup]] = _no_loads
    claims: Callable[[E, str], Sequence[Claim | Release]] = _no_effects
    timers: Callable[[E, str], Sequence[SetTimer | ClearTimer]] = _no_effects
    answer: Callable[[C, S, Context], Any] = _no_answer
    describe: Callable[[C], Mapping[str, Any]] = lambda command: {}
