"""`prompts.playground`: the server on which a tenant tries its prompts: set, changed, removed.

Its key comes sealed (`infra.ids.Signer.seal`): nobody can read it from a command, an event or a
state. The same key for the same address is the same seal.
"""

from collections.abc import Mapping, Sequence
from typing import Any, assert_never

from msgspec import Struct

from commands.decider import Context, Decider
from commands.refusals import NotFound
from schemas.prompts.playground import (
    STREAM,
    PlaygroundEvent,
    PlaygroundProviderRemoved,
    PlaygroundProviderSet,
)
from schemas.types import Micros, Text
from schemas.unions import members


class SetPlaygroundProvider(Struct, frozen=True, tag="prompts.set_playground_provider.v1"):
    """Try prompts on the server at `base_url`."""

    base_url: Text
    sealed_key: Text
    key_hint: Text
    set_by: Text


class RemovePlaygroundProvider(Struct, frozen=True, tag="prompts.remove_playground_provider.v1"):
    """Try prompts nowhere."""

    removed_by: Text


PlaygroundCommand = SetPlaygroundProvider | RemovePlaygroundProvider


class PlaygroundProviderNotFound(NotFound):
    """The tenant has set none."""


class Playground(Struct, frozen=True):
    """`provider` is None before it was set and after it was removed."""

    provider: PlaygroundProviderSet | None = None


class ProviderAnswered(Struct, frozen=True):
    """What a caller is told of the provider: nothing of its key but the hint."""

    base_url: str
    key_hint: str
    set_by: str
    set_at: Micros


def decide(
    command: PlaygroundCommand, state: Playground, context: Context
) -> Sequence[PlaygroundEvent]:
    """Raises PlaygroundProviderNotFound."""
    current = state.provider
    match command:
        case SetPlaygroundProvider():
            if current is not None and (current.base_url, current.sealed_key) == (
                command.base_url,
                command.sealed_key,
            ):
                return []
            return [
                PlaygroundProviderSet(
                    base_url=command.base_url,
                    sealed_key=command.sealed_key,
                    key_hint=command.key_hint,
                    set_by=command.set_by,
                    set_at=context.now,
                )
            ]
        case RemovePlaygroundProvider():
            if current is None:
                raise PlaygroundProviderNotFound("No provider is set")
            return [PlaygroundProviderRemoved(command.removed_by, context.now)]
    assert_never(command)


def evolve(state: Playground, event: PlaygroundEvent) -> Playground:
    match event:
        case PlaygroundProviderSet():
            return Playground(event)
        case PlaygroundProviderRemoved():
            return Playground()
    assert_never(event)


def _answer(
    command: PlaygroundCommand, state: Playground, context: Context
) -> ProviderAnswered | None:
    made = state.provider
    if made is None:
        return None
    return ProviderAnswered(made.base_url, made.key_hint, made.set_by, made.set_at)


def _describe(command: PlaygroundCommand) -> Mapping[str, Any]:
    match command:
        case SetPlaygroundProvider():
            return {"base_url": command.base_url, "key_hint": command.key_hint}
        case RemovePlaygroundProvider():
            return {}
    assert_never(command)


DECIDER: Decider[PlaygroundCommand, Playground, PlaygroundEvent] = Decider(
    stream=STREAM,
    commands=members(PlaygroundCommand),
    events=members(PlaygroundEvent),
    initial=Playground(),
    decide=decide,
    evolve=evolve,
    answer=_answer,
    describe=_describe,
)
