"""Bodies and query strings to structs, with the field at fault named.

What msgspec lets through and a later stage would choke on is refused here: NUL (Postgres), lone
surrogates and bad UTF-8 in text that is kept as JSON, integers beyond 64 bits, deep nesting.
"""

import json
import math
import re
from collections.abc import Callable
from functools import cache
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec
from msgspec import Struct, inspect

from api.problems import Problem, Where

MAX_DEPTH = 64  # of nested arrays and objects in a body
_INT64 = (-(2**63), 2**63 - 1)
_MAX_QUERY = 16_384  # bytes of a query string
_MAX_QUERY_FIELDS = 256

# `\u0000` or half of a surrogate pair; whether it is one is settled by the careful reading.
_SUSPECT = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")
_UNKEEPABLE = re.compile("[\x00\ud800-\udfff]")
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"')
_NOT_BRACKETS = bytes(set(range(256)) - set(b'"\\[]{}'))
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_PLACE = re.compile(r"^(.*?)(?: - at `(key in )?\$?([^`]*)`)?$", re.DOTALL)
_INTEGER_EXPECTED = re.compile(r"Expected `int[^`]*`, got `float`")
_EXACT = 2**53
_MISSING = re.compile(r"^Object missing required field `([^`]*)`$")


class DeclarationError(TypeError):
    """A route's struct could take in what the log or the database can't hold."""


def invalid(error: Exception, status: int, where: Where) -> Problem:
    """The problem of a value that has the wrong shape, its field named."""
    found = _PLACE.match(str(error))
    assert found is not None, "the pattern matches any text"
    message, field = found[1], (found[3] or "").lstrip(".")
    missing = _MISSING.match(message)
    if missing:
        field = f"{field}.{missing[1]}" if field else missing[1]
        message = "Field required"
    return Problem(status, "validation_error", message, field=field, where=where)


def malformed(message: str, status: int) -> Problem:
    """The problem of a body that is not JSON."""
    return Problem(status, "validation_error", message)


BodyDecoder = Callable[[bytes], Any]


@cache
def body_decoder(
    type_: Any, *, malformed_status: int, invalid_status: int, lenient: bool = False
) -> BodyDecoder:
    """A function from a request's bytes to a value of `type_`; it raises Problem.

    lenient: NaN and Infinity are read as null, and whole numbers written as `150.0` as integers. An
    empty body stands for `{}` when every field has a default. Raises DeclarationError for a type
    with unbounded integers.
    """
    bounded(type_)
    decode = msgspec.json.Decoder(type_).decode
    keeps_json = _keeps_json(type_)
    optional = _all_optional(type_)

    def strict(body: bytes) -> Any:
        if not body.strip():
            if optional:
                return decode(b"{}")
            raise malformed("The request needs a JSON body", malformed_status)
        _check_text(body, malformed_status, invalid_status)
        if keeps_json:
            check_depth(body, malformed_status)
        try:
            return decode(body)
        except msgspec.ValidationError as error:
            if lenient and _INTEGER_EXPECTED.match(str(error)):
                return decode_lenient(body)
            raise invalid(error, invalid_status, "body") from None
        except msgspec.DecodeError as error:
            if lenient and (b"NaN" in body or b"Infinity" in body):
                return decode_lenient(body)
            raise malformed(f"The body is not JSON: {error}", malformed_status) from None
        except (RecursionError, UnicodeDecodeError):
            raise malformed("The body is nested too deeply", malformed_status) from None

    def decode_lenient(body: bytes) -> Any:
        # Python's reader knows NaN; writing its values again makes them null.
        try:
            plain = msgspec.json.encode(json.loads(body, parse_float=_number))
            return decode(plain)
        except msgspec.ValidationError as error:
            raise invalid(error, invalid_status, "body") from None
        except (ValueError, RecursionError, OverflowError):
            raise malformed("The body is not JSON", malformed_status) from None

    return strict


def _number(text: str) -> float | int:
    """A JSON number with a fraction or an exponent; an integer if it is whole, as JSON Schema has
    it. Beyond what a float holds exactly it stays one."""
    number = float(text)
    return int(number) if abs(number) <= _EXACT and number.is_integer() else number


def _check_text(body: bytes, malformed_status: int, invalid_status: int) -> None:
    """Refuse text that can't be kept: bad UTF-8, NUL, lone surrogates. Raises Problem."""
    if not body.isascii():
        try:
            body.decode()
        except UnicodeDecodeError as error:
            message = f"The body is not UTF-8 (byte {error.start})"
            raise malformed(message, malformed_status) from None
    if b"\\u" in body and _SUSPECT.search(body):
        try:
            document = json.loads(body)
        except (ValueError, RecursionError):
            return  # the decoder says what is wrong
        place = _unkeepable(document)
        if place is not None:
            field = place.lstrip(".")
            message = "NUL and lone surrogates are not allowed in text"
            raise Problem(invalid_status, "validation_error", message, field=field)


def _unkeepable(value: Any) -> str | None:
    """The path of the first text with a NUL or a lone surrogate."""
    stack: list[tuple[str, Any]] = [("", value)]
    while stack:
        place, item = stack.pop()
        if isinstance(item, str):
            if _UNKEEPABLE.search(item):
                return place
        elif isinstance(item, dict):
            for key, inner in item.items():
                stack.append((f"{place}.{key.encode('ascii', 'replace').decode()}", inner))
                stack.append((f"{place}.(key)", key))
        elif isinstance(item, list):
            stack.extend((f"{place}[{index}]", inner) for index, inner in enumerate(item))
    return None


def check_depth(body: bytes, status: int) -> None:
    """Refuse a body nested deeper than MAX_DEPTH. Raises Problem.

    Only bodies with more brackets than that are looked at, and of those only the brackets.
    """
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return
    brackets = _STRINGS.sub(b"", body.translate(_ONE_KIND, _NOT_BRACKETS))
    for _ in range(MAX_DEPTH):
        if not brackets:
            return
        shorter = brackets.replace(b"[]", b"")  # one level of every branch
        if len(shorter) == len(brackets):
            return  # unbalanced: the decoder says so
        brackets = shorter
    if brackets:
        raise malformed(f"The body is nested more than {MAX_DEPTH} levels deep", status)


QueryDecoder = Callable[[bytes], Any]


@cache
def query_decoder(struct: type[Struct], *, status: int) -> QueryDecoder:
    """A function from a raw query string to a `struct`; it raises Problem naming the parameter.

    Unknown parameters are ignored; a repeated one fills a list, or the last one counts. One without
    a value is not there, unless it is text: clients write `version=` for no version.
    """
    bounded(struct)
    fields = _struct_info(struct).fields
    lists = {field.encode_name: _is_list(field.type) for field in fields}
    texts = {field.encode_name for field in fields if _holds(inspect.StrType, field.type)}
    floats = [field.name for field in fields if _holds(inspect.FloatType, field.type)]

    def decode(raw: bytes) -> Any:
        values: dict[str, Any] = {}
        if raw:
            for name, value in parse_query(raw, status):
                listed = lists.get(name)
                if listed is None:
                    continue
                if listed:
                    values.setdefault(name, []).append(value)
                elif value or name in texts:
                    values[name] = value
        try:
            query = msgspec.convert(values, struct, strict=False)
        except msgspec.ValidationError as error:
            raise invalid(error, status, "query") from None
        for name in floats:
            number = getattr(query, name)
            if isinstance(number, float) and not math.isfinite(number):
                raise Problem(
                    status,
                    "validation_error",
                    "Expected a finite number",
                    field=name,
                    where="query",
                )
        return query

    return decode


def parse_query(raw: bytes, status: int) -> list[tuple[str, str]]:
    """Names and values of a query string, percent-decoded. Raises Problem for what is no text."""
    if len(raw) > _MAX_QUERY:
        raise Problem(status, "validation_error", "The query string is too long", where="query")
    parts = raw.split(b"&")
    if len(parts) > _MAX_QUERY_FIELDS:
        raise Problem(status, "validation_error", "Too many query parameters", where="query")
    pairs = []
    for part in parts:
        name, _, value = part.partition(b"=")
        try:
            key = unquote_to_bytes(name.replace(b"+", b" ")).decode()
        except UnicodeDecodeError:
            continue  # no parameter of ours has such a name
        try:
            text = unquote_to_bytes(value.replace(b"+", b" ")).decode()
        except UnicodeDecodeError:
            text = "\0"
        if "\0" in text:
            raise Problem(
                status,
                "validation_error",
                "Expected text in UTF-8 without NUL",
                field=key,
                where="query",
            )
        if key:
            pairs.append((key, text))
    return pairs


def bounded(type_: Any) -> None:
    """Raise DeclarationError when an integer in the type has no range within 64 bits, or a default
    is one that OpenAPI can't show."""
    for place, found in _walk(inspect.type_info(type_), "", set()):
        if isinstance(found, inspect.IntType):
            low = found.ge if found.ge is not None else found.gt
            high = found.le if found.le is not None else found.lt
            if low is None or high is None or low < _INT64[0] or high > _INT64[1] + 1:
                raise DeclarationError(
                    f"{type_}{place}: give the integer a range (schemas.types.Count, Int64)"
                )
        if isinstance(found, inspect.StructType):
            for field in found.fields:
                if isinstance(field.default, msgspec.Raw):
                    raise DeclarationError(
                        f"{found.cls.__name__}.{field.name}: a raw default can't be documented; "
                        "use msgspec.field(default_factory=...)"
                    )


def _walk(found: inspect.Type, place: str, seen: set[type]) -> list[tuple[str, inspect.Type]]:
    here = [(place, found)]
    match found:
        case inspect.Metadata():
            return _walk(found.type, place, seen)
        case inspect.StructType():
            if found.cls in seen:
                return here
            seen = {*seen, found.cls}
            for field in found.fields:
                here += _walk(field.type, f"{place}.{field.encode_name}", seen)
        case inspect.UnionType():
            for option in found.types:
                here += _walk(option, place, seen)
        case (
            inspect.ListType()
            | inspect.SetType()
            | inspect.FrozenSetType()
            | inspect.VarTupleType()
        ):
            here += _walk(found.item_type, f"{place}[]", seen)
        case inspect.TupleType():
            for item in found.item_types:
                here += _walk(item, f"{place}[]", seen)
        case inspect.DictType():
            here += _walk(found.key_type, f"{place}.key", seen)
            here += _walk(found.value_type, f"{place}.*", seen)
        case _:
            pass
    return here


def _keeps_json(type_: Any) -> bool:
    """Whether values of the type can be nested without end."""
    return any(
        isinstance(found, inspect.AnyType | inspect.RawType)
        for _, found in _walk(inspect.type_info(type_), "", set())
    )


def _all_optional(type_: Any) -> bool:
    found = inspect.type_info(type_)
    return isinstance(found, inspect.StructType) and not any(
        field.required for field in found.fields
    )


def _struct_info(struct: type[Struct]) -> inspect.StructType:
    found = inspect.type_info(struct)
    assert isinstance(found, inspect.StructType), "a query is declared as a struct"
    return found


def _is_list(found: inspect.Type) -> bool:
    if isinstance(found, inspect.UnionType):
        return any(_is_list(option) for option in found.types)
    kinds = inspect.ListType | inspect.SetType | inspect.FrozenSetType | inspect.VarTupleType
    return isinstance(found, kinds)


def _holds(kind: type[inspect.Type], found: inspect.Type) -> bool:
    if isinstance(found, inspect.UnionType):
        return any(_holds(kind, option) for option in found.types)
    return isinstance(found, kind)
