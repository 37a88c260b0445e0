"""An erasure is requested once, and each of its steps is recorded once, by the eraser alone."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands.observability.erasure import (
    DECIDER,
    CompleteUserErasure,
    Erasure,
    RecordReadModelErased,
    RecordUserKeyDropped,
    RequestUserErasure,
)
from commands.refusals import ActorForbidden, AlreadyDone, NotFound
from schemas.envelope import SYSTEM
from schemas.observability.erasure import (
    ReadModelErased,
    UserErasureCompleted,
    UserErasureRequested,
    UserKeyDropped,
)
from tests.given import AGENT, HUMAN, NOW, Given

KEY = "person_0123456789abcdef/0"
REQUESTED = UserErasureRequested(key=KEY, at=NOW)
DROPPED = UserKeyDropped(key=KEY, at=NOW)
COMPLETED = UserErasureCompleted(key=KEY, at=NOW)
POSITIONS = ["telemetry:0:7"]
CLEAN = RecordReadModelErased(read_model="spans", rows=3, positions=POSITIONS)
ERASED = ReadModelErased(key=KEY, read_model="spans", rows=3, positions=POSITIONS, at=NOW)
STEPS = [RecordUserKeyDropped(), CLEAN, CompleteUserErasure()]


def test_a_request_names_the_key_and_nobody() -> None:
    Given(DECIDER).when(RequestUserErasure(KEY)).then(REQUESTED)


def test_the_same_request_again_stays_quiet() -> None:
    Given(DECIDER, REQUESTED, DROPPED, COMPLETED).when(RequestUserErasure(KEY)).then_quiet()


def test_an_erasure_is_of_one_person() -> None:
    other = RequestUserErasure("person_0123456789abcdef/1")
    Given(DECIDER, REQUESTED).when(other).then_refused(AlreadyDone)


def test_each_step_is_recorded_and_its_repeat_is_not() -> None:
    it = Given(DECIDER, REQUESTED, actor=SYSTEM)
    for step, event in zip(STEPS, [DROPPED, ERASED, COMPLETED], strict=True):
        it.when(step).then(event)
        it.when(step).then_quiet()
    assert it.state == Erasure(KEY, "completed", ("spans",))


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("actor", [HUMAN, AGENT])
def test_the_steps_are_the_eraser_s(step: Any, actor: Any) -> None:
    Given(DECIDER, REQUESTED, actor=actor).when(step).then_refused(ActorForbidden)


@pytest.mark.parametrize("step", STEPS)
def test_what_nobody_asked_for_has_no_steps(step: Any) -> None:
    Given(DECIDER, actor=SYSTEM).when(step).then_refused(NotFound)


@given(st.lists(st.sampled_from([RequestUserErasure(KEY), *STEPS])))
def test_no_order_of_repeats_records_a_step_twice(commands: list[Any]) -> None:
    it, recorded = Given(DECIDER, REQUESTED, actor=SYSTEM), []
    for command in commands:
        events = it.when(command).decided()
        recorded += events
        it.then(*events)
    assert len(recorded) == len(set(map(type, recorded)))


def test_the_audit_record_tells_no_more_than_the_key() -> None:
    assert DECIDER.describe(RequestUserErasure(KEY)) == {"key": KEY}
    assert DECIDER.describe(CLEAN) == {"read_model": "spans", "rows": 3}
    assert DECIDER.describe(CompleteUserErasure()) == {}
