"""What lies between two flushes of the analytics loop: pure, without Kafka and ClickHouse.

A `Router` decodes records and knows which view wants which event; `Pending` collects the rows of
one flush, the records nobody can read, and how far on the log all of that reaches.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import numpy as np

from projections.batches import ItemBatch, Place, batch_of
from projections.clickhouse import ClickHouseView
from schemas.avro_columns import Columns
from schemas.avro_derivation import tag_of
from schemas.codec import FRAME_BYTES, Codec, Undecodable
from schemas.envelope import Envelope, from_headers

TopicPartition = tuple[str, int]


class LogRecord(Protocol):
    """A record as the consumer gives it."""

    @property
    def topic(self) -> str: ...

    @property
    def partition(self) -> int: ...

    @property
    def offset(self) -> int: ...

    @property
    def key(self) -> bytes | None: ...

    @property
    def value(self) -> bytes | None: ...

    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...


class DeadLetter(NamedTuple):
    """A record that cannot become rows, and why."""

    record: Any
    reason: str


class Unreadable(Exception):
    """A record of a topic without dead letters cannot be read: its partition has to wait for a
    release that can."""


class Pending:
    """One flush in the making."""

    def __init__(self, views: Sequence[ClickHouseView]) -> None:
        self.batches = {view.table: batch_of(view) for view in views}
        self.next: dict[TopicPartition, int] = {}
        self.dead: list[DeadLetter] = []
        self.records: dict[tuple[str, int, int], LogRecord] = {}
        self.bytes = 0
        self.rows = 0

    def __bool__(self) -> bool:
        return bool(self.next)


class _Item(NamedTuple):
    """A record on its way to rows."""

    record: LogRecord
    envelope: Envelope
    value: bytes

    @property
    def frame(self) -> bytes:
        """What names the schema."""
        return self.value[:FRAME_BYTES]


def _left(read: Columns, ends: Sequence[int]) -> list[int]:
    """Which records have to be read by themselves: those that were left, and those that have two
    items of one id. `ends` is where their items end, after a zero."""
    left = set(np.flatnonzero(read.counts == 0).tolist())
    ids = read.columns["id"]
    if len(set(ids)) < len(ids):
        for index, (start, end) in enumerate(pairwise(ends)):
            if len(set(ids[start:end])) < end - start:
                left.add(index)
    return sorted(left)


class Router:
    """Turns records into rows. `filled` says per table and partition what it already holds.

    dead_letters: topics whose unreadable records are put aside; on others they stop the partition.
    """

    def __init__(
        self,
        views: Sequence[ClickHouseView],
        codec: Codec,
        filled: Mapping[tuple[str, int], int],
        dead_letters: frozenset[str],
    ) -> None:
        self._codec, self._filled, self._dead_letters = codec, filled, dead_letters
        self._wanting: dict[tuple[str, str], list[ClickHouseView]] = {}
        for view in views:
            for event in view.events:
                self._wanting.setdefault((view.topic, tag_of(event)), []).append(view)

    def take(self, pending: Pending, records: Sequence[LogRecord]) -> None:
        """Add the rows of a partition's next records to `pending`.

        Raises Unreadable, with the records before that one taken.
        """
        together: dict[str, list[_Item]] = {}
        for record in records:
            try:
                envelope = from_headers(record.headers)
                behind = self._behind(record, envelope)
                if behind:
                    item = _Item(record, envelope, record.value or b"")
                    pending.bytes += len(item.value)
                    self._take_item(pending, together, behind, item)
            except Exception as error:
                # Whatever is wrong with one record must not stop those behind it.
                self._refuse(pending, record, error)
            pending.next[record.topic, record.partition] = record.offset + 1
        for items in together.values():
            self._take_together(pending, items)

    def _take_item(
        self,
        pending: Pending,
        together: dict[str, list["_Item"]],
        behind: Sequence[ClickHouseView],
        item: "_Item",
    ) -> None:
        """Take a record, or let it wait in `together` (by table) for those that follow it."""
        waits = self._may_wait(behind, item)
        for view in behind:
            # A table's rows stay in the order of the log.
            waiting = together.get(view.table)
            if waiting and not (waits and waiting[0].frame == item.frame):
                self._take_together(pending, together.pop(view.table))
        if waits:
            together.setdefault(behind[0].table, []).append(item)
        else:
            self._take_one(pending, behind, item)

    def _behind(self, record: LogRecord, envelope: Envelope) -> list[ClickHouseView]:
        """The views that want the record and whose tables don't hold it."""
        return [
            view
            for view in self._wanting.get((record.topic, envelope.type), ())
            if self._filled.get((view.table, record.partition), 0) <= record.offset
        ]

    def _may_wait(self, behind: Sequence[ClickHouseView], item: "_Item") -> bool:
        """Whether a record can be read together with others. Where a broken one stops the partition
        it is not, since then nothing behind it may be taken."""
        return (
            len(behind) == 1
            and behind[0].item_columns is not None
            and item.record.topic in self._dead_letters
            and self._codec.column_reader(item.value) is not None
        )

    def _take_one(self, pending: Pending, views: Sequence[ClickHouseView], item: "_Item") -> None:
        event, record = self._codec.decode(item.value), item.record
        for view in views:
            batch = pending.batches[view.table]
            pending.rows += batch.add(event, item.envelope, record.partition, record.offset)
        pending.records[record.topic, record.partition, record.offset] = record

    def _take_alone(self, pending: Pending, view: ClickHouseView, item: "_Item") -> None:
        try:
            self._take_one(pending, [view], item)
        except Exception as error:
            self._refuse(pending, item.record, error)

    def _take_together(self, pending: Pending, items: Sequence["_Item"]) -> None:
        """Take records of one schema and one view, reading them side by side.

        Those that the reader leaves are taken one by one, in their place in the order of the log.
        """
        reader = self._codec.column_reader(items[0].value)
        (view,) = self._wanting[items[0].record.topic, items[0].envelope.type]
        assert reader is not None
        read = reader.read([item.value for item in items])
        ends = [0, *np.cumsum(read.counts).tolist()]
        for before, at in pairwise([-1, *_left(read, ends), len(items)]):
            run = slice(before + 1, at)
            if run.start < run.stop:
                rows = slice(ends[run.start], ends[run.stop])
                columns = {name: column[rows] for name, column in read.columns.items()}
                self._take_run(pending, view, items[run], Columns(read.counts[run], columns))
            if at < len(items):
                self._take_alone(pending, view, items[at])

    def _take_run(
        self, pending: Pending, view: ClickHouseView, items: Sequence["_Item"], read: Columns
    ) -> None:
        batch = pending.batches[view.table]
        assert isinstance(batch, ItemBatch)
        places = [Place(item.envelope, item.record.partition, item.record.offset) for item in items]
        try:
            pending.rows += batch.add_columns(read, places)
        except Exception:
            # One of them breaks the view: alone, each shows whether it is the one.
            for item in items:
                self._take_alone(pending, view, item)
            return
        for item in items:
            record = item.record
            pending.records[record.topic, record.partition, record.offset] = record

    def _refuse(self, pending: Pending, record: LogRecord, error: Exception) -> None:
        if isinstance(error, Undecodable):
            reason = str(error)
        elif isinstance(error, KeyError):
            reason = f"no header {error}"
        else:
            reason = f"{type(error).__name__}: {error}"
        if record.topic not in self._dead_letters:
            place = f"{record.topic}:{record.partition}:{record.offset}"
            raise Unreadable(f"{place}: {reason}") from error
        pending.dead.append(DeadLetter(record, reason))
        pending.bytes += len(record.value or b"")
