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
FINE = {"index_granularity": 1024}
"""Rows that are read at once where one is wanted. By default they are eight times as many, of which
a page of scattered rows would unpack all the texts."""
_DAY_MILLIS = 86_400_000
_DAYS_MAX = 2**16 - 1


def filed_day(run_id: str, told: int = 0) -> int:
    """The day under which a row of a run is filed.

    told: the row's own time in microseconds, the same in each report of it, for a run whose id has
    none; 0 for nothing.
    """
    millis = made_at(run_id)
    return min((told // 1_000 if millis is None else millis) // _DAY_MILLIS, _DAYS_MAX)


def filed_days(run_ids: Any, told: Any) -> Any:
    """`filed_day` of rows. run_ids: an Arrow array; told: of each row."""
    runs = run_ids.dictionary_encode()
    names = runs.dictionary.to_pylist()
    timed = np.array([made_at(name) is not None for name in names])
    days = np.array([filed_day(name) for name in names], np.int64)
    of = runs.indices.to_numpy()
    own = np.minimum(told // (_DAY_MILLIS * 1_000), _DAYS_MAX)
    return np.where(timed[of], days[of], own)


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
