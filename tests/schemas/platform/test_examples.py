"""The platform's examples: each through Avro, the audit records a chain, each reduced by the views
that care."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Struct

from commands.platform import DECIDERS
from projections.batches import batch_of
from projections.platform import CLICKHOUSE_VIEWS, VIEWS
from projections.runner import reduce_all
from schemas.avro_derivation import derive, tag_of
from schemas.codec import Codec, SchemaVersion
from schemas.envelope import Actor, Envelope
from schemas.platform import EVENTS
from schemas.platform.audit import AuditRecorded
from schemas.platform.audit_chain import verify

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
each = pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: f"{path.parent.name}/{path.stem}")


def read(path: Path) -> Any:
    return msgspec.json.decode(path.read_bytes(), type=BY_TAG[path.parent.name])


def test_every_event_has_an_example() -> None:
    assert {path.parent.name for path in EXAMPLES} == set(BY_TAG)


@each
def test_an_example_survives_avro(path: Path) -> None:
    event = read(path)
    assert CODEC.decode(CODEC.encode(event)) == event


@each
def test_an_example_is_reduced_by_the_views_that_care(path: Path) -> None:
    event: Struct = read(path)
    envelope = Envelope("evt_1", path.parent.name, "ten_1", "x/y", 1, 0, Actor("user", "usr_1"))
    statements = reduce_all(VIEWS, [(envelope, event)])
    assert statements == reduce_all(VIEWS, [(envelope, event)])
    rows = sum(
        batch_of(view).add(event, envelope, 0, 0)
        for view in CLICKHOUSE_VIEWS
        if isinstance(event, view.events)
    )
    decided = any(isinstance(event, decider.events) for decider in DECIDERS)
    assert (len(statements), rows) == (int(decided), int(isinstance(event, AuditRecorded)))


def test_the_audit_examples_are_a_chain() -> None:
    records = [read(path) for path in EXAMPLES if path.parent.name == tag_of(AuditRecorded)]
    assert len(records) == 2
    assert verify(sorted(records, key=lambda record: record.seq)) is None
