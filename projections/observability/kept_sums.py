"""What ClickHouse keeps of LLM calls beside their rows, in every part of the table: sums by hour
and model, and by run. It reads them by itself where a query asks for no more than they hold, in
these very words, of rows as they lie (`unmerged.py`).
"""

HOUR_MICROS = 3_600_000_000
HOUR = f"intDiv(toUnixTimestamp64Micro(created_at), {HOUR_MICROS})"
"""Hours since 1970."""
HOURS_PER_DAY = 24

CALLS = "count()"
TOKENS = "sum(toInt128(total_tokens))"


def pico(of: str = "cost_pico") -> str:
    """The sum of costs. of: SQL of a call's; only the one at which it came in is kept."""
    return f"sum(toInt128({of}))"


GREATEST = {"cost": "-inf", "total_tokens": "toInt64('-9223372036854775808')"}
"""Of which the greatest is kept, too, and the least that it can be."""

BY_HOUR = (
    f"SELECT tenant, {HOUR}, model, {CALLS}, {TOKENS}, {pico()},"
    f" {', '.join(f'max({name})' for name in GREATEST)} GROUP BY tenant, {HOUR}, model"
)
BY_RUN = f"SELECT tenant, run, {CALLS}, {TOKENS}, {pico()} GROUP BY tenant, run"
