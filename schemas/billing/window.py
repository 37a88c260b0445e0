"""Windows of time, in UTC: the hour, the day or the calendar month that an instant is in."""

from calendar import monthrange
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Literal

from msgspec import Struct

WindowKind = Literal["hour", "day", "month"]
WINDOW_KINDS: tuple[WindowKind, ...] = ("hour", "day", "month")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HOUR = 3_600_000_000
_DAY = 24 * _HOUR


class Window(Struct, frozen=True, order=True):
    """From `start` on and before `end`, both in microseconds UTC."""

    kind: WindowKind
    start: int
    end: int


def window_of(kind: WindowKind, at: int) -> Window:
    """The window that the instant `at` (microseconds UTC) is in."""
    # Every instant of an hour is in the same windows, and most usage is of the same few hours.
    return _window(kind, at - at % _HOUR)


@lru_cache(maxsize=4096)
def _window(kind: WindowKind, at: int) -> Window:
    if kind == "hour":
        return Window(kind, at, at + _HOUR)
    if kind == "day":
        start = at - at % _DAY
        return Window(kind, start, start + _DAY)
    first = (_EPOCH + timedelta(microseconds=at)).replace(
        day=1, hour=0, minute=0, second=0, microsecond=0
    )
    start = (first - _EPOCH) // timedelta(microseconds=1)
    # By its days, since the month after the last one that datetime knows has no datetime.
    return Window(kind, start, start + monthrange(first.year, first.month)[1] * _DAY)
