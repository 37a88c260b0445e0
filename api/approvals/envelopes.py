"""What Waitroom's answers are wrapped in, as values and for OpenAPI, and its opaque cursors."""

from collections.abc import Callable, Collection, Sequence
from typing import Annotated, Any, Generic, TypeVar

from msgspec import Meta, Struct

from api.cursors import read_cursor, write_cursor
from schemas.types import Text

T = TypeVar("T")

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


def data(value: Any) -> dict[str, Any]:
    """The answer of one thing."""
    return {"data": value}


def page(items: Collection[Any], cursor: str | None = None, has_more: bool = False) -> Any:
    """The answer of a list."""
    return {"data": items, "cursor": cursor, "has_more": has_more}


def page_of(
    rows: Sequence[Any], limit: int, item_of: Callable[[Any], Any], at_column: str = "created_at"
) -> Any:
    """The answer of a list, from up to `limit + 1` of its rows, ordered by `at_column` and id."""
    more, shown = len(rows) > limit, rows[:limit]
    cursor = cursor_of(shown[-1][at_column], shown[-1]["id"]) if more else None
    return page([item_of(row) for row in shown], cursor, more)


class PageQuery(Struct, frozen=True):
    """Which page of a list."""

    limit: Limit = 50
    cursor: Cursor = ""


def cursor_of(at: int, id: str) -> str:
    """The cursor behind a row made at `at` (microseconds)."""
    return write_cursor(at, id).rstrip("=")


def after(cursor: str) -> tuple[int, str]:
    """What a cursor stands for; the newest for an empty one. Raises Problem (400)."""
    return read_cursor(cursor + "=" * (-len(cursor) % 4))
