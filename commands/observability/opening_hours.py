"""Schedules: whether an instant is inside, and when it opens next. Pure."""

from datetime import UTC, datetime, timedelta
from typing import get_args
from zoneinfo import ZoneInfo

from schemas.observability.policy import DayName, ScheduleRule

DAY_MINUTES = 24 * 60
_DAYS: tuple[DayName, ...] = get_args(DayName)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# A week has every weekday; an opening that a change of the clock skips comes a week later.
_LOOK_AHEAD_DAYS = 15


def minutes_of(clock_time: str) -> int:
    """Minutes after midnight of `HH:MM`, `24:00` included. Raises ValueError."""
    hours, _, minutes = clock_time.partition(":")
    if not (len(hours) == len(minutes) == 2 and (hours + minutes).isdecimal()):
        raise ValueError("a time of day is written HH:MM")
    total = int(hours) * 60 + int(minutes)
    if int(minutes) > 59 or total > DAY_MINUTES:
        raise ValueError("a time of day lies between 00:00 and 24:00")
    return total


def is_open(rule: ScheduleRule, at: int) -> bool:
    """Whether the instant (microseconds UTC) lies inside."""
    local = _moment(at).astimezone(ZoneInfo(rule.timezone))
    now = local.hour * 60 + local.minute
    start, end = _hours(rule)
    day = local
    if start < end:
        inside = start <= now < end
    else:
        # The hours run past midnight: their early part belongs to the day before.
        inside = now >= start or now < end
        if now < end:
            day = local - timedelta(days=1)
    return inside and (not rule.weekdays or _DAYS[day.weekday()] in rule.weekdays)


def opens_at(rule: ScheduleRule, at: int) -> int:
    """The next instant after `at`, which is outside, at which the schedule begins."""
    zone = ZoneInfo(rule.timezone)
    local = _moment(at).astimezone(zone)
    start, _ = _hours(rule)
    for days in range(_LOOK_AHEAD_DAYS):
        day = local.date() + timedelta(days=days)
        if rule.weekdays and _DAYS[day.weekday()] not in rule.weekdays:
            continue
        opening = datetime(day.year, day.month, day.day, start // 60, start % 60, tzinfo=zone)
        moment = (opening.astimezone(UTC) - _EPOCH) // timedelta(microseconds=1)
        if moment > at:
            return moment
    raise AssertionError("a schedule opens within two weeks")


def _hours(rule: ScheduleRule) -> tuple[int, int]:
    start = minutes_of(rule.from_time) if rule.from_time is not None else 0
    end = minutes_of(rule.until_time) if rule.until_time is not None else DAY_MINUTES
    return start, end


def _moment(at: int) -> datetime:
    return datetime.fromtimestamp(at // 1_000_000, UTC)
