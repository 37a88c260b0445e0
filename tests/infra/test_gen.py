"""Schemas that were released stay readable: what the generator lets pass and what it refuses."""

from typing import Any

import pytest
from fastavro import parse_schema, schemaless_reader, schemaless_writer
from hypothesis import given
from hypothesis import strategies as st

from infra.gen import Incompatible, check_backward


def record(*fields: dict[str, Any]) -> dict[str, Any]:
    return {"type": "record", "name": "thing_v1", "namespace": "weir.test", "fields": list(fields)}


OLD = record({"name": "a", "type": "long"}, {"name": "b", "type": ["null", "string"]})


@pytest.mark.parametrize(
    "new",
    [
        OLD,
        record(*OLD["fields"], {"name": "c", "type": "string", "default": ""}),
        record({"name": "a", "type": "double"}),
        record({"name": "a", "type": ["null", "long"], "default": None}),
        record({"name": "b", "type": ["null", "string"]}),
    ],
)
def test_what_todays_reader_can_read_is_let_pass(new: dict[str, Any]) -> None:
    check_backward(OLD, new)
    # fastavro is of the same opinion.
    import io

    out = io.BytesIO()
    schemaless_writer(out, parse_schema(OLD), {"a": 7, "b": "x"})
    out.seek(0)
    found = schemaless_reader(out, parse_schema(OLD), parse_schema(new))
    assert isinstance(found, dict)
    assert set(found) == {field["name"] for field in new["fields"]}


@pytest.mark.parametrize(
    ("new", "named"),
    [
        (record(*OLD["fields"], {"name": "c", "type": "string"}), "c is new"),
        (record({"name": "a", "type": "string"}), "a changed"),
        (record({"name": "a", "type": {"type": "array", "items": "long"}}), "a changed"),
        (record({"name": "b", "type": ["null", "long"]}), "b changed"),
    ],
)
def test_what_it_cannot_read_is_refused_by_name(new: dict[str, Any], named: str) -> None:
    with pytest.raises(Incompatible, match=named):
        check_backward(OLD, new)


nested = st.recursive(
    st.sampled_from(["long", "string", "bytes", "boolean", "double"]),
    lambda inner: st.one_of(
        st.builds(lambda items: {"type": "array", "items": items}, inner),
        st.builds(lambda values: {"type": "map", "values": values}, inner),
    ),
    max_leaves=4,
)


@given(nested, nested)
def test_a_changed_type_passes_only_where_every_value_can_be_read(old: Any, new: Any) -> None:
    before = record({"name": "a", "type": old})
    after = record({"name": "a", "type": new})
    same = old == new
    widened = str(old).replace("long", "double") == str(new).replace("long", "double")
    if same:
        check_backward(before, after)
    elif not widened:
        with pytest.raises(Incompatible):
            check_backward(before, after)
