"""Rows of one view on their way to one insert, with the range of each partition they cover.

Rows lie in the order of the log, so that of two halves the first is complete before the second: a
table knows by its greatest offset how far it is.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import msgspec
import numpy as np
import pyarrow as pa

from projections.clickhouse import ClickHouseView, Items, Row
from projections.observability.items import first_reports
from schemas.avro_columns import Columns, column_kinds, column_of
from schemas.envelope import Envelope


class Placed(Protocol):
    """A record at its place of the log."""

    @property
    def partition(self) -> int: ...

    @property
    def offset(self) -> int: ...


class Place(NamedTuple):
    """A place of the log, without its record."""

    partition: int
    offset: int


class Batch(ABC):
    """What both kinds share. `len` counts rows."""

    def __init__(self, view: ClickHouseView) -> None:
        self.view = view
        self.ranges: dict[int, tuple[int, int]] = {}

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def add(
        self, events: Sequence[Any], envelopes: Sequence[Envelope], places: Sequence[Placed]
    ) -> int:
        """Reduce events that stand at these places in the order of the log; all or, when one raises
        what its view does, none. Returns the rows they gave."""

    @abstractmethod
    def columns(self) -> Sequence[Any]:
        """The rows as columns, in the order of `view.stored`: as `ClickHouse.insert` takes them."""

    @abstractmethod
    def split(self) -> Sequence["Batch"]:
        """Two batches with half of the records each, in order; none when there is one record."""

    @property
    def token(self) -> str:
        """`topic:partition:first-last` of every partition: the same rows, the same token."""
        spans = ",".join(f"{p}:{a}-{b}" for p, (a, b) in sorted(self.ranges.items()))
        return f"{self.view.topic}:{spans}"

    def _cover(self, partition: int, offset: int) -> None:
        first, last = self.ranges.get(partition, (offset, offset))
        self.ranges[partition] = (min(first, offset), max(last, offset))


def batch_of(view: ClickHouseView) -> Batch:
    """An empty batch of the kind that the view needs."""
    return RowBatch(view) if view.item_columns is None else ItemBatch(view)


def _middle(places: Sequence[tuple[int, int]]) -> int:
    """Where to cut rows of these places in two, between records; 0 when they are of one."""
    cuts = [at for at in range(1, len(places)) if places[at] != places[at - 1]]
    return min(cuts, key=lambda at: abs(at - len(places) // 2), default=0)


class RowBatch(Batch):
    """Of a view that makes rows."""

    def __init__(self, view: ClickHouseView, rows: Sequence[Row] = ()) -> None:
        super().__init__(view)
        self.rows: list[Row] = list(rows)
        for row in rows:
            self._cover(row[-3], row[-2])

    def __len__(self) -> int:
        return len(self.rows)

    def add(
        self, events: Sequence[Any], envelopes: Sequence[Envelope], places: Sequence[Placed]
    ) -> int:
        assert self.view.rows is not None
        made = [
            (*row, place.partition, place.offset, index)
            for event, envelope, place in zip(events, envelopes, places, strict=True)
            for index, row in enumerate(self.view.rows(event, envelope))
        ]
        self.rows += made
        for row in made:
            self._cover(row[-3], row[-2])
        return len(made)

    def columns(self) -> Sequence[Any]:
        """As above. Raises ValueError on a ragged row."""
        turned = [list(column) for column in zip(*self.rows, strict=True)]
        if self.rows and len(turned) != len(self.view.stored):
            raise ValueError(f"{self.view.name}: rows do not match the columns")
        return turned

    def split(self) -> Sequence[Batch]:
        cut = _middle([row[-3:-1] for row in self.rows])
        return [RowBatch(self.view, part) for part in (self.rows[:cut], self.rows[cut:]) if cut]


class ItemBatch(Batch):
    """Of a view that makes columns of items."""

    def __init__(self, view: ClickHouseView, columns: Sequence[Any] | None = None) -> None:
        super().__init__(view)
        (event,) = view.events
        items, *_ = msgspec.structs.fields(event)
        self._items = items.name
        self._kinds = column_kinds(items.type)
        self._parts: list[Sequence[Any]] = [] if columns is None else [columns]
        if columns is not None:
            for place in set(_places(columns)):
                self._cover(*place)

    def __len__(self) -> int:
        return sum(len(part[0]) for part in self._parts)

    def add(
        self, events: Sequence[Any], envelopes: Sequence[Envelope], places: Sequence[Placed]
    ) -> int:
        first = [first_reports(getattr(event, self._items)) for event in events]
        some = [index for index, items in enumerate(first) if items]
        if not some:
            return 0
        items = [item for index in some for item in first[index]]
        fields = {
            name: column_of([getattr(item, name) for item in items], kind)
            for name, kind in self._kinds.items()
        }
        read = Columns(np.array([len(first[index]) for index in some]), fields)
        return self.add_columns(
            read, [envelopes[index] for index in some], [places[index] for index in some]
        )

    def add_columns(
        self, read: Columns, envelopes: Sequence[Envelope], places: Sequence[Placed]
    ) -> int:
        """Reduce what was read of records, which stand at these places in the order of the log.

        Each has an item, and none has two of one id. Returns the rows they gave.
        """
        assert self.view.item_columns is not None
        counts = read.counts.tolist()
        rows = sum(counts)
        of = np.repeat(np.arange(len(counts)), read.counts)
        texts = [
            pa.array(told, pa.string()).take(pa.array(of))
            for told in (
                [envelope.tenant for envelope in envelopes],
                [envelope.stream_id for envelope in envelopes],
                [envelope.sealed_for for envelope in envelopes],
            )
        ]
        time = np.array([envelope.time for envelope in envelopes], np.int64)[of]
        tenant, stream_id, sealed_for = texts
        items = Items(read.columns, tenant, stream_id, sealed_for, time)
        partitions = np.array([place.partition for place in places])
        offsets = np.array([place.offset for place in places])
        made = [
            *self.view.item_columns(items),
            partitions[of],
            offsets[of],
            np.arange(rows) - (np.cumsum(read.counts) - read.counts)[of],
        ]
        if [len(column) for column in made] != [rows] * len(self.view.stored):
            raise ValueError(f"{self.view.name}: what was made does not match the columns")
        self._parts.append([pa.array(column) for column in made])
        for partition in set(partitions.tolist()):
            its = offsets[partitions == partition]
            self._cover(partition, int(its.min()))
            self._cover(partition, int(its.max()))
        return rows

    def columns(self) -> Sequence[Any]:
        if len(self._parts) != 1:
            self._parts = [[pa.concat_arrays(parts) for parts in zip(*self._parts, strict=True)]]
        return self._parts[0]

    def split(self) -> Sequence[Batch]:
        columns = self.columns()
        cut = _middle(_places(columns))
        halves = [slice(0, cut), slice(cut, len(self))] if cut else []
        return [ItemBatch(self.view, [column[half] for column in columns]) for half in halves]


def _places(columns: Sequence[Any]) -> list[tuple[int, int]]:
    return list(zip(columns[-3].to_pylist(), columns[-2].to_pylist(), strict=True))
