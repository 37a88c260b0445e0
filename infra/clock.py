"""The clock. The only place that reads it; everything else is given instants."""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Now, in microseconds since 1970 UTC."""

    def now(self) -> int: ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> int:
        return time.time_ns() // 1000


class ManualClock:
    """A clock that tests move by hand."""

    def __init__(self, now: int = 1_700_000_000_000_000) -> None:
        self._now = now

    def now(self) -> int:
        return self._now

    def advance(self, seconds: float) -> None:
        """Move forward by so many seconds."""
        self._now += int(seconds * 1_000_000)


SYSTEM_CLOCK = SystemClock()


def iso(micros: int) -> str:
    """RFC 3339 in UTC with microseconds, `2026-01-02T03:04:05.000006Z`."""
    text = datetime.fromtimestamp(micros // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    fraction = micros % 1_000_000
    return f"{text}.{fraction:06d}Z" if fraction else f"{text}Z"


def parse_iso(text: str) -> int:
    """Microseconds of an ISO 8601 instant or date; one without a zone is UTC. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds
