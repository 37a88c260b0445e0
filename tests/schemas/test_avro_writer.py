"""The generated writers write what fastavro writes, for every event and command."""

import io
from typing import Any

import fastavro
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from commands import commands
from schemas import EVENTS
from schemas.avro_derivation import derive, tag_of
from schemas.avro_writer import compile_writer

TYPES = [*EVENTS, *commands()]
INT64 = st.integers(-(2**63), 2**63 - 1)
SIMPLE: dict[str, st.SearchStrategy[Any]] = {
    "string": st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    "long": st.one_of(st.integers(-70, 9000), INT64),
    "double": st.floats(allow_nan=False),
    "boolean": st.booleans(),
    "bytes": st.binary(max_size=20),
}


def values(schema: Any, named: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Plain values of an Avro schema."""
    if isinstance(schema, str):
        return SIMPLE[schema] if schema in SIMPLE else values(named[schema], named)
    if isinstance(schema, list):
        return st.none() | values(schema[1], named)
    if schema["type"] == "record":
        named[schema["name"]] = schema
        fields = {field["name"]: values(field["type"], named) for field in schema["fields"]}
        return st.fixed_dictionaries(fields)
    if schema["type"] == "array":
        return st.lists(values(schema["items"], named), max_size=3)
    return st.dictionaries(SIMPLE["string"], values(schema["values"], named), max_size=3)


class Loose:
    """Stands for a struct of any type: writers look at attributes only."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self.__dict__.update({name: loose(value) for name, value in fields.items()})


def loose(value: Any) -> Any:
    if isinstance(value, dict):
        made = {name: loose(item) for name, item in value.items()}
        return Loose(value) if is_record(value) else made
    return [loose(item) for item in value] if isinstance(value, list) else value


def is_record(value: dict[str, Any]) -> bool:
    return "\0record" in value


def records(schema: Any) -> dict[str, Any]:
    """The records that a schema defines, by name."""
    inner: list[Any] = schema if isinstance(schema, list) else []
    found: dict[str, Any] = {}
    if isinstance(schema, dict):
        inner = [schema.get("items"), schema.get("values")]
        if schema["type"] == "record":
            found[schema["name"]] = schema
            inner = [field["type"] for field in schema["fields"]]
    for one in inner:
        found |= records(one)
    return found


def marked(schema: Any, value: Any, named: dict[str, Any]) -> Any:
    """Records within a value told apart from maps; named: the records there are."""
    if isinstance(schema, list):
        return None if value is None else marked(schema[1], value, named)
    schema = named.get(schema, schema) if isinstance(schema, str) else schema
    if isinstance(schema, str):
        return value
    if schema["type"] == "record":
        fields = {f["name"]: marked(f["type"], value[f["name"]], named) for f in schema["fields"]}
        return {**fields, "\0record": True}
    if schema["type"] == "array":
        return [marked(schema["items"], item, named) for item in value]
    if schema["type"] == "map":
        return {name: marked(schema["values"], item, named) for name, item in value.items()}
    return value


@pytest.mark.parametrize("struct", TYPES, ids=tag_of)
def test_every_type_is_written_as_fastavro_writes_it(struct: type[Struct]) -> None:
    schema = derive(struct)
    write, parsed = compile_writer(struct, schema), fastavro.parse_schema(derive(struct))
    named = records(schema)

    @settings(max_examples=15, database=None)
    @given(values(schema, {}))
    def check(value: Any) -> None:
        out = io.BytesIO()
        fastavro.schemaless_writer(out, parsed, value)
        assert write(Loose(marked(schema, value, named))) == out.getvalue()

    check()


def test_an_integer_beyond_64_bits_is_refused() -> None:
    class Counted(Struct, tag="platform.counted.v1"):
        n: int

    write = compile_writer(Counted, derive(Counted))
    for n in (2**63, -(2**63) - 1):
        with pytest.raises(OverflowError):
            write(Counted(n))


def test_a_record_in_a_map_in_a_list_is_written() -> None:
    class Leaf(Struct):
        name: str
        size: float | None = None

    class Tree(Struct, tag="platform.tree.v1"):
        leaves: list[dict[str, Leaf]]
        more: dict[str, list[Leaf]] | None = None

    schema = derive(Tree)
    tree = Tree([{"a": Leaf("x", 1.5)}, {}], {"b": [Leaf("y")]})
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(derive(Tree)), msgspec.to_builtins(tree))
    assert compile_writer(Tree, schema)(tree) == out.getvalue()
