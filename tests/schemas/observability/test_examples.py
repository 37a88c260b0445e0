"""The examples of what has a decider, or more to it than its fields: through Avro and the views."""

import copy
from pathlib import Path

import msgspec
import pytest
from fastavro import parse_schema, schemaless_reader, schemaless_writer
from msgspec import Struct

from commands.observability import DECIDERS
from infra.gen import check_backward
from projections.observability import VIEWS
from projections.observability.llm_calls import LLM_CALLS
from projections.runner import reduce_all
from schemas.avro_derivation import derive, tag_of
from schemas.codec import Codec, SchemaVersion
from schemas.envelope import Actor, Envelope
from schemas.observability import EVENTS
from schemas.observability.run import LlmCall, LlmCallsRecorded

ROOT = Path(__file__).resolve().parents[3] / "schemas" / "examples"
BY_TAG = {tag_of(event): event for event in EVENTS}
DECIDED = {tag_of(event) for decider in DECIDERS for event in decider.events}
EXAMPLES = sorted(path for tag in BY_TAG for path in (ROOT / tag).glob("*.json"))
NEW = derive(LlmCallsRecorded)
CODEC = Codec(
    EVENTS,
    [SchemaVersion(n, tag, 1, derive(event)) for n, (tag, event) in enumerate(BY_TAG.items())],
)
PRICING = {name for name in LlmCall.__struct_fields__ if name.startswith(("cost_", "price_"))}


def read(path: Path) -> Struct:
    return msgspec.json.decode(path.read_bytes(), type=BY_TAG[path.parent.name])


def envelope(stream: str) -> Envelope:
    return Envelope("evt_1", "t", "ten_1", stream, 1, 0, Actor("user", "usr_1"))


def test_everything_decided_has_an_example() -> None:
    assert {path.parent.name for path in EXAMPLES} >= DECIDED


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_an_example_survives_avro(path: Path) -> None:
    event = read(path)
    assert CODEC.decode(CODEC.encode(event)) == event


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_an_example_is_folded_and_reduced(path: Path) -> None:
    event = read(path)
    if isinstance(event, LlmCallsRecorded):
        rows = LLM_CALLS.rows(event, envelope("observability.run/run_1"))
        assert [len(row) for row in rows] == [len(LLM_CALLS.columns)] * len(event.calls)
        return
    (decider,) = [item for item in DECIDERS if type(event) in item.events]
    state = decider.evolve(decider.initial, event)
    assert msgspec.json.decode(msgspec.json.encode(state), type=type(state)) == state
    reduced = reduce_all(VIEWS, [(envelope(f"{decider.stream}/m"), event)])
    names = {"observability.model_cost": "model_costs", "observability.repricing": "repricings"}
    assert {view.name for view, _ in reduced} == {names[decider.stream]}


def before_prices() -> dict[str, object]:
    """The schema of LLM calls as it was when calls had no price."""
    old = copy.deepcopy(NEW)
    items = old["fields"][0]["type"]["items"]
    items["fields"] = [field for field in items["fields"] if field["name"] not in PRICING]
    assert len(items["fields"]) == 10
    return old


def test_calls_recorded_before_prices_are_read_with_what_they_had() -> None:
    import io

    old = before_prices()
    check_backward(old, NEW)
    call = dict.fromkeys(("id", "model", "task", "prompt_preview", "response_preview"), "x")
    call |= {"tokens_in": 3, "tokens_out": 4, "cost": 0.5, "prompt_hash": "", "metadata": "{}"}
    out = io.BytesIO()
    schemaless_writer(out, parse_schema(old), {"calls": [call]})
    out.seek(0)
    fields = schemaless_reader(out, parse_schema(old), parse_schema(NEW))
    (found,) = msgspec.convert({**fields, "type": tag_of(LlmCallsRecorded)}, LlmCallsRecorded).calls
    assert (found.cost, found.cost_source, found.cost_pico) == (0.5, "", None)
    assert found.whole_cost_pico == 500_000_000_000
