"""The clock. The only place that reads it; everything else is given instants."""

import time
from typing import Protocol

from schemas.instants import iso, parse_iso

__all__ = ["SYSTEM_CLOCK", "Clock", "ManualClock", "SystemClock", "iso", "parse_iso"]


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
