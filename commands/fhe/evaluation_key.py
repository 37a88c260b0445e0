"""An evaluation key: registered, used by jobs, deleted. The same bytes are always the same key."""

from collections.abc import Mapping, Sequence
from typing import Any, assert_never

import msgspec
from msgspec import Struct

from commands.decider import Context, Decider, Emit, Ref
from commands.fhe.charges import ACCOUNT, key_admitted, key_released
from commands.refusals import ActorForbidden, AlreadyDone, InvalidCommand, NotFound
from schemas.fhe.evaluation_key import (
    EvaluationKeyDeleted,
    EvaluationKeyErased,
    EvaluationKeyEvent,
    EvaluationKeyRegistered,
    StoredPart,
)
from schemas.fhe.parameters import PARAMETER_SETS
from schemas.types import Count, Micros, Sha256, Text
from schemas.unions import members

STREAM = "fhe.evaluation_key"


class KeyNotFound(NotFound):
    """No such evaluation key, or it was deleted."""


class KeyDeleted(AlreadyDone):
    """The evaluation key was deleted; nothing is computed with it any more."""

    code = "key_deleted"


class RegisterEvaluationKey(Struct, frozen=True, tag="fhe.register_evaluation_key.v1"):
    """Let jobs compute with these parts, which the gateway has checked and stored."""

    params_id: str
    fingerprint: Sha256
    name: Text
    parts: list[StoredPart]
    generated: bool = False


class DeleteEvaluationKey(Struct, frozen=True, tag="fhe.delete_evaluation_key.v1"):
    """Compute nothing with this key any more, and erase it."""


class RecordKeyErased(Struct, frozen=True, tag="fhe.record_key_erased.v1"):
    """The eraser has erased what the deletion at `deleted_at` named: so many objects."""

    deleted_at: Micros
    objects: Count


EvaluationKeyCommand = RegisterEvaluationKey | DeleteEvaluationKey | RecordKeyErased


class EvaluationKey(Struct, frozen=True):
    """`is_live` is False before the first registration and after each deletion.

    erased_until: the last deletion that there is a receipt of.
    """

    is_live: bool = False
    was_deleted: bool = False
    params_id: str = ""
    fingerprint: str = ""
    name: str = ""
    parts: list[StoredPart] = []
    registered_at: int = 0
    erased_until: int = 0
    is_counted: bool = False

    @property
    def part_kinds(self) -> frozenset[str]:
        """Which kinds of parts it has, and so what can be computed with it."""
        return frozenset(part.kind for part in self.parts)

    @property
    def rotations(self) -> frozenset[int]:
        """The slot steps to the left that it allows."""
        return frozenset(step for part in self.parts for step in part.rotations)


class EvaluationKeyAnswer(Struct, frozen=True):
    """The key as it stands. `is_new` is False when these bytes were registered already."""

    key_id: str
    params_id: str
    fingerprint: str
    name: str
    parts: list[StoredPart]
    registered_at: int
    is_new: bool


def decide(
    command: EvaluationKeyCommand, state: EvaluationKey, context: Context
) -> Sequence[EvaluationKeyEvent | Emit]:
    """Raises InvalidCommand, KeyNotFound, ActorForbidden, EvaluationKeysExhausted."""
    match command:
        case RegisterEvaluationKey():
            return _register(command, state, context)
        case DeleteEvaluationKey():
            if not state.is_live and not state.was_deleted:
                raise KeyNotFound("no such evaluation key")
            if not state.is_live:
                return []
            objects = [part.object for part in state.parts]
            deleted = EvaluationKeyDeleted(context.stream_id, objects, context.now)
            released = key_released(context.stream_id, context) if state.is_counted else ()
            return [deleted, *released]
        case RecordKeyErased():
            if context.actor.kind != "system":
                raise ActorForbidden("receipts are the eraser's only")
            if command.deleted_at <= state.erased_until:
                return []
            return [
                EvaluationKeyErased(
                    context.stream_id, command.objects, command.deleted_at, context.now
                )
            ]
    assert_never(command)


def _register(
    command: RegisterEvaluationKey, state: EvaluationKey, context: Context
) -> Sequence[EvaluationKeyEvent | Emit]:
    if command.params_id not in PARAMETER_SETS:
        raise InvalidCommand("no such parameter set", params_id=command.params_id)
    if not command.parts:
        raise InvalidCommand("an evaluation key has at least one part")
    if state.is_live:
        # The key's id is made from its fingerprint, so a live key has this very fingerprint.
        return []
    return [
        EvaluationKeyRegistered(
            key_id=context.stream_id,
            params_id=command.params_id,
            fingerprint=command.fingerprint,
            name=command.name,
            parts=command.parts,
            registered_at=context.now,
            generated=command.generated,
            is_counted=True,
        ),
        *key_admitted(context.stream_id, context),
    ]


def registered(key_id: str, key: EvaluationKey, context: Context, **fields: Any) -> Sequence[Emit]:
    """The events that register a key whose upload is complete, none when it is live already.

    fields: those of RegisterEvaluationKey. Raises InvalidCommand, EvaluationKeysExhausted.
    """
    there = msgspec.structs.replace(context, stream_id=key_id)
    found = _register(RegisterEvaluationKey(**fields), key, there)
    return [item if isinstance(item, Emit) else Emit(STREAM, key_id, item) for item in found]


def evolve(state: EvaluationKey, event: EvaluationKeyEvent) -> EvaluationKey:
    match event:
        case EvaluationKeyRegistered():
            return EvaluationKey(
                is_live=True,
                params_id=event.params_id,
                fingerprint=event.fingerprint,
                name=event.name,
                parts=event.parts,
                registered_at=event.registered_at,
                erased_until=state.erased_until,
                is_counted=event.is_counted,
            )
        case EvaluationKeyDeleted():
            return EvaluationKey(was_deleted=True, erased_until=state.erased_until)
        case EvaluationKeyErased():
            return msgspec.structs.replace(state, erased_until=event.deleted_at)
    assert_never(event)


def _loads(command: EvaluationKeyCommand, key_id: str) -> Sequence[Ref]:
    return () if isinstance(command, RecordKeyErased) else (ACCOUNT,)


def _answer(
    command: EvaluationKeyCommand, state: EvaluationKey, context: Context
) -> EvaluationKeyAnswer:
    return EvaluationKeyAnswer(
        key_id=context.stream_id,
        params_id=state.params_id,
        fingerprint=state.fingerprint,
        name=state.name,
        parts=state.parts,
        registered_at=state.registered_at,
        is_new=isinstance(command, RegisterEvaluationKey) and state.parts == command.parts,
    )


def _describe(command: EvaluationKeyCommand) -> Mapping[str, Any]:
    match command:
        case DeleteEvaluationKey():
            return {}
        case RecordKeyErased():
            return {"objects": command.objects}
        case RegisterEvaluationKey():
            return {
                "params_id": command.params_id,
                "fingerprint": command.fingerprint,
                "size_bytes": sum(part.size_bytes for part in command.parts),
                "generated": command.generated,
            }
    assert_never(command)


INITIAL = EvaluationKey()
DECIDER: Decider[EvaluationKeyCommand, EvaluationKey, EvaluationKeyEvent] = Decider(
    stream=STREAM,
    commands=members(EvaluationKeyCommand),
    events=members(EvaluationKeyEvent),
    version=3,
    initial=INITIAL,
    decide=decide,
    evolve=evolve,
    loads=_loads,
    answer=_answer,
    describe=_describe,
)
