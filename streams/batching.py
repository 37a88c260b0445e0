"""What lies between two flushes of the analytics loop: pure, without Kafka and ClickHouse.

A `Router` decodes records and knows which view wants which event; `Pending` collects the rows of
one flush, the records nobody can read, and how far on the log all of that reaches.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from projections.clickhouse import Batch, ClickHouseView
from schemas.avro_derivation import tag_of
from schemas.codec import Codec, Undecodable
from schemas.envelope import from_headers

Place = tuple[str, int]
"""A topic and a partition of it."""


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
        self.batches = {view.table: Batch(view) for view in views}
        self.next: dict[Place, int] = {}
        self.dead: list[DeadLetter] = []
        self.records: dict[tuple[str, int, int], LogRecord] = {}
        self.bytes = 0
        self.rows = 0

    def __bool__(self) -> bool:
        return bool(self.next)


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

    def take(self, pending: Pending, record: LogRecord) -> None:
        """Add one record's rows to `pending`. Raises Unreadable."""
        place = (record.topic, record.partition)
        value = record.value or b""
        try:
            envelope = from_headers(record.headers)
            views = self._wanting.get((record.topic, envelope.type), ())
            behind = [
                view
                for view in views
                if self._filled.get((view.table, record.partition), 0) <= record.offset
            ]
            if behind:
                event = self._codec.decode(value)
                for view in behind:
                    batch = pending.batches[view.table]
                    pending.rows += batch.add(event, envelope, record.partition, record.offset)
                pending.records[record.topic, record.partition, record.offset] = record
                pending.bytes += len(value)
        except Exception as error:
            # Whatever is wrong with one record must not stop those behind it.
            self._refuse(pending, record, error)
        pending.next[place] = record.offset + 1

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
