"""LLM calls that were recorded before calls had prices are read as what they are."""

import copy
import io
from typing import Any

import msgspec
from fastavro import parse_schema, schemaless_reader, schemaless_writer

from infra.gen import check_backward
from schemas.avro_derivation import derive, tag_of
from schemas.observability.run import LlmCall, LlmCallsRecorded

NEW = derive(LlmCallsRecorded)
PRICING = {name for name in LlmCall.__struct_fields__ if name.startswith(("cost_", "price_"))}


def before_prices() -> dict[str, Any]:
    """The schema of LLM calls as it was when calls had no price, and nothing was sealed."""
    old = copy.deepcopy(NEW)
    old["fields"] = [field for field in old["fields"] if field["name"] != "sealed"]
    items = old["fields"][0]["type"]["items"]
    items["fields"] = [field for field in items["fields"] if field["name"] not in PRICING]
    assert len(items["fields"]) == len(NEW["fields"][0]["type"]["items"]["fields"]) - len(PRICING)
    return old


def test_calls_recorded_before_prices_are_read_with_what_they_had() -> None:
    old = before_prices()
    check_backward(old, NEW)
    call = dict.fromkeys(("id", "model", "task", "prompt_preview", "response_preview"), "x")
    call |= {"tokens_in": 3, "tokens_out": 4, "cost": 0.5, "prompt_hash": "", "metadata": "{}"}
    out = io.BytesIO()
    schemaless_writer(out, parse_schema(old), {"calls": [call]})
    out.seek(0)
    fields = schemaless_reader(out, parse_schema(old), parse_schema(NEW))
    (found,) = msgspec.convert({**fields, "type": tag_of(LlmCallsRecorded)}, LlmCallsRecorded).calls
    assert (found.cost, found.cost_source, found.cost_pico) == (0.5, "", 0)
    assert found.whole_cost_pico == 500_000_000_000
