"""Events of the prompts domain."""

from msgspec import Struct

from schemas.prompts.playground import PlaygroundEvent
from schemas.prompts.prompt import PromptEvent
from schemas.unions import members

EVENTS: list[type[Struct]] = [
    *members(PromptEvent),
    *members(PlaygroundEvent),
]
