"""A check-in that nobody answers in time is put to others, and waits on."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from commands.approvals.check_in import DECIDER, ESCALATION, TIMEOUT
from commands.approvals.check_in_state import ApproveCheckIn, EscalateCheckIn
from commands.approvals.policy import DEFAULT_POLICIES, faults
from commands.decider import Ref, SetTimer
from commands.identity.user import STREAM as USER
from commands.identity.user import User
from schemas.approvals.check_in import (
    CheckInApproved,
    CheckInCreated,
    CheckInEscalated,
    CheckInHeld,
)
from schemas.approvals.policies import Conditions, Rule, TextMatch
from schemas.envelope import SYSTEM
from tests.commands.approvals.histories import (
    AGENT_ID,
    CHECK_IN_ID,
    CREATE,
    ROOM_ID,
    created,
    decision,
    states,
)
from tests.given import AGENT, HUMAN, NOW, Given

IDS = (ROOM_ID, AGENT_ID)
AT = NOW + 5 * 60_000_000
REVIEWERS = ["usr_2", "usr_3"]
ESCALATE = EscalateCheckIn(*IDS, AT, REVIEWERS)
ESCALATED = CheckInEscalated(*IDS, REVIEWERS, NOW)
POLICIES = msgspec.structs.replace(
    DEFAULT_POLICIES, escalate_after_minutes=5, escalate_to=REVIEWERS
)


def waits(**fields: Any) -> CheckInCreated:
    return created(escalate_at=AT, escalate_to=REVIEWERS, **fields)


def given(*events: Any, here: list[str] = REVIEWERS, looking: Sequence[str] = ()) -> Given:
    people = {Ref(USER, id): User("ab" * 32, roles=["developer"]) for id in here}
    people |= {Ref(USER, id): User("ab" * 32, roles=["viewer"]) for id in looking}
    return Given(DECIDER, *events, id=CHECK_IN_ID, actor=SYSTEM, states=states() | people)


def test_it_is_planned_when_the_question_is_asked_and_only_if_somebody_has_to_answer() -> None:
    it = Given(DECIDER, id=CHECK_IN_ID, actor=AGENT, states=states(POLICIES))
    it.when(CREATE).then(waits())
    timeout, escalation = DECIDER.timers(waits(), CHECK_IN_ID)
    assert escalation == SetTimer(ESCALATION, AT, ESCALATE)
    assert timeout.name == TIMEOUT
    rule = Rule("auto_approve", Conditions(action=TextMatch(prefix="refund")))
    approves = msgspec.structs.replace(POLICIES, rules=[rule])
    it = Given(DECIDER, id=CHECK_IN_ID, actor=AGENT, states=states(approves))
    event = it.when(CREATE).decided()[0]
    assert (event.escalate_at, event.escalate_to) == (None, [])
    assert DECIDER.timers(event, CHECK_IN_ID) == ()


def test_the_reviewers_are_named_and_it_still_waits() -> None:
    it = given(waits()).when(ESCALATE).then(ESCALATED)
    assert (it.state.status, it.state.escalated_to) == ("pending", REVIEWERS)
    assert DECIDER.timers(ESCALATED, CHECK_IN_ID) == ()
    events = it.by(HUMAN).when(ApproveCheckIn(*IDS)).decided()
    assert events[0] == CheckInApproved(*IDS, decision())


@pytest.mark.parametrize(("here", "named"), [(["usr_3"], ["usr_3"]), ([], [])])
def test_who_has_left_is_not_named(here: list[str], named: list[str]) -> None:
    it = given(waits(), here=here).when(ESCALATE)
    it.then(msgspec.structs.replace(ESCALATED, reviewers=named))


@pytest.mark.parametrize(
    ("here", "looking"), [(["usr_3"], ["usr_2"]), ([], REVIEWERS)], ids=["one of two", "all"]
)
def test_who_may_decide_no_longer_is_not_named(here: list[str], looking: list[str]) -> None:
    it = given(waits(), here=here, looking=looking).when(ESCALATE)
    it.then(msgspec.structs.replace(ESCALATED, reviewers=here))


@pytest.mark.parametrize(
    "events",
    [
        (),
        (created(),),
        (waits(), ESCALATED),
        (waits(), CheckInApproved(*IDS, decision())),
    ],
    ids=["absent", "not planned", "again", "decided"],
)
def test_a_timer_that_comes_too_late_is_quiet(events: tuple[Any, ...]) -> None:
    given(*events).when(ESCALATE).then_quiet()


def test_what_is_overdue_and_held_is_escalated_too() -> None:
    held = CheckInHeld(*IDS, NOW)
    given(waits(timeout_action="hold"), held).when(ESCALATE).then(ESCALATED)


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"escalate_after_minutes": 0}, "escalate_after_minutes"),
        ({"escalate_after_minutes": 10_081, "timeout_action": "hold"}, "escalate_after_minutes"),
        ({"escalate_after_minutes": 60}, "escalate_after_minutes"),  # it is over by then
        ({"escalate_after_minutes": None}, "escalate_after_minutes"),
        ({"escalate_to": []}, "escalate_to"),
        ({"escalate_to": ["usr_2", "usr_2"]}, "escalate_to"),
        ({"escalate_to": [f"usr_{number}" for number in range(21)]}, "escalate_to"),
        ({"approvals_required": 0}, "approvals_required"),
        ({"approvals_required": 21}, "approvals_required"),
    ],
)
def test_what_cannot_be_meant_is_refused(fields: dict[str, Any], place: str) -> None:
    assert not list(faults(POLICIES))
    found = list(faults(msgspec.structs.replace(POLICIES, **fields)))
    assert [fault.place for fault in found] == [place]


def test_an_overdue_check_in_that_is_held_may_be_escalated_later_than_its_timeout() -> None:
    later = msgspec.structs.replace(POLICIES, escalate_after_minutes=90, timeout_action="hold")
    assert not list(faults(later))


@pytest.mark.parametrize(
    ("action", "count", "message"),
    [
        ("require_approval", 21, "must be between 1 and 20"),
        ("forbid", 2, "is for require_approval only"),
    ],
)
def test_a_rules_approvals_have_their_place(action: Any, count: int, message: str) -> None:
    rule = Rule(action, Conditions(platforms=["x"]), approvals_required=count)
    (fault,) = faults(msgspec.structs.replace(POLICIES, rules=[rule]))
    assert (fault.place, fault.message) == ("rules[0].approvals_required", message)
