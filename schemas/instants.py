"""Instants: microseconds since 1970 UTC inside, RFC 3339 text outside."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache

_EPOCH = datetime(1970, 1, 1)  # naive: everything here is UTC
_AWARE_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


# A batch happens at one instant, which every record of it names several times.
@lru_cache(maxsize=1024)
def iso(micros: int) -> str:
    """RFC 3339 in UTC with microseconds, `2026-01-02T03:04:05.000006Z`; no fraction when zero."""
    return (_EPOCH + timedelta(microseconds=micros)).isoformat() + "Z"


def iso_or_none(micros: int | None) -> str | None:
    """`iso` of an instant that may not have come."""
    return None if micros is None else iso(micros)


def parse_iso(text: str) -> int:
    """Microseconds of an ISO 8601 instant or date; one without a zone is UTC. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    delta = moment - _AWARE_EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds
