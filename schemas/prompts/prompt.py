"""Events of `prompts.prompt`: a named text for models, its versions, and the labels that point at
them. Content never changes: another content is another version."""

from typing import Literal

from msgspec import Struct

from schemas.types import Count, Json, Micros, Sha256, Text

PromptType = Literal["text", "chat"]


class PromptCreated(Struct, frozen=True, tag="prompts.prompt_created.v1"):
    """A prompt was made; its name is unique in the tenant. Its first version follows at once."""

    name: Text
    description: Text
    prompt_type: PromptType
    tags: list[Text]
    metadata: Json
    config: Json
    created_by: Text
    created_at: Micros


class PromptVersionAdded(Struct, frozen=True, tag="prompts.prompt_version_added.v1"):
    """The next version, 1 being the first.

    content: as Python writes it (`json.dumps`). content_hash: SHA-256 of the same with sorted keys.
    config: the prompt's own with what this version overrides.
    """

    version: Count
    content: Json
    content_hash: Sha256
    config: Json
    commit_message: Text
    created_by: Text
    created_at: Micros


class PromptRenamed(Struct, frozen=True, tag="prompts.prompt_renamed.v1"):
    """The prompt is found by another name, and the old one is free."""

    name: Text
    old_name: Text
    renamed_at: Micros


class PromptDescribed(Struct, frozen=True, tag="prompts.prompt_described.v1"):
    """Description, tags and metadata as they are from now on."""

    description: Text
    tags: list[Text]
    metadata: Json
    described_at: Micros


class PromptLabelMoved(Struct, frozen=True, tag="prompts.prompt_label_moved.v1"):
    """A label points at `version`.

    from_version: where it pointed before, 0 for nowhere. move: the number of this change among
    those of the prompt's labels, 1 and up.
    """

    label: Text
    version: Count
    from_version: Count
    move: Count
    moved_by: Text
    moved_at: Micros


class PromptLabelRemoved(Struct, frozen=True, tag="prompts.prompt_label_removed.v1"):
    """A label points nowhere any more."""

    label: Text
    from_version: Count
    move: Count
    moved_by: Text
    moved_at: Micros


class PromptDeleted(Struct, frozen=True, tag="prompts.prompt_deleted.v1"):
    """The prompt is gone with its versions, its labels and their history, and its name is free."""

    name: Text
    versions: Count
    labels: list[Text]
    moves: Count
    deleted_at: Micros


PromptEvent = (
    PromptCreated
    | PromptVersionAdded
    | PromptRenamed
    | PromptDescribed
    | PromptLabelMoved
    | PromptLabelRemoved
    | PromptDeleted
)
