"""What the tables of reported items share: a row per item, the first report of an id stands.

Tables of runs and of calls begin their order with the day under which a row is filed, so that rows
lie by time and what comes now meets, when duplicates are replaced, only what lies under the same
day. It has to be the same day for each report of one thing, hence not that of its arrival: it is
the day in the run's id. An id that derives from a trace or an Idempotency-Key has none; then it is
the day that the report itself brings, where it brings one, and else the first of all days.
"""

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from infra.ids import made_at


class Item(Protocol):
    """Something reported of a run, with an id unique within it."""

    @property
    def id(self) -> str: ...


T = TypeVar("T", bound=Item)

TOPIC = "telemetry"
RUN_ID = "String CODEC(ZSTD(1))"
TEXT = "String CODEC(ZSTD(1))"
WORD = "LowCardinality(String)"
FILED_DAY = "UInt16"
"""Days since 1970."""
NUMBER = "CODEC(T64, LZ4)"
"""What follows the type of a whole number that is summed over millions of rows: it is read twice as
fast as what isn't packed."""
RUN = {"run": "UInt128 MATERIALIZED reinterpretAsUInt128(sipHash128(run_id))"}
"""A run's id as a number, to look for many runs at once: a third of the work of doing it by text.
Nobody chooses run ids, so that two never share one."""
RUNS_NAMED = "(SELECT reinterpretAsUInt128(sipHash128(arrayJoin({run_ids:Array(String)}))))"
"""The numbers of the runs that a parameter names."""
_DAY_MILLIS = 86_400_000
_DAYS_MAX = 2**16 - 1


def filed_day(run_id: str) -> int:
    """The day under which the rows of a run are filed; 0 when its id has no time."""
    millis = made_at(run_id)
    return 0 if millis is None else min(millis // _DAY_MILLIS, _DAYS_MAX)


def filed_days(run_ids: Any, told: Any) -> Any:
    """The day of each item of the runs. told: what each says itself of its time, in microseconds,
    for runs whose ids have none; 0 for nothing."""
    import pyarrow as pa

    runs = pa.array(run_ids).dictionary_encode()
    days = np.array([filed_day(run_id) for run_id in runs.dictionary.to_pylist()], np.int64)
    found = days[runs.indices.to_numpy()]
    own = np.clip(told // (_DAY_MILLIS * 1_000), 0, _DAYS_MAX)
    return np.where(found > 0, found, own)


def first_reports(items: Sequence[T]) -> Sequence[T]:
    """Items without those whose id came before in the same record."""
    if len({item.id for item in items}) == len(items):
        return items
    seen: set[str] = set()
    first: list[T] = []
    for item in items:
        if item.id not in seen:
            seen.add(item.id)
            first.append(item)
    return first
