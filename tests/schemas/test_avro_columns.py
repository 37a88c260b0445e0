"""Reading in columns gives what fastavro and msgspec give, or leaves the record to them."""

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Meta, Struct

from schemas.avro_columns import ColumnReader
from schemas.avro_derivation import derive, tag_of
from schemas.codec import Codec, SchemaVersion, Undecodable
from schemas.observability.run import LlmCall, LlmCallsRecorded

Rate = Annotated[float, Meta(ge=0)]


class Thing(Struct, frozen=True):
    name: str
    size: int
    weight: float
    rate: Rate | None = None


class Things(Struct, frozen=True, tag="platform.things.v1"):
    things: list[Thing]


CODEC = Codec(
    [Things, LlmCallsRecorded],
    [
        SchemaVersion(number, tag_of(cls), 1, derive(cls))
        for number, cls in enumerate((Things, LlmCallsRecorded), 1)
    ],
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=90)
THINGS = st.builds(
    Thing,
    name=TEXT,
    size=st.one_of(st.integers(-70, 9000), st.integers(-(2**63), 2**63 - 1)),
    weight=st.floats(),
    rate=st.none() | st.floats(min_value=-1),
)
RECORDS = st.lists(st.builds(Things, st.lists(THINGS, max_size=3)), min_size=40, max_size=60)
PLAIN = CODEC.encode(Things([Thing("ab", 7, 1.5, 0.25), Thing("é" * 40, -9000, 0.0)]))


def reader(data: bytes = PLAIN) -> ColumnReader:
    found = CODEC.column_reader(data)
    assert found is not None
    return found


def read(records: Sequence[bytes]) -> list[Any]:
    """What is read of each record, None for one that is left."""
    counts, columns = reader(records[0]).read(records)
    rows = list(zip(*(c.tolist() for c in columns.values()), strict=True))
    made, at = [], 0
    for count in counts.tolist():
        made.append(rows[at : at + count] if count else None)
        at += count
    assert at == len(rows)
    return made


def decoded(data: bytes) -> Any:
    """The same by the codec, None for what it refuses."""
    try:
        event = CODEC.decode(data)
    except Undecodable:
        return None
    items = getattr(event, type(event).__struct_fields__[0])
    return [
        tuple(np.nan if v is None else v for v in msgspec.structs.astuple(item)) for item in items
    ]


def same(found: Any, expected: Any) -> bool:
    return repr(found) == repr(expected)  # a NaN is the same as a NaN


@settings(max_examples=60, database=None)
@given(RECORDS)
def test_what_is_read_is_what_the_codec_decodes(things: list[Things]) -> None:
    records = [CODEC.encode(thing) for thing in things]
    for record, found in zip(records, read(records), strict=True):
        assert found is None or same(found, decoded(record))


def test_ordinary_records_are_all_read() -> None:
    calls = [
        LlmCall(id=f"c{n}", model="m", tokens_in=n, tokens_out=10**12, cost=c, task="é" * n)
        for n, c in enumerate((None, 0.0, 0.5, 1_000_000.0))
    ]
    records = [CODEC.encode(LlmCallsRecorded(calls=calls)) for _ in range(40)]
    found = read(records)
    assert all(same(one, decoded(records[0])) for one in found)


def test_a_long_record_among_short_ones_is_left() -> None:
    short, long = Things([Thing("a", 1, 1.0)]), Things([Thing("b", 1, 1.0)] * 50)
    found = read([CODEC.encode(thing) for thing in [short] * 40 + [long] + [short]])
    assert [n for n, one in enumerate(found) if one is None] == [40]


def test_records_with_bytes_behind_the_list_are_left() -> None:
    call = LlmCall(id="c", model="m", tokens_in=1, tokens_out=1)
    sealed = [b"" if number % 3 else bytes(number) for number in range(60)]
    records = [CODEC.encode(LlmCallsRecorded(calls=[call], sealed=each)) for each in sealed]
    found = read(records)
    # Bytes of the length 0 are none.
    assert [one is None for one in found] == [bool(each) for each in sealed]
    for number, (record, one) in enumerate(zip(records, found, strict=True)):
        assert one is None or same(one, decoded(record)), number


def test_a_broken_record_harms_no_other() -> None:
    """Every truncation, trailing bytes, and every byte replaced by every other."""
    broken = [PLAIN[:end] for end in range(5, len(PLAIN))]
    broken += [PLAIN + more for more in (b"\0", b"\2", PLAIN)]
    broken += [
        PLAIN[:at] + bytes([octet]) + PLAIN[at + 1 :]
        for at in range(5, len(PLAIN))
        for octet in range(256)
    ]
    good = [PLAIN] * 40
    for start in range(0, len(broken), 50):
        part = broken[start : start + 50]
        found = read([record for pair in zip(part, [PLAIN] * 50, strict=False) for record in pair])
        found += read([*good, part[0]])
        for record, one in zip(part, found[: 2 * len(part) : 2], strict=True):
            assert one is None or same(one, decoded(record)), record
        # Text that is no UTF-8 anywhere leaves all that is read with it.
        for one in found[1 : 2 * len(part) : 2]:
            assert one is None or same(one, decoded(PLAIN))


@pytest.mark.parametrize(
    "thing",
    [
        Thing("a", 1, 1.0, -0.5),
        Thing("a", 1, 1.0, float("nan")),
        Thing("a", 2**60, 1.0),
    ],
)
def test_out_of_bounds_is_left_to_the_codec(thing: Thing) -> None:
    records = [CODEC.encode(Things([one])) for one in [Thing("a", 1, 1.0)] * 40 + [thing]]
    found = read(records)
    assert found[-1] is None
    assert all(found[:-1])


def test_bytes_of_no_utf8_are_left() -> None:
    bad = PLAIN.replace(b"ab", b"\xff\xfe")
    assert read([PLAIN] * 40 + [bad])[-1] is None


class Deep(Struct, frozen=True, tag="platform.deep.v1"):
    things: list[Things]


class Unbounded(Struct, frozen=True):
    rate: float | None


class Rates(Struct, frozen=True, tag="platform.rates.v1"):
    rates: list[Unbounded]


class Two(Struct, frozen=True, tag="platform.two.v1"):
    things: list[Thing]
    more: str


@pytest.mark.parametrize("event", [Deep, Rates, Two, Thing], ids=lambda cls: cls.__name__)
def test_what_has_no_columns_is_refused(event: type[Struct]) -> None:
    schema = derive(event) if event is not Thing else derive(Things)
    with pytest.raises(TypeError):
        ColumnReader(event, schema, 5)


def test_a_schema_of_another_release_is_refused() -> None:
    older = derive(Things)
    del older["fields"][0]["type"]["items"]["fields"][-1]
    with pytest.raises(TypeError):
        ColumnReader(Things, older, 5)
    codec = Codec([Things], [SchemaVersion(1, tag_of(Things), 1, older)])
    assert codec.column_reader(PLAIN) is None


@pytest.mark.parametrize("data", [b"", b"\0\0", b"\1" + PLAIN[1:], b"\0\0\0\0\x63rubbish"])
def test_rubbish_has_no_reader(data: bytes) -> None:
    assert CODEC.column_reader(data) is None
