"""Windows of time: UTC hours, days and calendar months."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.clock import parse_iso
from schemas.billing.window import WINDOW_KINDS, WindowKind, window_of

LAST = 253_402_300_799_999_999  # the last microsecond of the year 9999


@pytest.mark.parametrize(
    ("kind", "at", "start", "end"),
    [
        ("hour", "2026-03-01T10:59:59.999999Z", "2026-03-01T10:00:00Z", "2026-03-01T11:00:00Z"),
        ("day", "2026-03-01T00:00:00Z", "2026-03-01T00:00:00Z", "2026-03-02T00:00:00Z"),
        ("month", "2024-02-29T12:00:00Z", "2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z"),
        ("month", "2025-12-31T23:59:59Z", "2025-12-01T00:00:00Z", "2026-01-01T00:00:00Z"),
    ],
)
def test_a_window_holds_its_instant(kind: WindowKind, at: str, start: str, end: str) -> None:
    window = window_of(kind, parse_iso(at))
    assert (window.start, window.end) == (parse_iso(start), parse_iso(end))


@given(st.sampled_from(WINDOW_KINDS), st.integers(0, LAST - 32 * 86_400_000_000))
def test_windows_cover_time_without_overlap(kind: WindowKind, at: int) -> None:
    window = window_of(kind, at)
    assert window.start <= at < window.end
    assert window_of(kind, window.start) == window_of(kind, window.end - 1) == window
    assert window_of(kind, window.end).start == window.end
    assert datetime.fromtimestamp(window.start // 1_000_000, UTC).minute == 0
