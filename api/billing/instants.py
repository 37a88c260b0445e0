"""The instants of billing's queries."""

from api.problems import Problem, Where
from infra.clock import parse_iso

# Beyond every instant that an event can have.
LAST_MICROS = 253_402_300_799_999_999


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
