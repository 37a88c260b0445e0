"""Bounds, filters and decoding of records."""

import pytest

from schemas.envelope import Position
from streams.replay import UNBOUNDED, Bound, Filter, Span, decode, event_time, parse_bound
from tests.streams.records import START, FakeRecord, sample, sample_codec, sample_record


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("", UNBOUNDED),
        ("0", Bound(offset=0)),
        (" 1200 ", Bound(offset=1200)),
        ("audit:3:17", Bound(offsets={3: 17})),
        ("audit:0:1, audit:2:9", Bound(offsets={0: 1, 2: 9})),
        ("2023-11-14T22:13:20Z", Bound(instant=START)),
        ("2023-11-14T23:13:20+01:00", Bound(instant=START)),
        ("2023-11-14", Bound(instant=START - 80_000 * 1_000_000)),
    ],
)
def test_a_bound_is_an_offset_positions_or_an_instant(text: str, bound: Bound) -> None:
    assert parse_bound(text, "audit") == bound


@pytest.mark.parametrize("text", ["soon", "audit:x:1", "audit:1", "events:0:1", "audit:0:-1", "-1"])
def test_what_is_no_bound_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=r"is (not a position|neither an instant)"):
        parse_bound(text, "audit")


def test_a_topic_with_dots_has_positions_too() -> None:
    assert parse_bound("commands.dlq:0:5", "commands.dlq") == Bound(offsets={0: 5})


def test_a_span_counts_offsets() -> None:
    assert Span(0, 5, 9).length == 4


@pytest.mark.parametrize(
    ("wanted", "passes"),
    [
        (Filter(), True),
        (Filter(tenant="ten_1"), True),
        (Filter(tenant="ten_2"), False),
        (Filter(type="billing.*"), True),
        (Filter(type="billing.sample_taken.v1"), True),
        (Filter(type="approvals.*"), False),
        (Filter(stream="billing.sample/1"), True),
        (Filter(stream="billing.sample/2"), False),
        (Filter(key="ten_1"), True),
        (Filter(key="ten"), False),
        (Filter(since=START + 4_000_000), True),
        (Filter(since=START + 4_000_001), False),
        (Filter(until=START + 4_000_000), False),
        (Filter(until=START + 4_000_001), True),
        (Filter(tenant="ten_1", type="approvals.*"), False),
    ],
)
def test_a_filter_reads_the_headers(wanted: Filter, passes: bool) -> None:
    assert wanted.passes(sample_record(sample_codec(), 4)) is passes


def test_a_record_without_an_envelope_has_its_records_time() -> None:
    record = FakeRecord(timestamp=17)
    assert event_time(record) == 17_000
    assert not Filter(tenant="ten_1").passes(record)
    assert Filter(since=17_000, until=17_001).passes(record)


def test_an_event_is_decoded_with_its_envelope_and_schema() -> None:
    codec = sample_codec()
    entry = decode(sample_record(codec, 3), codec)
    assert entry.position == Position("billing", 0, 3)
    assert entry.envelope is not None and entry.envelope.id == "evt_3"
    assert entry.schema is not None and entry.schema.subject == "billing.sample_taken.v1"
    assert entry.data["name"] == sample(3).name
    assert entry.data["blob"] == sample(3).blob
    assert (entry.problem, entry.raw) == ("", None)


def test_json_is_decoded_without_an_envelope() -> None:
    entry = decode(FakeRecord(value=b'{"command_id": "cmd_1"}'), sample_codec())
    assert entry.data == {"command_id": "cmd_1"}
    assert (entry.envelope, entry.schema, entry.problem) == (None, None, "")


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"\x00",
        b"\x00\x00\x00\x00\x01",
        b"\x00\xff\xff\xff\xff\x02",
        b"\xff\xfe",
        b'{"a":',
        b"[" * 200_000,
    ],
)
def test_what_cannot_be_decoded_says_why_and_keeps_its_bytes(value: bytes | None) -> None:
    entry = decode(FakeRecord(value=value, headers=[("ce_time", b"soon")]), sample_codec())
    assert entry.data is None
    assert entry.problem
    assert entry.raw == value


def test_every_shortened_value_is_undecodable_or_refused_whole() -> None:
    codec = sample_codec()
    whole = sample_record(codec, 5).value
    assert whole is not None
    for length in range(len(whole)):
        assert decode(FakeRecord(value=whole[:length]), codec).problem
    assert decode(FakeRecord(value=whole + b"\x00"), codec).problem
