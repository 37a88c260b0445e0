"""What the API and the process that touches keys for it say to each other (JSON over a pipe)."""

from msgspec import Struct


class CheckKey(Struct, frozen=True, tag="check"):
    """Have the engine load each part of a key, whose bytes follow one after another."""

    params_id: str
    kinds: list[str]
    sizes: list[int]


class GenerateKeys(Struct, frozen=True, tag="generate"):
    """Make a key pair and its evaluation key. rotations: the slot steps that it allows."""

    params_id: str
    rotations: list[int]


KeyWork = CheckKey | GenerateKeys


class KeyVerdict(Struct, frozen=True):
    """Why the engine does not take the key; without a reason it does."""

    reason: str = ""
    message: str = ""
