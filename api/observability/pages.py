"""Pages as the Observe document has them: `results`, `count`, `next`, `previous`; and cursors.

An offset passes over rows one by one, and rows that arrive meanwhile shift it. A cursor holds the
place of a page's last row, so that the next page begins behind it, at any depth and whatever has
arrived.
"""

import base64
import binascii
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple
from urllib.parse import parse_qsl, urlencode

import msgspec
from msgspec import Meta

from api.problems import Problem, Where
from api.routing import Call
from infra.clock import parse_iso
from projections.observability.ordering import Kind, Order, Place, Window

DEFAULT_LIMIT = 25
MAX_LIMIT = 100
MAX_OFFSET = 1_000_000
_DAY = 86_400_000_000
_LATEST = 253_402_300_799_999_999  # the end of the year 9999

# More than the largest page is read as the largest page.
Limit = Annotated[
    int,
    Meta(ge=1, le=2**31 - 1, description=f"Page size, at most {MAX_LIMIT}; a larger one is cut"),
]
Offset = Annotated[int, Meta(ge=0, le=MAX_OFFSET)]
# Of a list that has cursors, too: whoever goes deeper is told of them.
DeepOffset = Annotated[
    int, Meta(ge=0, le=2**31 - 1, description=f"How deep the page lies, at most {MAX_OFFSET}")
]
Cursor = Annotated[
    str, Meta(max_length=8_192, description="The `next_cursor` of the page before, at any depth")
]


class Listing(NamedTuple):
    """A list in one of its orders. Cursors are bound to the name, which says both."""

    name: str
    order: Order


class Shown(NamedTuple):
    """The rows of a page, and how to come to its neighbours."""

    rows: Sequence[Mapping[str, Any]]
    next: str | None
    previous: str | None
    next_cursor: str | None


def window(asked: Any, listing: Listing) -> Window:
    """The page that a query's `limit`, `offset` and `cursor` ask for; a cursor counts alone.

    Raises Problem.
    """
    limit = min(asked.limit, MAX_LIMIT)
    if asked.cursor:
        return Window(limit, 0, _read_cursor(asked.cursor, listing))
    if asked.offset > MAX_OFFSET:
        raise Problem(
            400,
            "validation_error",
            f"An offset reaches {MAX_OFFSET} rows deep; go on with next_cursor",
            field="offset",
            where="query",
        )
    return Window(limit, asked.offset, None)


def shown(
    call: Call[Any, Any],
    page: Window,
    listing: Listing,
    rows: Sequence[Mapping[str, Any]],
    count: int,
) -> Shown:
    """A page of the rows found, of which one more than the limit was asked for.

    count: of the whole list. The links go on as the page was asked for, by offset or by cursor; by
    cursor also where an offset would reach too deep, and by cursor there is no way back.
    """
    limit, offset = page.limit, page.offset
    cursor = None
    if len(rows) > limit:
        cursor = _write_cursor(listing, rows[limit - 1])
    following, before = links(call, limit, offset, count)
    if page.behind is not None or offset + limit > MAX_OFFSET:
        following = _link(call, limit, cursor=cursor) if cursor else None
    return Shown(rows[:limit], following, before, cursor)


def links(
    call: Call[Any, Any], limit: int, offset: int, count: int
) -> tuple[str | None, str | None]:
    """The URLs of the next and the previous page by offset, None where there is none."""
    following = _link(call, limit, offset=offset + limit) if offset + limit < count else None
    before = _link(call, limit, offset=max(0, offset - limit)) if offset > 0 else None
    return following, before


def _link(call: Call[Any, Any], limit: int, **place: Any) -> str:
    kept = [
        (name, value)
        for name, value in parse_qsl(call.scope["query_string"].decode("latin-1"), True)
        if name not in ("limit", "offset", "cursor")
    ]
    query = urlencode([*kept, ("limit", limit), *place.items()])
    return str(call.raw.url.replace(query=query))


def _write_cursor(listing: Listing, row: Mapping[str, Any]) -> str:
    document = msgspec.json.encode([listing.name, *listing.order.place(row)])
    return base64.urlsafe_b64encode(document).decode().rstrip("=")


def _read_cursor(cursor: str, listing: Listing) -> Place:
    foreign = Problem(
        400, "validation_error", "Not a cursor of this list", field="cursor", where="query"
    )
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        document = base64.b64decode(padded, b"-_", validate=True)
        of, *place = msgspec.json.decode(document, type=list[str | int | float])
    except (binascii.Error, ValueError):
        raise foreign from None
    kinds = [key.kind for key in listing.order.keys]
    if of != listing.name or len(place) != len(kinds) or not all(map(_fits, place, kinds)):
        raise foreign
    return place


def _fits(value: Any, kind: Kind) -> bool:
    match kind:
        case "text":
            return isinstance(value, str) and "\0" not in value
        case "float":
            return isinstance(value, int | float) and math.isfinite(value)
        case "instant":
            return isinstance(value, int) and 0 <= value <= _LATEST
        case "integer":
            return isinstance(value, int) and -(2**63) <= value < 2**63


def instant(text: str, field: str, *, end: bool = False, where: Where = "query") -> int | None:
    """Microseconds of an ISO 8601 instant or date; None for no text. Raises Problem.

    end: a bound that is not included itself, so that a date includes its day and an instant its
    microsecond.
    """
    if not text:
        return None
    if "T" in text:
        text = text.replace(" ", "+")  # a `+` that was not percent-encoded
    try:
        moment = parse_iso(text)
    except (ValueError, OverflowError):
        raise Problem(
            400,
            "validation_error",
            "Expected an ISO 8601 date or time",
            field=field,
            where=where,
        ) from None
    if end:
        moment += 1 if "T" in text or ":" in text else _DAY
    return min(max(moment, 0), _LATEST)
