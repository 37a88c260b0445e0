"""The state of a prompt, and how events change it."""

from typing import assert_never

import msgspec
from msgspec import Struct

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
from schemas.types import EMPTY_JSON, Json


class Prompt(Struct, frozen=True):
    """The state of a prompt; without a name it does not exist. Instants are microseconds UTC."""

    name: str = ""
    description: str = ""
    prompt_type: PromptType = "text"
    tags: list[str] = []
    metadata: Json = EMPTY_JSON
    config: Json = EMPTY_JSON
    created_by: str = ""
    created_at: int = 0
    updated_at: int = 0
    first_hash: str = ""
    versions: int = 0
    labels: dict[str, int] = {}
    moves: int = 0
    deleted: bool = False


def evolve(prompt: Prompt, event: PromptEvent) -> Prompt:
    replace = msgspec.structs.replace
    match event:
        case PromptCreated():
            return Prompt(
                name=event.name,
                description=event.description,
                prompt_type=event.prompt_type,
                tags=event.tags,
                metadata=event.metadata,
                config=event.config,
                created_by=event.created_by,
                created_at=event.created_at,
                updated_at=event.created_at,
            )
        case PromptVersionAdded():
            return replace(
                prompt,
                versions=event.version,
                first_hash=prompt.first_hash or event.content_hash,
                updated_at=event.created_at,
            )
        case PromptRenamed():
            return replace(prompt, name=event.name, updated_at=event.renamed_at)
        case PromptDescribed():
            return replace(
                prompt,
                description=event.description,
                tags=event.tags,
                metadata=event.metadata,
                updated_at=event.described_at,
            )
        case PromptLabelMoved():
            return replace(
                prompt,
                labels={**prompt.labels, event.label: event.version},
                moves=event.move,
                updated_at=event.moved_at,
            )
        case PromptLabelRemoved():
            labels = {name: at for name, at in prompt.labels.items() if name != event.label}
            return replace(prompt, labels=labels, moves=event.move, updated_at=event.moved_at)
        case PromptDeleted():
            return Prompt(deleted=True)
    assert_never(event)


class PromptAnswered(Struct, frozen=True):
    """What a caller is told of a prompt."""

    id: str
    name: str
    description: str
    prompt_type: PromptType
    tags: list[str]
    metadata: Json
    config: Json
    latest_version: int
    labels: list[str]
    created_by: str
    created_at: int
    updated_at: int


def answered(prompt_id: str, prompt: Prompt) -> PromptAnswered:
    """A prompt as it stands."""
    return PromptAnswered(
        id=prompt_id,
        name=prompt.name,
        description=prompt.description,
        prompt_type=prompt.prompt_type,
        tags=prompt.tags,
        metadata=prompt.metadata,
        config=prompt.config,
        latest_version=prompt.versions,
        labels=sorted(prompt.labels),
        created_by=prompt.created_by,
        created_at=prompt.created_at,
        updated_at=prompt.updated_at,
    )
