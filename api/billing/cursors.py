"""The opaque cursors of billing's lists, and the instants of its queries."""

import base64
import binascii

from api.problems import Problem, Where
from infra.clock import parse_iso

# Beyond every instant that an event can have.
LAST_MICROS = 253_402_300_799_999_999


def write_cursor(number: int, text: str) -> str:
    """The cursor behind a row that is ordered by a number and a text."""
    return base64.urlsafe_b64encode(f"{number}:{text}".encode()).decode()


def read_cursor(cursor: str, first: tuple[int, str]) -> tuple[int, str]:
    """What `write_cursor` was given; `first` without a cursor. Raises Problem (422)."""
    if not cursor:
        return first
    try:
        number, colon, text = base64.b64decode(cursor, b"-_", validate=True).decode().partition(":")
        after = int(number), text
    except (binascii.Error, ValueError):
        raise _foreign() from None
    if not colon or not -1 <= after[0] < 2**63 or "\x00" in text:
        raise _foreign()
    return after


def _foreign() -> Problem:
    return Problem(422, "validation_error", "Not a cursor of ours", field="cursor", where="query")


def instant(text: str, field: str, default: int, where: Where = "query") -> int:
    """Microseconds of an ISO 8601 instant; `default` for an empty text. Raises Problem (422)."""
    if not text:
        return default
    try:
        at = parse_iso(text)
        if not 0 <= at <= LAST_MICROS:
            raise ValueError(text)
    except (ValueError, OverflowError):
        message = "Give an instant as ISO 8601 has it, such as 2026-01-02T03:04:05Z"
        raise Problem(422, "validation_error", message, field=field, where=where) from None
    return at
