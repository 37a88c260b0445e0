"""The opaque cursors of lists: behind which row a page begins."""

import base64
import binascii
from typing import Any

from api.problems import Problem
from api.routing import Call

# Beyond every row of a list that begins with the newest.
NEWEST = (2**63 - 1, "")


def write_cursor(number: int, text: str) -> str:
    """The cursor behind a row that is ordered by a number and a text."""
    return base64.urlsafe_b64encode(f"{number}:{text}".encode()).decode()


def read_cursor(
    cursor: str, first: tuple[int, str] = NEWEST, *, status: int = 400
) -> tuple[int, str]:
    """What `write_cursor` was given; `first` without a cursor. Raises Problem of this status."""
    if not cursor:
        return first
    try:
        number, colon, text = base64.b64decode(cursor, b"-_", validate=True).decode().partition(":")
        after = int(number), text
    except (binascii.Error, ValueError):
        raise _foreign(status) from None
    if not colon or not min(0, first[0]) <= after[0] < 2**63 or "\x00" in text:
        raise _foreign(status)
    return after


def _foreign(status: int) -> Problem:
    message = "Not a cursor of ours"
    return Problem(status, "validation_error", message, field="cursor", where="query")


async def newest_page(
    call: Call[None, Any], sql: str, id_column: str, *filters: Any
) -> tuple[list[dict[str, Any]], str | None]:
    """The rows of the page that `call.query` asks for by `cursor` and `limit`, newest first, and
    the cursor of the page after it, if there is one.

    sql: its parameters are the tenant, the filters, `(created_at, id)` of the last row seen, and
    the limit. Raises Problem (400) for a cursor that is not ours.
    """
    after, limit = read_cursor(call.query.cursor), call.query.limit
    rows = await call.services.reads.all(sql, call.tenant, *filters, *after, limit + 1)
    if len(rows) <= limit:
        return rows, None
    last = rows[limit - 1]
    return rows[:limit], write_cursor(last["created_at"], last[id_column])
