"""Bodies and query strings: what is let in, what is refused, and the field that is named."""

import json
from typing import Annotated, Any

import msgspec
import pytest
from msgspec import Meta, Struct

from api.decoding import (
    MAX_DEPTH,
    DeclarationError,
    body_decoder,
    bounded,
    check_depth,
    query_decoder,
)
from api.problems import Problem

Small = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]


class Item(Struct):
    name: Annotated[str, Meta(min_length=1, max_length=10)]
    count: Small = 0
    score: float | None = None


class Body(Struct):
    items: list[Item]
    extra: Any = None
    labels: dict[str, str] = {}


class Optional(Struct):
    reason: str = ""


class Query(Struct):
    model: list[str] = []
    search: str = ""
    limit: Annotated[int, Meta(ge=1, le=100)] = 25
    min_cost: float | None = None
    claimed: bool | None = None


decode = body_decoder(Body, malformed_status=400, invalid_status=422)
lenient = body_decoder(Body, malformed_status=400, invalid_status=422, lenient=True)
query = query_decoder(Query, status=400)


def refused(decoder: Any, content: bytes) -> Problem:
    with pytest.raises(Problem) as caught:
        decoder(content)
    assert caught.value.code == "validation_error"
    return caught.value


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b"", 400, ""),
        (b"  \n", 400, ""),
        (b"{", 400, ""),
        (b"{'items': []}", 400, ""),
        (b'{"items":[]} x', 400, ""),
        (b'{"items":[{"name":"\xff"}]}', 400, ""),
        (b'{"items":[{"name":"a","score":NaN}]}', 400, ""),
        (b'{"items":[{"name":"\\ud800"}]}', 422, "items[0].name"),
        (b"[]", 422, ""),
        (b"{}", 422, "items"),
        (b'{"items":[{}]}', 422, "items[0].name"),
        (b'{"items":[{"name":"a"},{"name":""}]}', 422, "items[1].name"),
        (b'{"items":[{"name":"a","count":"1"}]}', 422, "items[0].count"),
        (b'{"items":[{"name":"a","count":1.5}]}', 422, "items[0].count"),
        (b'{"items":[{"name":"a","count":9223372036854775808}]}', 422, "items[0].count"),
        (b'{"items":[{"name":"a","count":-9223372036854775809}]}', 422, "items[0].count"),
        (b'{"items":[{"name":"a","score":1e999}]}', 422, "items[0].score"),
        (b'{"items":[{"name":"a\\u0000"}]}', 422, "items[0].name"),
        (b'{"items":[],"labels":{"a":1}}', 422, "labels[...]"),
        (b'{"items":[],"extra":{"deep":["\\u0000"]}}', 422, "extra.deep[0]"),
        (b'{"items":[],"extra":{"\\u0000":1}}', 422, "extra.(key)"),
        (b'{"items":' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, ""),
        (b'{"unknown":' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, ""),
        (b"[" * 5_000, 422, ""),
    ],
)
def test_a_bad_body_is_refused_and_its_field_named(body: bytes, status: int, field: str) -> None:
    problem = refused(decode, body)
    assert (problem.status, problem.field) == (status, field)


def test_the_message_says_what_was_expected() -> None:
    problem = refused(decode, b'{"items":[{"name":1}]}')
    assert problem.text == "items[0].name: Expected `str`, got `int`"
    assert refused(decode, b"{}").text == "items: Field required"


@pytest.mark.parametrize(
    "body",
    [
        b'{"items":[],"unknown":{"a":1}}',
        b'{"items":[{"name":"a","count":-9223372036854775808}]}',
        b'{"items":[{"name":"\\\\u0000"}]}',
        b'{"items":[{"name":"\\ud83d\\ude00"}]}',
        '{"items":[{"name":"größe"}]}'.encode(),
        b'{"items":[],"items":[]}',
    ],
)
def test_a_good_body_is_read(body: bytes) -> None:
    assert isinstance(decode(body), Body)


def test_an_escaped_backslash_is_no_nul() -> None:
    assert decode(b'{"items":[{"name":"\\\\u0000"}]}').items[0].name == "\\u0000"


def test_lenient_reads_nan_and_infinity_as_null() -> None:
    for word in (b"NaN", b"Infinity", b"-Infinity"):
        body = lenient(b'{"items":[{"name":"a","score":' + word + b'}],"extra":[' + word + b"]}")
        assert body.items[0].score is None
        assert body.extra == [None]


def test_lenient_reads_a_whole_number_with_a_fraction_as_an_integer() -> None:
    for number in (b"150.0", b"1.5e2"):
        body = lenient(b'{"items":[{"name":"a","count":' + number + b',"score":0.5}]}')
        assert (body.items[0].count, body.items[0].score) == (150, 0.5)


@pytest.mark.parametrize("number", [b"1.5", b"1e300", b'"1"', b"9007199254740994.0"])
def test_lenient_takes_nothing_else_for_an_integer(number: bytes) -> None:
    problem = refused(lenient, b'{"items":[{"name":"a","count":' + number + b"}]}")
    assert (problem.status, problem.field) == (422, "items[0].count")


def test_only_lenient_takes_a_fraction_for_an_integer() -> None:
    assert refused(decode, b'{"items":[{"name":"a","count":150.0}]}').field == "items[0].count"


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b'{"items":[{"name":NaN}]}', 422, "items[0].name"),
        (b'{"items":[{"name":"a","score":NaN}', 400, ""),
        (b'{"items":[{"name":"\\ud800","score":NaN}]}', 422, "items[0].name"),
        (b'{"items":NaN,"extra":' + b"[" * 100_000 + b"}", 400, ""),
    ],
)
def test_lenient_refuses_the_rest_as_ever(body: bytes, status: int, field: str) -> None:
    problem = refused(lenient, body)
    assert problem.status in (status, 400)
    assert problem.field in (field, "items[0].name")


def test_an_empty_body_stands_for_an_object_of_defaults() -> None:
    read = body_decoder(Optional, malformed_status=400, invalid_status=400)
    assert read(b"") == Optional()
    assert read(b'{"reason":"x"}') == Optional("x")


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def test_depth_is_counted_outside_of_strings() -> None:
    check_depth(nested(MAX_DEPTH), 400)
    check_depth(json.dumps(["[" * 500, '"[' * 500, "\\" + "{" * 500]).encode(), 400)
    check_depth(json.dumps([[1, {"a": [2]}]] * 500).encode(), 400)
    with pytest.raises(Problem) as caught:
        check_depth(nested(MAX_DEPTH + 1), 400)
    assert caught.value.status == 400
    with pytest.raises(Problem):
        check_depth(b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1), 400)


def test_json_that_is_kept_as_it_is_has_a_depth_too() -> None:
    assert decode(b'{"items":[],"extra":' + nested(MAX_DEPTH - 1) + b"}").extra is not None
    assert refused(decode, b'{"items":[],"extra":' + nested(MAX_DEPTH) + b"}").status == 400


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", Query()),
        (b"model=a&model=b%20c", Query(model=["a", "b c"])),
        (b"search=a+b&search=c%26d", Query(search="c&d")),
        (b"limit=7&unknown=x&%ff=y", Query(limit=7)),
        (b"min_cost=0.5&claimed=true", Query(min_cost=0.5, claimed=True)),
        (b"claimed=false", Query(claimed=False)),
        (b"search=", Query(search="")),
        (b"limit=&min_cost=&claimed=", Query()),
        (b"search=null", Query(search="null")),
        (b"&&search=%E2%82%AC", Query(search="€")),
    ],
)
def test_a_query_is_read_with_its_types(text: bytes, expected: Query) -> None:
    assert query(text) == expected


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (b"limit=x", "limit"),
        (b"limit=0", "limit"),
        (b"limit=101", "limit"),
        (b"limit=1.5", "limit"),
        (b"limit=99999999999999999999", "limit"),
        (b"min_cost=nan", "min_cost"),
        (b"min_cost=-inf", "min_cost"),
        (b"min_cost=1e999", "min_cost"),
        (b"claimed=perhaps", "claimed"),
        (b"search=%00", "search"),
        (b"search=%ff", "search"),
        (b"model=a&model=%00", "model"),
        (b"search=" + b"x" * 20_000, ""),
        (b"&".join([b"a=1"] * 300), ""),
    ],
)
def test_a_bad_query_is_refused_and_its_parameter_named(text: bytes, field: str) -> None:
    problem = refused(query, text)
    assert (problem.status, problem.field, problem.where) == (400, field, "query")


class Unbounded(Struct):
    inner: list[dict[str, int | None]]


class RawDefault(Struct):
    inputs: msgspec.Raw = msgspec.Raw(b"{}")


class Recursive(Struct):
    children: "list[Recursive]" = []


def test_a_type_that_takes_too_much_is_refused_where_it_is_declared() -> None:
    with pytest.raises(DeclarationError, match=r"inner\[\]\.\*: give the integer a range"):
        bounded(Unbounded)
    with pytest.raises(DeclarationError, match=r"RawDefault\.inputs"):
        bounded(RawDefault)
    with pytest.raises(DeclarationError):
        bounded(Annotated[int, Meta(ge=0)])
    bounded(Recursive)
