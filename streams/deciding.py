"""What a batch of commands does, decided: the pure middle of the decider loop.

`Workspace` holds the states that a batch loaded and stages what each command changes; a command
that is refused, or that raises, leaves nothing behind. `fold` applies events that are on the log
already, after a restart or a takeover, so that both ways give the same `Effects`.
"""

import logging
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from commands.decider import (
    Claim,
    ClearTimer,
    Context,
    Decider,
    Emit,
    Lookup,
    Ref,
    Release,
    SetTimer,
)
from commands.refusals import Refusal
from schemas.avro_derivation import tag_of
from schemas.envelope import Envelope
from schemas.platform.audit import AuditOutcome, AuditRecorded
from schemas.platform.audit_chain import START, Link, seal
from schemas.platform.outcome import CommandHandled
from streams.effects import (
    Dead,
    Effects,
    Incoming,
    LookupKey,
    Recorded,
    StateKey,
    TimerChange,
    split_stream,
)

logger = logging.getLogger(__name__)


class Staged(NamedTuple):
    """An event with all that follows from it, computed before anything is changed."""

    recorded: Recorded
    key: StateKey
    state: tuple[int, Any]
    claims: Sequence[Claim | Release]
    timers: Sequence[SetTimer | ClearTimer]


class Registry:
    """The deciders by stream type and by command."""

    def __init__(self, deciders: Iterable[Decider[Any, Any, Any]]) -> None:
        self.by_stream = {decider.stream: decider for decider in deciders}
        self.by_command: dict[type[Struct], Decider[Any, Any, Any]] = {}
        for decider in self.by_stream.values():
            for command in decider.commands:
                if command in self.by_command:
                    raise ValueError(f"{command.__name__} has two deciders")
                self.by_command[command] = decider

    @property
    def streams(self) -> dict[type[Struct], str]:
        """Command struct -> stream type."""
        return {command: decider.stream for command, decider in self.by_command.items()}

    def fold_version(self) -> str:
        """Changes when stored states must be folded anew from the log."""
        return ",".join(f"{name}:{item.version}" for name, item in sorted(self.by_stream.items()))


class Workspace:
    """The states of one partition that a batch works on, and what it has changed so far."""

    def __init__(
        self,
        *,
        registry: Registry,
        states: Mapping[StateKey, tuple[int, Any]],
        lookups: Mapping[LookupKey, str | None],
        outcomes: Mapping[tuple[str, str], CommandHandled],
        heads: Mapping[str, Link],
        new_id: Callable[[str], str],
    ) -> None:
        self._registry, self._new_id = registry, new_id
        self._states, self._lookups = dict(states), dict(lookups)
        self._outcomes, self._heads = dict(outcomes), dict(heads)
        self.effects = Effects()

    def handle(self, incoming: Incoming, now: int) -> CommandHandled:
        """Decide one command at `now` (microseconds) and stage its effects; never raises."""
        envelope = incoming.envelope
        prior = self._outcomes.get((envelope.tenant, envelope.id)) if incoming.fingerprint else None
        if prior is not None:
            return self._repeat(incoming, prior, now)
        incident = ""
        staged: list[Staged] = []
        described: Mapping[str, Any] = {}
        related: set[str] = set()
        answer, version = "null", 0
        status: AuditOutcome = "accepted"
        code, kind, message, details = "", "", "", "{}"
        try:
            if incoming.command is None:
                raise ValueError(incoming.error)
            decider = self._registry.by_command[type(incoming.command)]
            described = decider.describe(incoming.command)
            needs = decider.loads(incoming.command, envelope.stream_id)
            related = self._related(envelope.tenant, needs)
            staged, answer, version = self._decide(incoming, decider, needs, now)
        except Refusal as refusal:
            status, code, kind = "refused", refusal.code, refusal.kind
            message = refusal.message
            details = msgspec.json.encode(refusal.details).decode()
        except Exception as error:
            incident = self._new_id("inc")
            status, code, message = "failed", "internal_error", "the command could not be handled"
            logger.exception("command failed", extra={"incident": incident})
            reason = "".join(traceback.format_exception_only(error)).strip()
            self.effects.dead.append(Dead(incoming.key, incoming.raw, reason, incident))
        outcome = CommandHandled(
            command_id=envelope.id,
            command_offset=incoming.offset,
            at=now,
            status=status,
            fingerprint=incoming.fingerprint,
            code=code,
            kind=kind,
            message=message,
            details=details,
            answer=answer,
            stream=envelope.stream,
            version=version,
            events=len(staged),
            incident=incident,
            reply_to=incoming.reply_to,
            timer=incoming.timer,
        )
        for item in staged:
            self._stage(item)
        related |= {item.recorded.envelope.stream for item in staged}
        self._audit(incoming, outcome, described, sorted(related - {envelope.stream}))
        self._finish(envelope.tenant, outcome)
        return outcome

    def fold(
        self,
        events: Sequence[Recorded],
        audit: Sequence[AuditRecorded],
        outcomes: Sequence[tuple[str, CommandHandled]],
    ) -> None:
        """Apply what the log holds already."""
        for recorded in events:
            tenant, (stream, id) = recorded.envelope.tenant, split_stream(recorded.envelope.stream)
            self._stage(self._follow(recorded, (tenant, stream, id), {}))
        for record in audit:
            head = Link(record.seq, record.hash)
            self._heads[record.tenant] = self.effects.heads[record.tenant] = head
        for tenant, outcome in outcomes:
            self._finish(tenant, outcome)

    def _repeat(self, incoming: Incoming, prior: CommandHandled, now: int) -> CommandHandled:
        outcome = msgspec.structs.replace(
            prior,
            command_offset=incoming.offset,
            at=now,
            reply_to=incoming.reply_to,
            timer=incoming.timer,
            replay=True,
        )
        if prior.fingerprint != incoming.fingerprint:
            outcome = msgspec.structs.replace(
                outcome,
                status="refused",
                code="idempotency_key_reused",
                kind="conflict",
                message="this idempotency key was used for another request",
                details="{}",
                answer="null",
            )
        self._finish(incoming.envelope.tenant, outcome)
        return outcome

    def _decide(
        self,
        incoming: Incoming,
        decider: Decider[Any, Any, Any],
        needs: Sequence[Ref | Lookup],
        now: int,
    ) -> tuple[list[Staged], str, int]:
        """What the command changes, the answer to it, and its stream's version then."""
        command, envelope = incoming.command, incoming.envelope
        tenant, id = envelope.tenant, envelope.stream_id
        own = (tenant, decider.stream, id)
        version, state = self._state(own)
        states: dict[Ref, Any] = {}
        found: dict[tuple[str, str], str] = {}
        for need in needs:
            if isinstance(need, Ref):
                states[need] = self._state((tenant, need.stream, need.id))[1]
            else:
                holder = self._lookups.get((tenant, need.index, need.key))
                if holder is not None:
                    found[need.index, need.key] = holder
                    if need.stream:
                        ref = Ref(need.stream, holder)
                        states[ref] = self._state((tenant, need.stream, holder))[1]
        context = Context(tenant, id, envelope.actor, now, envelope.id, states, found, version)
        emitted = decider.decide(command, state, context)
        changed: dict[StateKey, tuple[int, Any]] = {}
        staged = [self._record(item, own, envelope, now, changed) for item in emitted]
        after_version, after = changed.get(own, (version, state))
        if incoming.timer:
            return staged, "null", after_version  # a timer listens to no answer
        answer = decider.answer(command, after, context)
        return staged, msgspec.json.encode(answer).decode(), after_version

    def _record(
        self,
        item: Any,
        own: StateKey,
        cause: Envelope,
        now: int,
        changed: dict[StateKey, tuple[int, Any]],
    ) -> Staged:
        key, event = own, item
        if isinstance(item, Emit):
            key, event = (own[0], item.stream, item.id), item.event
        version, _ = changed.get(key) or self._state(key)
        envelope = Envelope(
            id=self._new_id("evt"),
            type=tag_of(type(event)),
            tenant=key[0],
            stream=f"{key[1]}/{key[2]}",
            version=version + 1,
            time=now,
            actor=cause.actor,
            correlation_id=cause.correlation_id,
            causation_id=cause.id,
        )
        return self._follow(Recorded(envelope, event), key, changed)

    def _follow(
        self, recorded: Recorded, key: StateKey, changed: dict[StateKey, tuple[int, Any]]
    ) -> Staged:
        """Fold an event and ask what follows; an event that cannot be folded is never written."""
        envelope, event = recorded
        decider = self._registry.by_stream[key[1]]
        _, state = changed.get(key) or self._state(key)
        after = changed[key] = (envelope.version, decider.evolve(state, event))
        return Staged(
            recorded, key, after, decider.claims(event, key[2]), decider.timers(event, key[2])
        )

    def _state(self, key: StateKey) -> tuple[int, Any]:
        known = self._states.get(key)
        return known if known is not None else (0, self._registry.by_stream[key[1]].initial)

    def _stage(self, item: Staged) -> None:
        tenant, _, id = item.key
        self._states[item.key] = self.effects.states[item.key] = item.state
        for change in item.claims:
            lookup = (tenant, change.index, change.key)
            holder = id if isinstance(change, Claim) else None
            self._lookups[lookup] = self.effects.lookups[lookup] = holder
        stream = item.recorded.envelope.stream
        for timer in item.timers:
            due = (timer.due_at, timer.command) if isinstance(timer, SetTimer) else (0, None)
            self.effects.timers.append(TimerChange(tenant, stream, timer.name, *due))
        self.effects.events.append(item.recorded)

    def _audit(
        self,
        incoming: Incoming,
        outcome: CommandHandled,
        described: Mapping[str, Any],
        related: list[str],
    ) -> None:
        envelope = incoming.envelope
        head = self._heads.get(envelope.tenant, START)
        stream, _, id = envelope.stream.partition("/")
        record = seal(
            AuditRecorded(
                tenant=envelope.tenant,
                seq=head.seq + 1,
                at=outcome.at,
                actor_kind=envelope.actor.kind,
                actor_id=envelope.actor.id,
                actor_name=envelope.actor.name,
                action=envelope.type.rsplit(".", 1)[0],
                resource_type=stream,
                resource_id=id,
                outcome=outcome.status,
                code=outcome.code,
                message=outcome.message,
                command_id=outcome.command_id,
                correlation_id=envelope.correlation_id,
                details=msgspec.json.encode(described).decode(),
                events=[item.envelope.type for item in self.effects.events[-outcome.events :]]
                if outcome.events
                else [],
                related=related,
            ),
            head.hash,
        )
        self.effects.audit.append(record)
        head = Link(record.seq, record.hash)
        self._heads[envelope.tenant] = self.effects.heads[envelope.tenant] = head

    def _related(self, tenant: str, needs: Sequence[Ref | Lookup]) -> set[str]:
        """The streams that the decision reads besides its own."""
        streams = set()
        for need in needs:
            if isinstance(need, Ref):
                streams.add(f"{need.stream}/{need.id}")
            elif need.stream:
                holder = self._lookups.get((tenant, need.index, need.key))
                if holder is not None:
                    streams.add(f"{need.stream}/{holder}")
        return streams

    def _finish(self, tenant: str, outcome: CommandHandled) -> None:
        if not outcome.replay:
            self._outcomes[tenant, outcome.command_id] = outcome
        self.effects.outcomes.append((tenant, outcome))
