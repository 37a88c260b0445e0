"""Offset pages as the Observe document has them: `results`, `count`, `next`, `previous`."""

from typing import Annotated, Any
from urllib.parse import parse_qsl, urlencode

from msgspec import Meta

from api.problems import Problem, Where
from api.routing import Call
from infra.clock import parse_iso

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


def links(call: Call[Any, Any], limit: int, offset: int, count: int) -> tuple[Any, Any]:
    """The URLs of the next and the previous page, None where there is none."""
    following = _link(call, limit, offset + limit) if offset + limit < count else None
    before = _link(call, limit, max(0, offset - limit)) if offset > 0 else None
    return following, before


def _link(call: Call[Any, Any], limit: int, offset: int) -> str:
    kept = [
        (name, value)
        for name, value in parse_qsl(call.scope["query_string"].decode("latin-1"), True)
        if name not in ("limit", "offset")
    ]
    query = urlencode([*kept, ("limit", limit), ("offset", offset)])
    return str(call.raw.url.replace(query=query))


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
