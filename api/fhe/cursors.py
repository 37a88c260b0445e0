"""The opaque cursors of this surface: where a page, newest first, went on from."""

import base64
import binascii

from api.problems import Problem

# Beyond every row: a page without a cursor begins with the newest.
FIRST = (2**63 - 1, "")


def write_cursor(created_at: int, id: str) -> str:
    """The cursor behind a row."""
    return base64.urlsafe_b64encode(f"{created_at}:{id}".encode()).decode()


def read_cursor(cursor: str) -> tuple[int, str]:
    """`(created_at, id)` of the last row seen; `FIRST` without a cursor. Raises Problem (400)."""
    if not cursor:
        return FIRST
    try:
        created_at, _, id = base64.b64decode(cursor, b"-_", validate=True).decode().partition(":")
        after = int(created_at), id
    except (binascii.Error, ValueError):
        raise _foreign() from None
    if not 0 <= after[0] < 2**63 or "\x00" in id:
        raise _foreign()
    return after


def _foreign() -> Problem:
    message = "Not a cursor of ours"
    return Problem(400, "validation_error", message, field="cursor", where="query")
