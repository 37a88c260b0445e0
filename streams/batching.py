"""What lies between two flushes of the analytics loop: pure, without Kafka and ClickHouse.

A `Router` decodes records and knows which view wants which event; `Pending` collects the rows of
one flush, the records nobody can read, and how far on the log all of that reaches. Records that can
be read side by side wait for each other, whichever partition they are of: agents report an item at
a time, and a few hundred are read together in the time of ten.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow.compute as pc

from projections.batches import Batch, ItemBatch, batch_of
from projections.clickhouse import ClickHouseView
from schemas.avro_columns import ColumnReader, Columns
from schemas.avro_derivation import tag_of
from schemas.codec import FRAME_BYTES, Codec, Undecodable
from schemas.envelope import Envelope, from_headers
from streams.sealing import Keyring, LogRecord, Opened

logger = logging.getLogger(__name__)

TopicPartition = tuple[str, int]

# So much takes a few milliseconds to read: a process that also serves requests keeps answering.
SLICE_BYTES, SLICE_RECORDS = 1024 * 1024, 400


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
        self._batches = {view.table: batch_of(view) for view in views}
        self.runs: dict[str, _Run] = {}
        self.next: dict[TopicPartition, int] = {}
        self.dead: list[DeadLetter] = []
        self.records: list[LogRecord] = []
        self.bytes = 0
        self.rows = 0

    def __bool__(self) -> bool:
        return bool(self.next)

    @property
    def batches(self) -> Mapping[str, Batch]:
        """By table, the rows of all that was taken; `Router.settle` comes first."""
        assert not self.runs, "records wait to be read"
        return self._batches

    def batch(self, view: ClickHouseView) -> Batch:
        """Where more rows of a view go."""
        return self._batches[view.table]

    def record_at(self, topic: str, partition: int, offset: int) -> LogRecord | None:
        """A record that gave rows; one that was sealed, as it was opened."""
        place = (topic, partition, offset)
        found = (r for r in self.records if (r.topic, r.partition, r.offset) == place)
        return next(found, None)


class _Run:
    """Records of one schema for one view, in the order of the log, that are read together."""

    def __init__(self, view: ClickHouseView, reader: ColumnReader, frame: bytes) -> None:
        self.view, self.reader, self.frame = view, reader, frame
        self.records: list[LogRecord] = []
        self.values: list[bytes] = []
        self.envelopes: list[Envelope] = []
        self.bytes = 0

    def append(self, record: LogRecord, value: bytes, envelope: Envelope) -> None:
        self.records.append(record)
        self.values.append(value)
        self.envelopes.append(envelope)
        self.bytes += len(value)

    @property
    def is_full(self) -> bool:
        return len(self.records) >= SLICE_RECORDS or self.bytes >= SLICE_BYTES


def _stretches(read: Columns, ends: Sequence[int]) -> Iterator[tuple[slice, bool]]:
    """Neighbours that were read, and neighbours that have to be decoded (true): those that were
    left, and those that have two items of one id. ends: where their items end, after a zero."""
    left = read.counts == 0
    ids = read.columns["id"]
    if pc.count_distinct(ids).as_py() < len(ids):
        for index, (start, end) in enumerate(pairwise(ends)):
            if len(set(ids[start:end].to_pylist())) < end - start:
                left[index] = True
    cuts = (np.flatnonzero(left[1:] != left[:-1]) + 1).tolist()
    for start, stop in pairwise([0, *cuts, len(left)]):
        yield slice(start, stop), bool(left[start])


class Router:
    """Turns records into rows. `filled` says per table and partition what it already holds.

    dead_letters: topics whose unreadable records are put aside; on others they stop the partition.
    keyring: opens what is sealed; the keys of the records to `take` are in it already.
    """

    def __init__(
        self,
        views: Sequence[ClickHouseView],
        codec: Codec,
        filled: Mapping[tuple[str, int], int],
        dead_letters: frozenset[str],
        keyring: Keyring,
    ) -> None:
        self._codec, self._filled, self._dead_letters = codec, filled, dead_letters
        self.keyring = keyring
        self._wanting: dict[tuple[str, str], list[tuple[str, ClickHouseView]]] = {}
        for view in views:
            for event in view.events:
                key = (view.topic, tag_of(event))
                self._wanting.setdefault(key, []).append((view.table, view))

    def take(self, pending: Pending, records: Sequence[LogRecord]) -> None:
        """Add the next records of one partition to `pending`; `settle` makes rows of the last.

        Raises Unreadable, with the records before that one taken.
        """
        for written in records:
            record = written
            try:
                envelope = from_headers(record.headers)
                self.keyring.pass_by(record, envelope)
                wanted = self._wanting.get((record.topic, envelope.type))
                if wanted:
                    behind = [
                        (table, view)
                        for table, view in wanted
                        if self._filled.get((table, record.partition), 0) <= record.offset
                    ]
                    if behind:
                        if envelope.sealed_for:
                            record = self.keyring.opened(record, envelope)
                        self._route(pending, behind, record, envelope)
            except Exception as error:
                # Whatever is wrong with one record must not stop those behind it.
                self._refuse(pending, record, error)
            pending.next[record.topic, record.partition] = record.offset + 1

    def settle(self, pending: Pending) -> None:
        """Make rows of the records that wait for others to be read with."""
        for table in list(pending.runs):
            self._take_run(pending, pending.runs.pop(table))

    def _route(
        self,
        pending: Pending,
        behind: Sequence[tuple[str, ClickHouseView]],
        record: LogRecord,
        envelope: Envelope,
    ) -> None:
        """Let a record wait in a run (by table) for those that follow it, or take it at once."""
        value = record.value or b""
        pending.bytes += len(value)
        table, view = behind[0]
        run = pending.runs.get(table)
        if run is None or len(behind) > 1 or not value.startswith(run.frame):
            # It is read otherwise than what waits, and a table's rows stay in the log's order.
            for waiting, _ in behind:
                if waiting in pending.runs:
                    self._take_run(pending, pending.runs.pop(waiting))
            run = self._new_run(view, record.topic, value) if len(behind) == 1 else None
            if run is None:
                self._take_one(pending, [view for _, view in behind], record, envelope)
                return
            pending.runs[table] = run
        run.append(record, value, envelope)
        if run.is_full:
            self._take_run(pending, pending.runs.pop(table))

    def _new_run(self, view: ClickHouseView, topic: str, value: bytes) -> _Run | None:
        """A run that begins with this record, if it can be read together with others.

        Where a broken record stops the partition it can't: nothing behind that one may be taken.
        """
        if view.item_columns is None or topic not in self._dead_letters:
            return None
        reader = self._codec.column_reader(value)
        return None if reader is None else _Run(view, reader, value[:FRAME_BYTES])

    def _take_run(self, pending: Pending, run: _Run) -> None:
        """Read the records of a run side by side.

        Those that the reader leaves are decoded, in their place in the order of the log.
        """
        whole = slice(0, len(run.records))
        try:
            read = run.reader.read(run.values)
            ends = [0, *np.cumsum(read.counts).tolist()]
            stretches = list(_stretches(read, ends))
        except Exception as error:
            logger.error("records are decoded one by one: %r", error, exc_info=True)
            self._take_decoded(pending, run, whole)
            return
        batch = pending.batch(run.view)
        assert isinstance(batch, ItemBatch)
        for part, is_left in stretches:
            if not is_left:
                records, envelopes = run.records[part], run.envelopes[part]
                try:
                    pending.rows += batch.add_columns(read.part(part, ends), envelopes, records)
                    pending.records += records
                    continue
                except Exception:
                    # One of them breaks the view: alone, each shows whether it is the one.
                    logger.info("records are decoded one by one", exc_info=True)
            self._take_decoded(pending, run, part)

    def _take_decoded(self, pending: Pending, run: _Run, part: slice) -> None:
        """Decode records of a run, and add all that can be; alone, if together they cannot."""
        events, records, envelopes = [], [], []
        for record, envelope in zip(run.records[part], run.envelopes[part], strict=True):
            try:
                events.append(self._codec.decode(record.value))
            except Exception as error:
                self._refuse(pending, record, error)
                continue
            records.append(record)
            envelopes.append(envelope)
        batch = pending.batch(run.view)
        try:
            pending.rows += batch.add(events, envelopes, records)
            pending.records += records
        except Exception:
            for event, envelope, record in zip(events, envelopes, records, strict=True):
                try:
                    pending.rows += batch.add([event], [envelope], [record])
                    pending.records.append(record)
                except Exception as error:
                    self._refuse(pending, record, error)

    def _take_one(
        self,
        pending: Pending,
        views: Sequence[ClickHouseView],
        record: LogRecord,
        envelope: Envelope,
    ) -> None:
        event = self._codec.decode(record.value)
        for view in views:
            pending.rows += pending.batch(view).add([event], [envelope], [record])
        pending.records.append(record)

    def _refuse(self, pending: Pending, record: LogRecord, error: Exception) -> None:
        if isinstance(record, Opened):
            # What is wrong with it would tell what was sealed.
            record, reason = record.written, f"{type(error).__name__} in what was sealed"
        elif isinstance(error, Undecodable):
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
