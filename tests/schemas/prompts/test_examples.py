"""The prompts examples, the corpus that other readers are tried on: each through Avro, each folded
by its decider and reduced by every view."""

import json
from pathlib import Path

import msgspec
import pytest
from msgspec import Struct

from commands.prompts.content import hash_of
from commands.prompts.prompt import DECIDER
from commands.prompts.prompt_state import Prompt
from projections.prompts import VIEWS
from projections.runner import reduce_all
from schemas.avro_derivation import derive, tag_of
from schemas.codec import Codec, SchemaVersion
from schemas.envelope import Actor, Envelope
from schemas.prompts import EVENTS
from schemas.prompts.prompt import PromptVersionAdded

ROOT = Path(__file__).resolve().parents[3] / "schemas" / "examples"
BY_TAG = {tag_of(event): event for event in EVENTS}
EXAMPLES = sorted(path for tag in BY_TAG for path in (ROOT / tag).glob("*.json"))
CODEC = Codec(
    EVENTS,
    [
        SchemaVersion(number, tag, 1, derive(event))
        for number, (tag, event) in enumerate(BY_TAG.items())
    ],
)


def read(path: Path) -> Struct:
    return msgspec.json.decode(path.read_bytes(), type=BY_TAG[path.parent.name])


def test_every_event_has_an_example() -> None:
    assert {path.parent.name for path in EXAMPLES} == set(BY_TAG)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_an_example_survives_avro(path: Path) -> None:
    event = read(path)
    assert CODEC.decode(CODEC.encode(event)) == event


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_an_example_is_folded_and_reduced(path: Path) -> None:
    event = read(path)
    assert type(event) in DECIDER.events
    state = DECIDER.evolve(Prompt(), event)  # type: ignore[arg-type]  # one of its own
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=Prompt) == state
    stream = f"{DECIDER.stream}/x"
    envelope = Envelope("evt_1", path.parent.name, "ten_1", stream, 2, 0, Actor("user", "usr_1"))
    assert reduce_all(VIEWS, [(envelope, event)])


def test_the_hashes_are_those_of_the_contents() -> None:
    versions = [event for path in EXAMPLES if isinstance(event := read(path), PromptVersionAdded)]
    assert versions
    for version in versions:
        assert hash_of(json.loads(version.content)) == version.content_hash
