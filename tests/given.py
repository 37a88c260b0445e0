"""Given/when/then for any decider: events fold to a state, a command decides, no I/O."""

from collections.abc import Mapping
from typing import Any

import pytest
from msgspec import Struct

from commands import DECIDERS
from commands.decider import Context, Decider, Emit, Ref
from commands.refusals import Refusal
from schemas.envelope import Actor

HUMAN = Actor("user", "usr_1", "Ada")
AGENT = Actor("agent", "agt_1", "Robby")
NOW = 1_700_000_000_000_000


class Given:
    """`Given(DECIDER, *events, id=…, states={Ref: state}, found={(index, key): id}, now=…)`."""

    def __init__(
        self,
        decider: Decider[Any, Any, Any],
        *events: Any,
        id: str = "id_1",
        actor: Actor = HUMAN,
        now: int = NOW,
        states: Mapping[Ref, Any] | None = None,
        found: Mapping[tuple[str, str], str] | None = None,
    ) -> None:
        self.decider, self.id, self.actor, self.now = decider, id, actor, now
        self.states, self.found = dict(states or {}), dict(found or {})
        self.state = decider.initial
        for event in events:
            self.state = decider.evolve(self.state, event)
        self.version = len(events)
        self._command: Struct | None = None

    def by(self, actor: Actor) -> "Given":
        """The command comes from this actor."""
        self.actor = actor
        return self

    def at(self, now: int) -> "Given":
        """The command is decided at this instant (microseconds)."""
        self.now = now
        return self

    def when(self, command: Struct) -> "Given":
        self._command = command
        return self

    def decided(self) -> list[Any]:
        """The events that the command yields, in order. Raises the Refusal, if it is refused."""
        assert self._command is not None, "call when() first"
        named = self.decider.loads(self._command, self.id)
        for ref in named:
            if isinstance(ref, Ref) and ref not in self.states:
                self.states[ref] = next(d.initial for d in DECIDERS if d.stream == ref.stream)
        context = Context(
            "ten_1", self.id, self.actor, self.now, "cmd_1", self.states, self.found, self.version
        )
        return list(self.decider.decide(self._command, self.state, context))

    def then(self, *expected: Any) -> "Given":
        """The command records exactly these events; own ones fold into the state."""
        events = self.decided()
        assert events == list(expected)
        for event in events:
            if not isinstance(event, Emit):
                self.state = self.decider.evolve(self.state, event)
                self.version += 1
        return self

    def then_quiet(self) -> "Given":
        """The command is an accepted repeat: it records nothing."""
        return self.then()

    def then_refused(self, refusal: type[Refusal]) -> Refusal:
        with pytest.raises(refusal) as caught:
            self.decided()
        assert type(caught.value) is refusal
        return caught.value
