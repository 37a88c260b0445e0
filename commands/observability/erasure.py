"""Erasures of persons: requested by a tenant, carried out step by step by the eraser."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, assert_never

from msgspec import Struct

from commands.decider import Context, Decider
from commands.refusals import ActorForbidden, AlreadyDone, NotFound
from schemas.observability.erasure import (
    STREAM,
    ErasureEvent,
    KeyName,
    ReadModelErased,
    UserErasureCompleted,
    UserErasureRequested,
    UserKeyDropped,
)
from schemas.types import Count, Text
from schemas.unions import members


class RequestUserErasure(Struct, frozen=True, tag="observability.request_user_erasure.v1"):
    """Erase the person whose reports are sealed under this key."""

    key: KeyName


class RecordUserKeyDropped(Struct, frozen=True, tag="observability.record_user_key_dropped.v1"):
    """The key is destroyed."""


class RecordReadModelErased(
    Struct, frozen=True, kw_only=True, tag="observability.record_read_model_erased.v1"
):
    """A read model is clean; fields as in ReadModelErased."""

    read_model: Text
    rows: Count
    positions: list[Text]


class CompleteUserErasure(Struct, frozen=True, tag="observability.complete_user_erasure.v1"):
    """All read models are clean."""


ErasureCommand = (
    RequestUserErasure | RecordUserKeyDropped | RecordReadModelErased | CompleteUserErasure
)


class Erasure(Struct, frozen=True):
    """How far an erasure is. key: empty until it was requested. erased: read models."""

    key: str = ""
    status: Literal["requested", "key_dropped", "completed"] = "requested"
    erased: tuple[str, ...] = ()


def decide(command: ErasureCommand, state: Erasure, context: Context) -> Sequence[ErasureEvent]:
    """Each step is recorded once. Raises AlreadyDone, NotFound, ActorForbidden."""
    if isinstance(command, RequestUserErasure):
        return _request(command, state, context)
    if context.actor.kind != "system":
        raise ActorForbidden("the steps of an erasure are the eraser's")
    if not state.key:
        raise NotFound("there is no such erasure")
    key, at = state.key, context.now
    match command:
        case RecordUserKeyDropped():
            return [UserKeyDropped(key=key, at=at)] if state.status == "requested" else []
        case RecordReadModelErased():
            if command.read_model in state.erased:
                return []
            return [
                ReadModelErased(
                    key=key,
                    read_model=command.read_model,
                    rows=command.rows,
                    positions=command.positions,
                    at=at,
                )
            ]
        case CompleteUserErasure():
            if state.status == "completed":
                return []
            return [UserErasureCompleted(key=key, at=at)]
    assert_never(command)


def _request(
    command: RequestUserErasure, state: Erasure, context: Context
) -> Sequence[ErasureEvent]:
    if not state.key:
        return [UserErasureRequested(key=command.key, at=context.now)]
    if state.key != command.key:
        raise AlreadyDone("this erasure is of another person")
    return []


def evolve(state: Erasure, event: ErasureEvent) -> Erasure:
    match event:
        case UserErasureRequested():
            return Erasure(event.key)
        case UserKeyDropped():
            return Erasure(state.key, "key_dropped", state.erased)
        case ReadModelErased():
            return Erasure(state.key, state.status, (*state.erased, event.read_model))
        case UserErasureCompleted():
            return Erasure(state.key, "completed", state.erased)
    assert_never(event)


def _describe(command: ErasureCommand) -> Mapping[str, Any]:
    match command:
        case RequestUserErasure():
            return {"key": command.key}
        case RecordReadModelErased():
            return {"read_model": command.read_model, "rows": command.rows}
    return {}


DECIDER: Decider[ErasureCommand, Erasure, ErasureEvent] = Decider(
    stream=STREAM,
    commands=members(ErasureCommand),
    events=members(ErasureEvent),
    initial=Erasure(),
    decide=decide,
    evolve=evolve,
    describe=_describe,
)
