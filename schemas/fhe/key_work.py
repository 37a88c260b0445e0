"""What the API and the process that touches keys for it say to each other (JSON over a pipe)."""

from msgspec import Struct


class CheckKey(Struct, frozen=True, tag="check"):
    """Have the engine load each part of a key, whose bytes follow one after another.

    helper: the path of the program that loads those of Lattigo's, if it is built.
    """

    params_id: str
    kinds: list[str]
    sizes: list[int]
    helper: str = ""


class GenerateKeys(Struct, frozen=True, tag="generate"):
    """Make a key pair and its evaluation key. rotations: the slot steps that it allows."""

    params_id: str
    rotations: list[int]


KeyWork = CheckKey | GenerateKeys


class KeyVerdict(Struct, frozen=True):
    """Why the engine does not take the key; without a reason it does."""

    reason: str = ""
    message: str = ""
