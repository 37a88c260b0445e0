"""The examples, the corpus that other readers are tried on: every event of every domain through
Avro, folded by its decider and shown by the views that care."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from commands import DECIDERS
from projections import CLICKHOUSE_VIEWS, VIEWS
from projections.batches import Place, batch_of
from projections.runner import reduce_all
from schemas import EVENTS
from schemas.avro_derivation import derive, tag_of
from schemas.codec import Codec, SchemaVersion
from schemas.envelope import Actor, Envelope

ROOT = Path(__file__).resolve().parents[2] / "schemas" / "examples"
BY_TAG = {tag_of(event): event for event in EVENTS}
EXAMPLES = sorted(ROOT.glob("*/*.json"))
CODEC = Codec(
    EVENTS,
    [
        SchemaVersion(number, tag, 1, derive(event))
        for number, (tag, event) in enumerate(BY_TAG.items())
    ],
)
each = pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: f"{path.parent.name}/{path.stem}")

# What no view shows: a signal and how far a job is are told and not looked up, a decider counts
# failed logins, outcomes are the deciders' memory of answers, whoever fills a view lets go of a
# key, webhooks are in tables of the sender's own, and the receipt of an erased key is for whoever
# reads the log.
UNSHOWN = {
    "approvals.signal_broadcast.v1",
    "billing.subscription_change_due.v1",
    "billing.usage_bill_due.v1",
    "billing.usage_billed.v1",
    "billing.usage_period_closed.v1",
    "billing.usage_period_opened.v1",
    "fhe.evaluation_key_erased.v1",
    "fhe.job_progressed.v1",
    "identity.login_failed.v1",
    "observability.person_forgotten.v1",
    "platform.command_handled.v1",
    "platform.webhook_requested.v1",
    "platform.webhook_redriven.v1",
    "platform.webhook_attempted.v1",
    "tenancy.trial_began.v1",
    "tenancy.trial_ended.v1",
    "tenancy.trial_granted.v1",
}


def read(path: Path) -> Any:
    return msgspec.json.decode(path.read_bytes(), type=BY_TAG[path.parent.name])


def test_every_event_has_an_example_and_every_example_an_event() -> None:
    assert {path.parent.name for path in EXAMPLES} == set(BY_TAG)


@each
def test_an_example_survives_avro(path: Path) -> None:
    event = read(path)
    assert CODEC.decode(CODEC.encode(event)) == event


@each
def test_an_example_is_folded_into_a_state_that_survives_being_stored(path: Path) -> None:
    event = read(path)
    deciders = [decider for decider in DECIDERS if isinstance(event, decider.events)]
    assert len(deciders) <= 1
    for decider in deciders:
        state = decider.evolve(decider.initial, event)
        assert msgspec.json.decode(msgspec.json.encode(state), type=type(state)) == state


@each
def test_an_example_is_shown_by_the_views_that_care(path: Path) -> None:
    event, tag = read(path), path.parent.name
    streams = [decider.stream for decider in DECIDERS if isinstance(event, decider.events)]
    stream = f"{streams[0] if streams else tag.partition('.')[0]}/x"
    envelope = Envelope("evt_1", tag, "ten_1", stream, 1, 0, Actor("user", "usr_1"))
    statements = reduce_all(VIEWS, [(envelope, event)])
    assert statements == reduce_all(VIEWS, [(envelope, event)])
    views = [view.name for view, _ in statements]
    for one in VIEWS:
        assert bool(one.reduce(event, envelope)) == (type(event) in one.events), one.name
    rows = [(view.name, *made.key.values()) for view, made in statements]
    assert len(rows) == len(set(rows)), "a view changes a row once for an event"
    for view in CLICKHOUSE_VIEWS:
        if isinstance(event, view.events):
            assert batch_of(view).add([event], [envelope], [Place(0, 0)])
            views.append(view.name)
    assert bool(views) != (tag in UNSHOWN)
