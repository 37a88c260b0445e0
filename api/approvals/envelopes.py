"""What Waitroom's answers are wrapped in, for OpenAPI, and its opaque cursors."""

import base64
import binascii
from typing import Annotated, Generic, TypeVar

from msgspec import Meta, Struct

from api.problems import Problem
from schemas.types import Text

T = TypeVar("T")

# Behind any row: where the first page begins.
FIRST = (2**63 - 1, "")
Limit = Annotated[int, Meta(ge=1, le=100)]
Cursor = Annotated[Text, Meta(max_length=200)]


class Data(Struct, Generic[T], frozen=True):
    """One thing."""

    data: T


class Page(Struct, Generic[T], frozen=True):
    """A page of things, newest first; `cursor` asks for the next one while `has_more`."""

    data: list[T]
    cursor: str | None
    has_more: bool


class PageQuery(Struct, frozen=True):
    """Which page of a list."""

    limit: Limit = 50
    cursor: Cursor = ""


def cursor_of(at: int, id: str) -> str:
    """The cursor behind a row made at `at` (microseconds)."""
    return base64.urlsafe_b64encode(f"{at}:{id}".encode()).decode().rstrip("=")


def after(cursor: str) -> tuple[int, str]:
    """What a cursor stands for; FIRST for an empty one. Raises Problem (400)."""
    if not cursor:
        return FIRST
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        at, _, id = base64.b64decode(padded, b"-_", validate=True).decode().partition(":")
        found = int(at), id
    except (binascii.Error, ValueError):
        found = (-1, "")
    if not 0 <= found[0] < 2**63 or "\x00" in found[1]:
        raise Problem(
            400, "validation_error", "Not a cursor of ours", field="cursor", where="query"
        )
    return found
