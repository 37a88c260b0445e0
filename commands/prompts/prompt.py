"""`prompts.prompt`: a named text for models, with numbered versions and labels that point at them.

The state knows how many versions there are and where labels point; contents are in the events and
in the read model, so that the state does not grow with what is written.
"""

from collections.abc import Mapping, Sequence
from typing import Any, assert_never

from msgspec import Struct

from commands.decider import Claim, Context, Decider, Lookup, Ref, Release
from commands.prompts.content import overridden
from commands.prompts.prompt_state import Prompt, PromptAnswered, answered, evolve
from commands.refusals import AlreadyDone, NotFound, Refusal
from schemas.prompts.prompt import (
    PromptCreated,
    PromptDeleted,
    PromptDescribed,
    PromptEvent,
    PromptLabelMoved,
    PromptLabelRemoved,
    PromptRenamed,
    PromptType,
    PromptVersionAdded,
)
from schemas.types import EMPTY_JSON, Count, Json, Sha256, Text
from schemas.unions import members

STREAM = "prompts.prompt"
NAME = "prompts.prompt_name"
VERSIONS_MAX = 10_000
LABELS_MAX = 100
MOVES_MAX = 100_000
"""Of a prompt's labels together: they are all kept, and all go when the prompt is deleted."""


class CreatePrompt(Struct, frozen=True, tag="prompts.create_prompt.v1"):
    """Make a prompt with its first version. `config` is the default of every version's."""

    name: Text
    content: Json
    content_hash: Sha256
    created_by: Text
    prompt_type: PromptType = "text"
    description: Text = ""
    tags: list[Text] = []
    metadata: Json = EMPTY_JSON
    config: Json = EMPTY_JSON
    commit_message: Text = ""


class AddPromptVersion(Struct, frozen=True, tag="prompts.add_prompt_version.v1"):
    """Make the next version. `config` overrides members of the prompt's own."""

    content: Json
    content_hash: Sha256
    created_by: Text
    config: Json = EMPTY_JSON
    commit_message: Text = ""


class RevisePrompt(Struct, frozen=True, tag="prompts.revise_prompt.v1"):
    """Change what a prompt is called and said to be; None leaves a field as it is."""

    name: Text | None = None
    description: Text | None = None
    tags: list[Text] | None = None
    metadata: Json | None = None


class MovePromptLabel(Struct, frozen=True, tag="prompts.move_prompt_label.v1"):
    """Point a label at a version, forward or back."""

    label: Text
    version: Count
    moved_by: Text


class RemovePromptLabel(Struct, frozen=True, tag="prompts.remove_prompt_label.v1"):
    """Take a label away."""

    label: Text
    moved_by: Text


class DeletePrompt(Struct, frozen=True, tag="prompts.delete_prompt.v1"):
    """Delete a prompt with all that belongs to it."""


PromptCommand = (
    CreatePrompt
    | AddPromptVersion
    | RevisePrompt
    | MovePromptLabel
    | RemovePromptLabel
    | DeletePrompt
)


class PromptNotFound(NotFound):
    """The tenant has no such prompt."""


class VersionNotFound(NotFound):
    """The prompt has no such version."""


class LabelNotFound(NotFound):
    """The prompt has no such label."""


class PromptNameTaken(AlreadyDone):
    """Another prompt of the tenant has the name."""


class PromptExists(AlreadyDone):
    """A prompt with this id exists, or did, and is not what was asked for."""


class PromptFull(Refusal):
    """The prompt has as many versions, labels or moves of them as it may have."""

    code = "prompt_full"


class VersionAnswered(Struct, frozen=True):
    """What a caller is told of a new version."""

    version: int
    content_hash: str
    commit_message: str
    created_by: str
    created_at: int


class LabelAnswered(Struct, frozen=True):
    """Where a label points; created: it pointed nowhere before."""

    label: str
    version: int
    created: bool


def loads(command: PromptCommand, prompt_id: str) -> Sequence[Lookup | Ref]:
    match command:
        case CreatePrompt():
            return (Lookup(NAME, command.name),)
        case RevisePrompt() if command.name is not None:
            return (Lookup(NAME, command.name),)
        case MovePromptLabel():
            # As it was before: the answer says whether the label is new.
            return (Ref(STREAM, prompt_id),)
    return ()


def decide(command: PromptCommand, prompt: Prompt, context: Context) -> Sequence[PromptEvent]:
    """Raises the refusals above."""
    if isinstance(command, CreatePrompt):
        return _create(command, prompt, context)
    if not prompt.name:
        raise PromptNotFound("no such prompt")
    match command:
        case AddPromptVersion():
            if prompt.versions >= VERSIONS_MAX:
                raise PromptFull(f"a prompt has at most {VERSIONS_MAX} versions")
            config = overridden(prompt.config, command.config)
            return [_version(command, prompt.versions + 1, config, context)]
        case RevisePrompt():
            return _revise(command, prompt, context)
        case MovePromptLabel():
            return _move(command, prompt, context)
        case RemovePromptLabel():
            version = prompt.labels.get(command.label)
            if version is None:
                raise LabelNotFound("the prompt has no such label")
            return [
                PromptLabelRemoved(
                    command.label, version, prompt.moves + 1, command.moved_by, context.now
                )
            ]
        case DeletePrompt():
            labels = sorted(prompt.labels)
            return [PromptDeleted(prompt.name, prompt.versions, labels, prompt.moves, context.now)]
    assert_never(command)


def _create(command: CreatePrompt, prompt: Prompt, context: Context) -> Sequence[PromptEvent]:
    if prompt.name or prompt.deleted:
        if _describes(command, prompt):
            return []
        raise PromptExists("a prompt with this id exists, or did, and is another")
    _refuse_taken(command.name, context)
    created = PromptCreated(
        name=command.name,
        description=command.description,
        prompt_type=command.prompt_type,
        tags=command.tags,
        metadata=command.metadata,
        config=command.config,
        created_by=command.created_by,
        created_at=context.now,
    )
    return [created, _version(command, 1, command.config, context)]


def _describes(command: CreatePrompt, prompt: Prompt) -> bool:
    fields = ("name", "description", "prompt_type", "tags", "metadata", "config")
    same = all(getattr(command, field) == getattr(prompt, field) for field in fields)
    return same and command.content_hash == prompt.first_hash


def _version(
    command: CreatePrompt | AddPromptVersion, number: int, config: str, context: Context
) -> PromptVersionAdded:
    return PromptVersionAdded(
        version=number,
        content=command.content,
        content_hash=command.content_hash,
        config=config,
        commit_message=command.commit_message,
        created_by=command.created_by,
        created_at=context.now,
    )


def _revise(command: RevisePrompt, prompt: Prompt, context: Context) -> Sequence[PromptEvent]:
    events: list[PromptEvent] = []
    if command.name is not None and command.name != prompt.name:
        _refuse_taken(command.name, context)
        events.append(PromptRenamed(command.name, prompt.name, context.now))
    description = prompt.description if command.description is None else command.description
    tags = prompt.tags if command.tags is None else command.tags
    metadata = prompt.metadata if command.metadata is None else command.metadata
    if (description, tags, metadata) != (prompt.description, prompt.tags, prompt.metadata):
        events.append(PromptDescribed(description, tags, metadata, context.now))
    return events


def _refuse_taken(name: str, context: Context) -> None:
    if context.find(NAME, name) is not None:
        raise PromptNameTaken(f"name: a prompt is called {name!r} already", field="name")


def _move(command: MovePromptLabel, prompt: Prompt, context: Context) -> Sequence[PromptEvent]:
    if not 1 <= command.version <= prompt.versions:
        raise VersionNotFound(f"version: the prompt has no version {command.version}")
    before = prompt.labels.get(command.label, 0)
    if before == command.version:
        return []
    if not before and len(prompt.labels) >= LABELS_MAX:
        raise PromptFull(f"a prompt has at most {LABELS_MAX} labels")
    if prompt.moves >= MOVES_MAX:
        raise PromptFull(f"the labels of a prompt move at most {MOVES_MAX} times")
    moved_by, number = command.moved_by, prompt.moves + 1
    return [PromptLabelMoved(command.label, command.version, before, number, moved_by, context.now)]


def claims(event: PromptEvent, prompt_id: str) -> Sequence[Claim | Release]:
    match event:
        case PromptCreated():
            return (Claim(NAME, event.name),)
        case PromptRenamed():
            return (Release(NAME, event.old_name), Claim(NAME, event.name))
        case PromptDeleted():
            return (Release(NAME, event.name),)
    return ()


def answer(
    command: PromptCommand, prompt: Prompt, context: Context
) -> PromptAnswered | VersionAnswered | LabelAnswered | None:
    match command:
        case CreatePrompt() | RevisePrompt():
            return answered(context.stream_id, prompt)
        case AddPromptVersion():
            return VersionAnswered(
                version=prompt.versions,
                content_hash=command.content_hash,
                commit_message=command.commit_message,
                created_by=command.created_by,
                created_at=prompt.updated_at,
            )
        case MovePromptLabel():
            before: Prompt = context.state(STREAM, context.stream_id)
            return LabelAnswered(
                command.label, command.version, created=command.label not in before.labels
            )
        case RemovePromptLabel() | DeletePrompt():
            return None
    assert_never(command)


def describe(command: PromptCommand) -> Mapping[str, Any]:
    """Hashes stand for contents, names for fields: the audit trail says which, not what."""
    match command:
        case CreatePrompt():
            return {"name": command.name, "content_hash": command.content_hash}
        case AddPromptVersion():
            return {
                "content_hash": command.content_hash,
                "commit_message": command.commit_message,
            }
        case RevisePrompt():
            fields = command.__struct_fields__
            given = [field for field in fields if getattr(command, field) is not None]
            return {"name": command.name, "fields": given}
        case MovePromptLabel():
            return {"label": command.label, "version": command.version}
        case RemovePromptLabel():
            return {"label": command.label}
        case DeletePrompt():
            return {}
    assert_never(command)


DECIDER: Decider[PromptCommand, Prompt, PromptEvent] = Decider(
    stream=STREAM,
    commands=members(PromptCommand),
    events=members(PromptEvent),
    initial=Prompt(),
    decide=decide,
    evolve=evolve,
    loads=loads,
    claims=claims,
    answer=answer,
    describe=describe,
)
