"""Events of the prompts domain."""

from msgspec import Struct

from schemas.prompts.playground import PlaygroundProviderRemoved, PlaygroundProviderSet
from schemas.prompts.prompt import (
    PromptCreated,
    PromptDeleted,
    PromptDescribed,
    PromptLabelMoved,
    PromptLabelRemoved,
    PromptRenamed,
    PromptVersionAdded,
)

EVENTS: list[type[Struct]] = [
    PromptCreated,
    PromptVersionAdded,
    PromptRenamed,
    PromptDescribed,
    PromptLabelMoved,
    PromptLabelRemoved,
    PromptDeleted,
    PlaygroundProviderSet,
    PlaygroundProviderRemoved,
]
