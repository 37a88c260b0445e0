"""Canonical JSON against the examples of RFC 8785, and what must not get in."""

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands.approvals.payload import (
    MAX_DEPTH,
    NotCanonical,
    canonical_json,
    modified,
    payload_hash,
)

# RFC 8785, appendix B: IEEE 754 bits and what ECMAScript writes.
NUMBERS = {
    0x0000000000000000: "0",
    0x8000000000000000: "0",
    0x0000000000000001: "5e-324",
    0x8000000000000001: "-5e-324",
    0x7FEFFFFFFFFFFFFF: "1.7976931348623157e+308",
    0x4340000000000000: "9007199254740992",
    0x4430000000000000: "295147905179352830000",
    0x44B52D02C7E14AF5: "9.999999999999997e+22",
    0x44B52D02C7E14AF6: "1e+23",
    0x44B52D02C7E14AF7: "1.0000000000000001e+23",
    0x444B1AE4D6E2EF4E: "999999999999999700000",
    0x444B1AE4D6E2EF4F: "999999999999999900000",
    0x444B1AE4D6E2EF50: "1e+21",
    0x3EB0C6F7A0B5ED8C: "9.999999999999997e-7",
    0x3EB0C6F7A0B5ED8D: "0.000001",
    0x41B3DE4355555553: "333333333.3333332",
    0x41B3DE4355555554: "333333333.33333325",
    0x41B3DE4355555555: "333333333.3333333",
    0xBECBF647612F3696: "-0.0000033333333333333333",
}


@pytest.mark.parametrize(("bits", "text"), NUMBERS.items())
def test_numbers_are_written_as_ecmascript_writes_them(bits: int, text: str) -> None:
    (number,) = struct.unpack(">d", bits.to_bytes(8))
    assert canonical_json(number) == text


def test_the_example_of_the_specification() -> None:
    value = {
        "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": "\u20ac$\u000f\u000aA'\u0042\u0022\u005c\\\"\u002f",
        "literals": [None, True, False],
    }
    assert canonical_json(value) == (
        '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )


def test_names_are_sorted_by_utf_16_code_units() -> None:
    names = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\u0080", "\u00f6"]
    text = canonical_json(dict.fromkeys(names, 0))
    assert list(json.loads(text)) == ["\r", "1", "\u0080", "ö", "€", "\U0001f600", "\ufb33"]


def test_integers_keep_all_their_digits() -> None:
    assert canonical_json(2**64 + 1) == "18446744073709551617"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": "x\x00"}, "holds a NUL character"),
        ({"\x00": 1}, "holds a NUL character"),
        ({"a": "x" * 10_240}, "is larger than 10 KB of JSON"),
        ([float("inf")], "holds a number that is not finite"),
    ],
)
def test_what_cannot_be_kept_is_refused_in_words(value: object, message: str) -> None:
    with pytest.raises(NotCanonical, match=message):
        canonical_json(value)


def test_nesting_has_a_limit() -> None:
    value: list[object] = []
    for _ in range(MAX_DEPTH):
        value = [value]
    assert canonical_json(value).count("[") == MAX_DEPTH + 1
    with pytest.raises(NotCanonical, match="nested deeper"):
        canonical_json([value])


def test_exactly_ten_kilobytes_are_kept() -> None:
    assert len(canonical_json("x" * (10_240 - 2))) == 10_240


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"])),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_canonical_text_means_the_same_and_is_its_own_canonical_form(value: object) -> None:
    text = canonical_json(value, max_bytes=1_000_000)
    # As doubles, for beyond 2^53 the digits of a double are those that ECMAScript writes.
    assert json.loads(text, parse_int=float) == json.loads(json.dumps(value), parse_int=float)
    assert canonical_json(json.loads(text), max_bytes=1_000_000) == text


def test_the_payload_hash_depends_on_action_and_context() -> None:
    # printf '%s' '{"action":"a","context":{}}' | sha256sum
    first = payload_hash("a", "{}")
    assert first == "9ee98423eab6fecf2e0afdadbef7e9eac85d0c888b18ef77c1021d193be76c16"
    assert len({first, payload_hash("b", "{}"), payload_hash("a", '{"x":1}')}) == 3


@pytest.mark.parametrize(
    ("context", "modifications", "merged"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"a": 1, "e": None}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_modifications_are_merged_as_rfc_7396_says(
    context: object, modifications: object, merged: object
) -> None:
    found = modified(canonical_json(context), canonical_json(modifications))
    assert found == canonical_json(merged)


def test_two_objects_of_the_largest_size_can_be_merged() -> None:
    halves = [canonical_json({name: "x" * (10_240 - 8)}) for name in "ab"]
    assert len(modified(*halves)) == 2 * 10_240 - 1
