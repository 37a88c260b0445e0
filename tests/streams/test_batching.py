"""What the analytics loop makes of records between two flushes, without servers."""

from typing import Any, NamedTuple

import pytest
from msgspec import Struct

from projections.clickhouse import TENANT, ClickHouseView, Row
from schemas.avro_derivation import derive, tag_of
from schemas.codec import Codec, SchemaVersion
from schemas.envelope import Actor, Envelope, to_headers
from streams.batching import Pending, Router, Unreadable


class Noted(Struct, frozen=True, tag="platform.noted.v1"):
    notes: list[str]


class Forgotten(Struct, frozen=True, tag="platform.forgotten.v1"):
    note: str


def rows(event: Noted, envelope: Envelope) -> list[Row]:
    if "bug" in event.notes:
        raise ZeroDivisionError("a bug in a view")
    return [(envelope.tenant, note) for note in event.notes]


def view(name: str, topic: str = "telemetry") -> ClickHouseView:
    return ClickHouseView(
        name=name,
        version=1,
        topic=topic,
        events=(Noted,),
        columns={"tenant": TENANT, "note": "String"},
        order_by=("tenant", "note"),
        rows=rows,
    )


TYPES: list[type[Struct]] = [Noted, Forgotten]
CODEC = Codec(
    TYPES, [SchemaVersion(n, tag_of(cls), 1, derive(cls)) for n, cls in enumerate(TYPES, 1)]
)
NOTES, OTHERS = view("notes"), view("others")


class Stored(NamedTuple):
    topic: str
    partition: int
    offset: int
    key: bytes
    value: bytes | None
    headers: list[tuple[str, bytes]]


def record(event: Any, offset: int, topic: str = "telemetry", partition: int = 0) -> Stored:
    tag = tag_of(type(event))
    envelope = Envelope("evt_1", tag, "ten_1", "platform.note/1", 0, 7, Actor("user", "u"))
    return Stored(topic, partition, offset, b"k", CODEC.encode(event), to_headers(envelope))


def routed(
    *records: Stored, filled: dict[tuple[str, int], int] | None = None, letters: bool = True
) -> Pending:
    views = [NOTES, OTHERS]
    router = Router(views, CODEC, filled or {}, frozenset({"telemetry"} if letters else ()))
    pending = Pending(views)
    for record_ in records:
        router.take(pending, [record_])
    return pending


def test_each_view_gets_the_rows_and_the_flush_says_how_far_it_reaches() -> None:
    pending = routed(record(Noted(["a", "b"]), 4), record(Noted(["c"]), 9, partition=1))
    for table in (NOTES.table, OTHERS.table):
        assert [row[1] for row in pending.batches[table].rows] == ["a", "b", "c"]
    assert pending.next == {("telemetry", 0): 5, ("telemetry", 1): 10}
    assert (pending.rows, pending.dead) == (6, [])


def test_a_view_skips_what_its_table_holds() -> None:
    filled = {(NOTES.table, 0): 6, (NOTES.table, 1): 100}
    pending = routed(*(record(Noted([str(n)]), n) for n in range(4, 8)), filled=filled)
    assert [row[1] for row in pending.batches[NOTES.table].rows] == ["6", "7"]
    assert [row[1] for row in pending.batches[OTHERS.table].rows] == ["4", "5", "6", "7"]


def test_what_no_view_wants_only_moves_the_position() -> None:
    pending = routed(record(Forgotten("x"), 3))
    assert (pending.rows, pending.bytes) == (0, 0)
    assert pending.next == {("telemetry", 0): 4}


def test_a_record_that_is_broken_or_breaks_a_view_is_put_aside_with_the_reason() -> None:
    good = record(Noted(["a"]), 1)
    broken = [
        good._replace(offset=2, value=b"\x00\x00\x00\x00\x63rubbish"),
        good._replace(offset=3, value=None),
        good._replace(offset=4, headers=[]),
        record(Noted(["bug"]), 5),
        good._replace(offset=6, value=(good.value or b"") + b"more"),
    ]
    pending = routed(good, *broken, good._replace(offset=7))
    assert [letter.record.offset for letter in pending.dead] == [2, 3, 4, 5, 6]
    reasons = [letter.reason for letter in pending.dead]
    assert all(reasons)
    assert reasons[3] == "ZeroDivisionError: a bug in a view"
    assert pending.next == {("telemetry", 0): 8}
    assert pending.batches[NOTES.table].ranges == {0: (1, 7)}


def test_without_dead_letters_a_broken_record_stops_the_partition() -> None:
    broken = record(Noted(["a"]), 2)._replace(value=b"rubbish")
    with pytest.raises(Unreadable, match="telemetry:0:2"):
        routed(broken, letters=False)


def test_a_batch_splits_between_records_in_order() -> None:
    batch = routed(*(record(Noted(["a", "b"]), n) for n in range(5))).batches[NOTES.table]
    halves = batch.split()
    assert [row for half in halves for row in half.rows] == batch.rows
    assert [half.ranges for half in halves] == [{0: (0, 1)}, {0: (2, 4)}]
    (alone,) = [half for half in halves[0].split() if half.ranges == {0: (0, 0)}]
    assert alone.split() == []
