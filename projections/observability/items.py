"""What the tables of reported items share: a row per item, the first report of an id stands.

Tables of runs and of calls begin their order with the period under which a row is filed, so that
rows lie by time and what comes now meets, when duplicates are replaced, only what lies under the
same period. It has to be the same one for each report of a thing, hence not that of its arrival: it
is that of the time in the run's id. An id that derives from a trace or an Idempotency-Key has none;
then it is that of the time which the report itself brings, where it brings one (a trace does), and
else the first of all.
"""

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from infra.ids import PERSON_AT, RUN_LENGTH_OF_PERSON, made_at


class Item(Protocol):
    """Something reported of a run, with an id unique within it."""

    @property
    def id(self) -> str: ...


T = TypeVar("T", bound=Item)

TOPIC = "telemetry"
RUN_ID = "String CODEC(ZSTD(1))"
TEXT = "String CODEC(ZSTD(1))"
WORD = "LowCardinality(String)"
FILED_PERIOD = "UInt32"
"""Periods of six hours since 1970."""
NUMBER = "CODEC(T64, LZ4)"
"""What follows the type of a whole number that is summed over millions of rows: it is read twice as
fast as what isn't packed."""
_PERSON = f"if(length(run_id) = {RUN_LENGTH_OF_PERSON}, substring(run_id, {PERSON_AT + 1}, 4), '')"
_NUMBER = f"reinterpretAsUInt128(concat(substring(sipHash128(run_id), 1, 12), {_PERSON}))"
RUN = {"run": f"UInt128 MATERIALIZED {_NUMBER}"}
"""A run's id as a number, to look for many runs at once: a third of the work of doing it by text.
In the order of these numbers the runs of a person lie together: the highest 32 bits are of whom the
run is for, as its id says, and 0 where it doesn't. The others are a hash of the id: nobody chooses
run ids, so that two never share one."""
RUNS_NAMED = f"(SELECT arrayJoin({{run_ids:Array(String)}}) AS run_id, {_NUMBER} AS run)"
"""The runs that a parameter names, `run_id` and `run`."""
READ_AS_THEY_LIE = {"index_granularity": 1024, "assign_part_uuids": 1}
"""Settings of the tables of `unmerged.py`: rows that are read at once where one is wanted (by
default eight times as many, of which a page of scattered rows would unpack all the texts), and ids
of parts, so that none is taken for another that had its name."""
PERIOD_MICROS = 6 * 3_600_000_000
_PERIOD_MILLIS = PERIOD_MICROS // 1_000
_PERIODS_MAX = 2**32 - 1


def filed_period(run_id: str, told: int = 0) -> int:
    """The period under which a row of a run is filed.

    told: the row's own time in microseconds, the same in each report of it, for a run whose id has
    none; 0 for nothing.
    """
    millis = made_at(run_id)
    return min((told // 1_000 if millis is None else millis) // _PERIOD_MILLIS, _PERIODS_MAX)


def filed_periods(run_ids: Any, told: Any) -> Any:
    """`filed_period` of rows. run_ids: an Arrow array; told: of each row."""
    runs = run_ids.dictionary_encode()
    made = [made_at(name) for name in runs.dictionary.to_pylist()]
    timed = np.array([millis is not None for millis in made])
    periods = np.array([min((millis or 0) // _PERIOD_MILLIS, _PERIODS_MAX) for millis in made])
    of = runs.indices.to_numpy()
    own = np.minimum(told // PERIOD_MICROS, _PERIODS_MAX)
    return np.where(timed[of], periods[of], own)


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
