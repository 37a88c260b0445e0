"""Reading the log again: which part of a topic, in which order, decoded into what.

`weir tail`, `weir export`, `weir rebuild` and `weir audit verify` stand on this. A replay is
read_committed and ends at the offsets that the topic had when it began, so it ends although the
topic grows; it reads partition after partition, so the same range always gives the same sequence.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from msgspec import Struct

from infra.clock import parse_iso
from infra.kafka import LogUnavailable, range_reader, stop_consumer
from schemas.codec import Codec, SchemaVersion, Undecodable
from schemas.envelope import Envelope, Position, from_headers
from streams.sealing import Keyring

BATCH_RECORDS = 2_000
CLOCK_SKEW_MS = 600_000
"""How far an event's own time may be from the time at which its record was appended."""
STALLED_SECONDS = 60.0


class NoSuchTopic(Exception):
    """The cluster has no topic of that name."""


class Bound(Struct, frozen=True):
    """Where a range begins (inclusive) or ends (exclusive): one of three, or none of them.

    instant: microseconds of an event's own time. offset: the same in every partition.
    offsets: by partition; a partition that is not named is not bounded.
    """

    instant: int | None = None
    offset: int | None = None
    offsets: Mapping[int, int] | None = None


UNBOUNDED = Bound()


def parse_bound(text: str, topic: str) -> Bound:
    """An offset (`1200`), positions (`audit:0:1200,audit:1:7`), or an ISO 8601 instant or date.

    Raises ValueError with a sentence for a person.
    """
    text = text.strip()
    if not text:
        return UNBOUNDED
    if text.isascii() and text.isdigit():
        return Bound(offset=int(text))
    if text.startswith(f"{topic}:"):
        offsets: dict[int, int] = {}
        for part in text.split(","):
            try:
                position = Position.parse(part.strip())
            except ValueError:
                raise ValueError(f"{part!r} is not a position such as {topic}:0:1200") from None
            if position.topic != topic or position.partition < 0 or position.offset < 0:
                raise ValueError(f"{part!r} is not a position of the topic {topic}")
            offsets[position.partition] = position.offset
        return Bound(offsets=offsets)
    try:
        return Bound(instant=parse_iso(text))
    except ValueError:
        raise ValueError(
            f"{text!r} is neither an instant (2026-01-31T12:00:00Z), an offset (1200) "
            f"nor a position ({topic}:0:1200)"
        ) from None


class Span(Struct, frozen=True):
    """Offsets `first` (inclusive) to `end` (exclusive) of one partition."""

    partition: int
    first: int
    end: int

    @property
    def length(self) -> int:
        """Offsets in it; transaction markers count, so there may be fewer records."""
        return self.end - self.first


class Filter(Struct, frozen=True):
    """Which records are wanted, told from the headers alone. Empty fields let everything pass.

    type, stream: shell patterns (`billing.*`, `approvals.room/*`). key: the record key as text.
    since, until: the event's own time, microseconds, half open.
    """

    tenant: str = ""
    type: str = ""
    stream: str = ""
    key: str = ""
    since: int | None = None
    until: int | None = None

    def passes(self, record: Any) -> bool:
        """Whether a Kafka record is wanted."""
        headers = dict(record.headers)
        if self.tenant and headers.get("ce_tenant", b"").decode() != self.tenant:
            return False
        if self.key and (record.key or b"").decode(errors="replace") != self.key:
            return False
        if self.type and not fnmatchcase(headers.get("ce_type", b"").decode(), self.type):
            return False
        if self.stream and not fnmatchcase(headers.get("ce_subject", b"").decode(), self.stream):
            return False
        if self.since is None and self.until is None:
            return True
        time = event_time(record)
        return (self.since is None or time >= self.since) and (
            self.until is None or time < self.until
        )


def event_time(record: Any) -> int:
    """The event's own time in microseconds, or the record's when it has none."""
    for name, value in record.headers:
        if name == "ce_time":
            return parse_iso(value.decode())
    return int(record.timestamp) * 1000


class Entry(Struct, frozen=True):
    """One record, decoded as far as it can be.

    envelope: None when the headers are not an event's. schema: what the value was written with,
    None when it is not Avro. data: the value's fields, JSON values (bytes where Avro has them).
    problem: why there is no data; raw then holds the value.
    """

    position: Position
    timestamp_ms: int
    key: str
    headers: dict[str, str]
    envelope: Envelope | None
    schema: SchemaVersion | None
    data: Any
    raw: bytes | None
    problem: str = ""


def decode(record: Any, codec: Codec, keyring: Keyring | None = None) -> Entry:
    """Decode a Kafka record; never raises for what a producer could have written.

    keyring: has the record's key if it is sealed, and opens it.
    """
    headers = {name: value.decode(errors="replace") for name, value in record.headers}
    envelope: Envelope | None = None
    with contextlib.suppress(KeyError, ValueError):
        envelope = from_headers(record.headers)
    schema: SchemaVersion | None = None
    data: Any = None
    problem = ""
    value: bytes | None = record.value
    try:
        if keyring is not None and envelope is not None and envelope.sealed_for:
            value = keyring.opened(record, envelope).value
        if value is not None and value[:1] != b"\x00":
            data = json.loads(value)
        else:
            _, data = codec.decode_fields(value)
            schema = codec.schemas[int.from_bytes((value or b"")[1:5])]
    except (Undecodable, ValueError, RecursionError) as error:
        problem = str(error) or type(error).__name__
    return Entry(
        position=Position(record.topic, record.partition, record.offset),
        timestamp_ms=record.timestamp,
        key=(record.key or b"").decode(errors="replace"),
        headers=headers,
        envelope=envelope,
        schema=schema,
        data=data,
        raw=value if problem else None,
        problem=problem,
    )


class TopicReader:
    """A consumer over the partitions of one topic. `async with` connects and closes it."""

    def __init__(self, bootstrap: str, topic: str, client_id: str = "weir-replay") -> None:
        self.topic = topic
        self._consumer: AIOKafkaConsumer = range_reader(bootstrap, client_id)
        self.partitions: list[TopicPartition] = []

    async def __aenter__(self) -> "TopicReader":
        """Connect. Raises LogUnavailable or NoSuchTopic."""
        try:
            await self._consumer.start()
            # `partitions_for_topic` of the consumer itself knows subscribed topics only.
            cluster = await self._consumer._client.fetch_all_metadata()
        except KafkaError as error:
            await stop_consumer(self._consumer)
            raise LogUnavailable(f"no broker answers: {error}") from error
        numbers = cluster.partitions_for_topic(self.topic)
        if not numbers:
            await stop_consumer(self._consumer)
            known = sorted(name for name in cluster.topics() if not name.startswith("__"))
            names = ", ".join(known)
            raise NoSuchTopic(f"there is no topic {self.topic!r}; there are {names or 'none'}")
        self.partitions = [TopicPartition(self.topic, number) for number in sorted(numbers)]
        return self

    async def __aexit__(self, *_: object) -> None:
        await stop_consumer(self._consumer)

    async def spans(
        self, start: Bound = UNBOUNDED, end: Bound = UNBOUNDED, skew_ms: int = CLOCK_SKEW_MS
    ) -> list[Span]:
        """What lies between the bounds now. An instant gives a span that is wide enough for
        `skew_ms` of difference between an event's time and its record's: filter it too.
        """
        first = await self._consumer.beginning_offsets(self.partitions)
        last = await self._consumer.end_offsets(self.partitions)
        begins = await self._offsets(start, -skew_ms, last)
        ends = await self._offsets(end, skew_ms, last)
        spans = []
        for each in self.partitions:
            begin = min(max(first[each], begins.get(each.partition, 0)), last[each])
            stop = max(min(last[each], ends.get(each.partition, last[each])), begin)
            spans.append(Span(each.partition, begin, stop))
        return spans

    async def _offsets(
        self, bound: Bound, shift_ms: int, last: Mapping[TopicPartition, int]
    ) -> Mapping[int, int]:
        if bound.offset is not None:
            return {each.partition: bound.offset for each in self.partitions}
        if bound.instant is not None:
            wanted = max(bound.instant // 1000 + shift_ms, 0)
            found = await self._consumer.offsets_for_times(dict.fromkeys(self.partitions, wanted))
            return {
                each.partition: last[each] if found.get(each) is None else found[each].offset
                for each in self.partitions
            }
        return bound.offsets or {}

    async def read(
        self, spans: Sequence[Span], progress: Callable[[int], None] = lambda offsets: None
    ) -> AsyncGenerator[list[Any], None]:
        """The records of the spans in batches, span after span, in the order of their offsets.

        progress: called with the number of offsets passed since the last call. Raises
        LogUnavailable when the broker lets nothing through for a minute.
        """
        for span in spans:
            if span.length <= 0:
                continue
            partition = TopicPartition(self.topic, span.partition)
            self._consumer.assign([partition])
            self._consumer.seek(partition, span.first)
            at = span.first
            while at < span.end:
                records, passed = await self._next(partition, at)
                # What lies behind the end (the topic grows) is for another replay.
                yield [record for record in records if record.offset < span.end]
                progress(min(passed, span.end) - at)
                at = min(passed, span.end)

    async def _next(self, partition: TopicPartition, at: int) -> tuple[list[Any], int]:
        """Records from `at` on, and the offset that comes after them; waits until it moves."""
        try:
            async with asyncio.timeout(STALLED_SECONDS):
                while True:
                    got = await self._consumer.getmany(
                        partition, timeout_ms=1_000, max_records=BATCH_RECORDS
                    )
                    # Markers and aborted records move the position without giving a record.
                    passed = int(await self._consumer.position(partition))
                    if passed > at:
                        return list(got.get(partition, ())), passed
        except KafkaError as error:
            raise LogUnavailable(f"cannot read {self.topic}: {error}") from error
        except TimeoutError as error:
            raise LogUnavailable(f"{self.topic} gave nothing for a minute") from error

    async def follow(self, spans: Sequence[Span]) -> AsyncGenerator[list[Any], None]:
        """The records from the spans' beginnings on, all partitions at once, without an end."""
        self._consumer.assign(self.partitions)
        for span in spans:
            self._consumer.seek(TopicPartition(self.topic, span.partition), span.first)
        while True:
            try:
                got = await self._consumer.getmany(timeout_ms=1_000, max_records=BATCH_RECORDS)
            except KafkaError as error:
                raise LogUnavailable(f"cannot read {self.topic}: {error}") from error
            for records in got.values():
                yield list(records)
