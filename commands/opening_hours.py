"""Schedules: whether an instant is inside, and when it opens next. Pure."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Protocol
from zoneinfo import ZoneInfo

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MINUTES = 24 * 60
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# A week has every weekday; an opening that a change of the clock skips comes a week later.
_LOOK_AHEAD_DAYS = 15


class Hours(Protocol):
    """Times of day in a zone, on some weekdays: all of them when none is named.

    from_time, until_time: `HH:MM`, the day's start and end when None.
    """

    @property
    def timezone(self) -> str: ...
    @property
    def weekdays(self) -> Sequence[str]: ...
    @property
    def from_time(self) -> str | None: ...
    @property
    def until_time(self) -> str | None: ...


def minutes_of(clock_time: str) -> int:
    """Minutes after midnight of `HH:MM`, `24:00` included. Raises ValueError."""
    hours, _, minutes = clock_time.partition(":")
    if not (len(hours) == len(minutes) == 2 and (hours + minutes).isdecimal()):
        raise ValueError("a time of day is written HH:MM")
    total = int(hours) * 60 + int(minutes)
    if int(minutes) > 59 or total > DAY_MINUTES:
        raise ValueError("a time of day lies between 00:00 and 24:00")
    return total


def faults_of(hours: Hours) -> Iterator[tuple[str, str]]:
    """What is wrong with them: a field (empty for the whole) and what it is or needs."""
    if not known_zone(hours.timezone):
        yield "timezone", f"no such time zone: {hours.timezone[:60]!r}"
    if not hours.weekdays and hours.from_time is None and hours.until_time is None:
        yield "", "needs weekdays, from_time or until_time"
    minutes: dict[str, int] = {}
    for name, text in (
        ("from_time", "00:00" if hours.from_time is None else hours.from_time),
        ("until_time", "24:00" if hours.until_time is None else hours.until_time),
    ):
        try:
            minutes[name] = minutes_of(text)
        except ValueError as error:
            yield name, str(error)
    if minutes.get("from_time") == DAY_MINUTES:
        yield "from_time", "a day starts at 00:00"
    if len(minutes) == 2 and minutes["from_time"] == minutes["until_time"]:
        yield "until_time", "must differ from from_time"


@lru_cache(maxsize=1024)
def known_zone(name: str) -> bool:
    """Whether the IANA time zone is known here."""
    try:
        ZoneInfo(name)
    except (ValueError, OSError, KeyError):  # malformed, a folder of the database, not found
        return False
    return True


def is_open(hours: Hours, at: int) -> bool:
    """Whether the instant (microseconds UTC) lies inside."""
    local = _moment(at).astimezone(ZoneInfo(hours.timezone))
    now = local.hour * 60 + local.minute
    start, end = _minutes(hours)
    day = local
    if start < end:
        inside = start <= now < end
    else:
        # The hours run past midnight: their early part belongs to the day before.
        inside = now >= start or now < end
        if now < end:
            day = local - timedelta(days=1)
    return inside and (not hours.weekdays or WEEKDAYS[day.weekday()] in hours.weekdays)


def opens_at(hours: Hours, at: int) -> int:
    """The next instant after `at`, which is outside, at which the schedule begins."""
    zone = ZoneInfo(hours.timezone)
    local = _moment(at).astimezone(zone)
    start, _ = _minutes(hours)
    for days in range(_LOOK_AHEAD_DAYS):
        day = local.date() + timedelta(days=days)
        if hours.weekdays and WEEKDAYS[day.weekday()] not in hours.weekdays:
            continue
        opening = datetime(day.year, day.month, day.day, start // 60, start % 60, tzinfo=zone)
        moment = (opening.astimezone(UTC) - _EPOCH) // timedelta(microseconds=1)
        if moment > at:
            return moment
    raise AssertionError("a schedule opens within two weeks")


def _minutes(hours: Hours) -> tuple[int, int]:
    start = minutes_of(hours.from_time) if hours.from_time is not None else 0
    end = minutes_of(hours.until_time) if hours.until_time is not None else DAY_MINUTES
    return start, end


def _moment(at: int) -> datetime:
    return datetime.fromtimestamp(at // 1_000_000, UTC)
