"""A content's hash is the one that a client computes for its own object."""

import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands.prompts.content import Content, hash_of, overridden, read_content
from schemas.avro_derivation import tag_of
from schemas.prompts.prompt import PromptVersionAdded

ROOT = Path(__file__).resolve().parents[3]

AWKWARD: list[Any] = [
    "",
    "plain",
    'quotes " and \\ and / and \t\n\r\b\f',
    "Grüße, 支付, 🙂, \u2028 and \x7f",
    "{{company}}",
    0,
    -1,
    2**63,
    -(2**63) - 1,
    10**400,
    0.1,
    1.0,
    -0.0,
    1e16,
    1e22,
    1e-7,
    5e-324,
    1.7976931348623157e308,
    0.1 + 0.2,
    123456789.123456789,
    True,
    False,
    [],
    {},
    [[], {}, None],
    {"b": 1, "a": {"d": [1.0, 1], "c": None}},
    {"ä": 1, "z": 2, "é": 3, "A": 4, "": 5},
    {"10": 1, "9": 2},
    [{"role": "system", "content": "You help {{company}}."}, {"role": "user", "content": "{{q}}"}],
]


def dumped_hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@pytest.mark.parametrize("content", AWKWARD, ids=repr)
@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_the_hash_is_that_of_the_clients_object_however_it_was_written(
    content: Any, ascii_only: bool, separators: tuple[str, str]
) -> None:
    sent = json.dumps(content, ensure_ascii=ascii_only, separators=separators)
    found = read_content(sent.encode())
    assert found.hash == dumped_hash(content)
    assert repr(json.loads(found.text)) == repr(content)


@pytest.mark.parametrize(
    ("sent", "content"),
    [
        (b"1E5", 100000.0),
        (b"1.50", 1.5),
        (b"-0", 0),
        (b"0.1000000000000000055511151231257827", 0.1),
        (b'"\\u00e9\\/\\ud83d\\ude42"', "é/🙂"),
        (b'{"a": 1, "a": 2}', {"a": 2}),
        (b" [ 1 , 2 ] ", [1, 2]),
    ],
)
def test_what_other_writers_write_is_what_python_reads(sent: bytes, content: Any) -> None:
    assert read_content(sent).hash == dumped_hash(content)


@pytest.mark.parametrize("sent", [b"1e400", b"[-1e999]", b"1" * 5000])
def test_numbers_that_python_would_not_write_are_refused(sent: bytes) -> None:
    with pytest.raises(ValueError):
        read_content(sent)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)


@given(JSON)
def test_reading_what_was_kept_gives_the_same_hash(content: Any) -> None:
    found = read_content(json.dumps(content).encode())
    assert found.hash == hash_of(content) == read_content(found.text.encode()).hash


def test_keys_keep_their_order_in_the_text_and_not_in_the_hash() -> None:
    one, other = read_content(b'{"b":1,"a":2}'), read_content(b'{"a":2,"b":1}')
    assert (one.text, other.text) == ('{"b": 1, "a": 2}', '{"a": 2, "b": 1}')
    assert one.hash == other.hash


def test_overrides_replace_members_and_leave_the_rest_to_the_letter() -> None:
    config = overridden('{"model":"gpt-4o","temperature":0.70,"stop":null}', '{"temperature":1e0}')
    assert config == '{"model":"gpt-4o","temperature":1e0,"stop":null}'
    assert overridden("{}", "{}") == "{}"


def test_the_examples_have_the_hashes_of_their_contents() -> None:
    tag = tag_of(PromptVersionAdded)
    found = [
        msgspec.json.decode(path.read_bytes(), type=PromptVersionAdded)
        for path in (ROOT / "schemas" / "examples" / tag).glob("*.json")
    ]
    assert found
    for version in found:
        assert read_content(version.content.encode()) == Content(
            version.content, version.content_hash
        )
