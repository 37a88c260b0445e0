"""What the analytics loop makes of records between two flushes, without servers."""

from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import pytest
from msgspec import Meta, Struct, structs

from projections.clickhouse import TENANT, ClickHouseView, Items, Row
from schemas.avro_columns import Column
from schemas.avro_derivation import derive, tag_of
from schemas.codec import Codec, SchemaVersion
from schemas.envelope import Actor, Envelope, to_headers
from streams.batching import SLICE_BYTES, SLICE_RECORDS, Pending, Router, Unreadable
from tests.streams.records import no_keys


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
    timestamp: int
    key: bytes
    value: bytes | None
    headers: list[tuple[str, bytes]]


def record(event: Any, offset: int, topic: str = "telemetry", partition: int = 0) -> Stored:
    tag = tag_of(type(event))
    envelope = Envelope("evt_1", tag, "ten_1", "platform.note/1", 0, 7, Actor("user", "u"))
    return Stored(topic, partition, offset, 0, b"k", CODEC.encode(event), to_headers(envelope))


def routed(
    *records: Stored, filled: dict[tuple[str, int], int] | None = None, letters: bool = True
) -> Pending:
    views = [NOTES, OTHERS]
    router = Router(
        views, CODEC, filled or {}, frozenset({"telemetry"} if letters else ()), no_keys()
    )
    pending = Pending(views)
    for record_ in records:
        router.take(pending, [record_])
    router.settle(pending)
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


class Word(Struct, frozen=True):
    id: str
    size: Annotated[int, Meta(ge=0, le=100)] = 0


class Listed(Struct, frozen=True, tag="platform.listed.v1"):
    words: list[Word]


def columns(words: Items) -> list[Column]:
    if "bug" in words.fields["id"].to_pylist():
        raise ZeroDivisionError("a bug in a view")
    return [words.tenant, words.stream_id, words.fields["id"], words.fields["size"], words.time]


WORDS = ClickHouseView(
    name="words",
    version=1,
    topic="telemetry",
    events=(Listed,),
    columns={"tenant": TENANT, "stream": "String", "id": "String", "size": "Int64", "at": "Int64"},
    order_by=("tenant", "id"),
    item_columns=columns,
)
WORD_CODEC = Codec(
    [Listed, Noted],
    [
        SchemaVersion(1, tag_of(Listed), 1, derive(Listed)),
        SchemaVersion(2, tag_of(Noted), 1, derive(Noted)),
        SchemaVersion(3, tag_of(Listed), 2, derive(Listed)),
    ],
)


def listed(offset: int, *words: Word, schema: int = 1) -> Stored:
    """A record as a release with this schema's id wrote it."""
    body = WORD_CODEC.encode(Listed(list(words)))[5:]
    envelope = Envelope(
        f"evt_{offset}", tag_of(Listed), "ten_1", f"x/{offset}", 0, offset, Actor("user", "u")
    )
    value = bytes([0, 0, 0, 0, schema]) + body
    return Stored("telemetry", 0, offset, 0, b"k", value, to_headers(envelope))


def together(
    records: Sequence[Stored], views: Sequence[ClickHouseView] = (WORDS,), **options: Any
) -> Pending:
    """All records taken at once."""
    filled, letters = options.get("filled", {}), options.get("letters", {"telemetry"})
    pending = Pending(views)
    router = Router(views, WORD_CODEC, filled, frozenset(letters), no_keys())
    router.take(pending, records)
    router.settle(pending)
    return pending


def one_by_one(records: Sequence[Stored], views: Sequence[ClickHouseView] = (WORDS,)) -> Pending:
    pending, router = (
        Pending(views),
        Router(views, WORD_CODEC, {}, frozenset({"telemetry"}), no_keys()),
    )
    for item in records:
        router.take(pending, [item])
        router.settle(pending)
    return pending


def table(pending: Pending, view: ClickHouseView = WORDS) -> list[tuple[Any, ...]]:
    batch = pending.batches[view.table]
    if not len(batch):
        return []
    return list(zip(*(c.tolist() for c in batch.columns()), strict=True))


def words(offset: int) -> list[Word]:
    return [Word(f"{offset}-{n}", n) for n in range(1 + offset % 3)]


ORDINARY = [listed(offset, *words(offset)) for offset in range(100)]


def test_records_read_together_give_what_each_gives_alone() -> None:
    pending = together(ORDINARY)
    assert table(pending) == table(one_by_one(ORDINARY))
    assert table(pending)[3] == ("ten_1", "2", "2-0", 0, 2, 0, 2, 0)
    assert pending.rows == len(table(pending)) == sum(1 + n % 3 for n in range(100))
    assert (pending.next, pending.dead) == ({("telemetry", 0): 100}, [])
    assert pending.batches[WORDS.table].token == "telemetry:0:0-99"
    assert pending.record_at("telemetry", 0, 42) is ORDINARY[42]
    assert pending.bytes == sum(len(item.value or b"") for item in ORDINARY)


def test_records_that_come_a_few_at_a_time_from_several_partitions_are_read_together() -> None:
    records = [item._replace(partition=item.offset % 3) for item in ORDINARY]
    router = Router([WORDS], WORD_CODEC, {}, frozenset({"telemetry"}), no_keys())
    pending = Pending([WORDS])
    for item in records:
        router.take(pending, [item])
    reached = {0: 100, 1: 98, 2: 99}
    assert pending.next == {("telemetry", n): offset for n, offset in reached.items()}
    with pytest.raises(AssertionError, match="wait"):
        assert pending.batches
    router.settle(pending)
    assert table(pending) == table(one_by_one(records))
    assert pending.batches[WORDS.table].ranges == {0: (0, 99), 1: (1, 97), 2: (2, 98)}


def test_what_waits_is_bounded() -> None:
    router = Router([WORDS], WORD_CODEC, {}, frozenset({"telemetry"}), no_keys())
    pending = Pending([WORDS])
    router.take(pending, [listed(n, Word("a")) for n in range(SLICE_RECORDS + 1)])
    assert (pending.rows, len(pending.runs[WORDS.table].records)) == (SLICE_RECORDS, 1)
    pending = Pending([WORDS])
    router.take(pending, [listed(0, Word("a" * SLICE_BYTES, 0)), listed(1, Word("a", 1))])
    assert (pending.rows, len(pending.runs[WORDS.table].records)) == (1, 1)


def test_what_breaks_among_many_is_put_aside_alone_and_the_rest_keeps_its_order() -> None:
    broken = {
        10: ORDINARY[10]._replace(value=(ORDINARY[10].value or b"") + b"more"),
        11: ORDINARY[11]._replace(value=None),
        20: ORDINARY[20]._replace(value=b"\x00\x00\x00\x00\x63rubbish"),
        30: listed(30, Word("a", 101)),
        40: listed(40, Word("bug", 1)),
        50: ORDINARY[50]._replace(headers=[]),
    }
    records = [broken.get(n, item) for n, item in enumerate(ORDINARY)]
    pending = together(records)
    assert sorted(letter.record.offset for letter in pending.dead) == sorted(broken)
    reasons = {letter.record.offset: letter.reason for letter in pending.dead}
    assert reasons == {letter.record.offset: letter.reason for letter in one_by_one(records).dead}
    assert [row[6] for row in table(pending)] == [
        n for n in range(100) if n not in broken for _ in words(n)
    ]
    assert pending.next == {("telemetry", 0): 100}


def test_of_items_of_one_record_with_the_same_id_the_first_stands() -> None:
    twice = listed(7, Word("a", 1), Word("b", 2), Word("a", 3))
    records = [*ORDINARY[:7], twice, *ORDINARY[8:]]
    found = [row[2:4] + row[6:] for row in table(together(records)) if row[6] == 7]
    assert found == [("a", 1, 7, 0), ("b", 2, 7, 1)]
    repeated = [*ORDINARY, *(item._replace(offset=item.offset + 100) for item in ORDINARY)]
    assert len(table(together(repeated))) == 2 * len(table(together(ORDINARY)))


def test_a_record_without_items_gives_no_rows() -> None:
    records = [*ORDINARY[:50], listed(50), *ORDINARY[51:]]
    assert 50 not in {row[6] for row in table(together(records))}
    assert len(together([listed(0)]).batches[WORDS.table]) == 0


def test_records_of_two_schemas_stay_in_the_order_of_the_log() -> None:
    records = [listed(n, *words(n), schema=3 if n % 50 > 40 else 1) for n in range(200)]
    assert [row[6] for row in table(together(records))] == [n for n in range(200) for _ in words(n)]


def test_two_versions_of_a_view_each_get_what_they_lack() -> None:
    newer = structs.replace(WORDS, version=2)
    pending = together(ORDINARY, (WORDS, newer), filled={(WORDS.table, 0): 60})
    assert {row[6] for row in table(pending)} == set(range(60, 100))
    assert {row[6] for row in table(pending, newer)} == set(range(100))


def test_without_dead_letters_what_precedes_a_broken_record_is_taken_and_nothing_behind() -> None:
    records = [*ORDINARY[:60], ORDINARY[60]._replace(value=b"rubbish"), *ORDINARY[61:]]
    pending = Pending([WORDS])
    with pytest.raises(Unreadable, match="telemetry:0:60"):
        Router([WORDS], WORD_CODEC, {}, frozenset(), no_keys()).take(pending, records)
    assert {row[6] for row in table(pending)} == set(range(60))
    assert pending.next == {("telemetry", 0): 60}


def test_a_batch_of_items_splits_between_records_in_order() -> None:
    batch = together(ORDINARY[:5]).batches[WORDS.table]
    rows = table(together(ORDINARY[:5]))
    halves = batch.split()
    found = [zip(*(c.tolist() for c in half.columns()), strict=True) for half in halves]
    assert [row for half in found for row in half] == rows
    assert [half.ranges for half in halves] == [{0: (0, 1)}, {0: (2, 4)}]
    assert [len(half) for half in halves] == [3, 6]
    (alone,) = [half for half in halves[1].split() if half.ranges == {0: (2, 2)}]
    assert alone.split() == []
