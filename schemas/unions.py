"""A union of structs as the tuple of its members, so that who wants them all lists none again."""

from typing import Any, get_args

from msgspec import Struct


def members(union: Any) -> tuple[type[Struct], ...]:
    """The structs of `A | B`, in order; a struct alone is its only member."""
    return get_args(union) or (union,)
