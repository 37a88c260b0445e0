"""What came of it: told once, by the agent that was allowed to run it."""

from typing import Any

import msgspec
import pytest

from commands.approvals.check_in import DECIDER
from commands.approvals.check_in_state import (
    CheckInNotFound,
    NothingWasAllowed,
    OutcomeReported,
    ReportOutcome,
)
from commands.approvals.thread import MESSAGES_MAX, Thread
from commands.approvals.thread import STREAM as THREAD
from commands.decider import Emit, Ref
from commands.refusals import ActorForbidden
from schemas.approvals.check_in import (
    CheckInApproved,
    CheckInExpired,
    CheckInModified,
    CheckInOutcomeReported,
    CheckInRejected,
    CheckInWithdrawn,
    Outcome,
)
from schemas.approvals.thread import MessagePosted
from schemas.envelope import Actor
from tests.commands.approvals.histories import (
    AGENT_ID,
    CHECK_IN_ID,
    ROOM_ID,
    created,
    decision,
    states,
)
from tests.given import AGENT, HUMAN, NOW, Given

IDS = (ROOM_ID, AGENT_ID)
REPORT = ReportOutcome(*IDS, "succeeded", "refunded", '{"refund_id":"re_1"}')
REPORTED = CheckInOutcomeReported(
    *IDS, Outcome("succeeded", "refunded", '{"refund_id":"re_1"}', NOW)
)
APPROVED = CheckInApproved(*IDS, decision())


def given(*events: Any, actor: Actor = AGENT, thread: Thread | None = None, **fields: Any) -> Given:
    loaded = states(**fields) | {Ref(THREAD, CHECK_IN_ID): thread or Thread()}
    return Given(DECIDER, *events, id=CHECK_IN_ID, actor=actor, states=loaded)


def said(number: int, body: str, metadata: str) -> Emit:
    event = MessagePosted(
        room_id=ROOM_ID,
        message_id="msg_1",
        number=number,
        author_kind="agent",
        author_id=AGENT_ID,
        author_name="Robby",
        body=body,
        message_type="result",
        metadata=metadata,
        attachments="[]",
        posted_at=NOW,
    )
    return Emit(THREAD, CHECK_IN_ID, event)


def test_it_is_kept_with_the_check_in_and_told_in_its_thread() -> None:
    metadata = '{"details":{"refund_id":"re_1"},"outcome":"succeeded"}'
    it = given(created(), APPROVED, thread=Thread(count=4)).when(REPORT)
    it.then(REPORTED, said(5, "refunded", metadata))
    assert (it.state.status, it.state.outcome) == ("approved", REPORTED.outcome)
    assert DECIDER.timers(REPORTED, CHECK_IN_ID) == ()


def test_without_a_message_the_thread_tells_the_status() -> None:
    modified = CheckInModified(*IDS, decision(), "{}")
    expected = CheckInOutcomeReported(*IDS, Outcome("skipped", "", "{}", NOW))
    it = given(created(), modified).when(ReportOutcome(*IDS, "skipped"))
    it.then(expected, said(1, "skipped", '{"details":{},"outcome":"skipped"}'))


def test_a_full_thread_keeps_no_outcome_from_being_told() -> None:
    given(created(), APPROVED, thread=Thread(count=MESSAGES_MAX)).when(REPORT).then(REPORTED)


def test_the_same_again_is_quiet_and_another_is_refused() -> None:
    it = given(created(), APPROVED, REPORTED)
    it.at(NOW + 5).when(REPORT).then_quiet()
    for change in ({"status": "failed"}, {"message": "x"}, {"details": "{}"}):
        other = msgspec.structs.replace(REPORT, **change)
        refusal = it.when(other).then_refused(OutcomeReported)
        assert refusal.details == {"outcome": "succeeded", "reported_at": NOW}


@pytest.mark.parametrize(
    "events",
    [
        (),
        (CheckInRejected(*IDS, decision()),),
        (CheckInExpired(*IDS, decision()),),
        (CheckInWithdrawn(*IDS, decision()),),
    ],
    ids=["pending", "rejected", "expired", "withdrawn"],
)
def test_nothing_comes_of_what_nobody_allowed(events: tuple[Any, ...]) -> None:
    refusal = given(created(), *events).when(REPORT).then_refused(NothingWasAllowed)
    assert refusal.details["status"] in refusal.message


def test_only_the_agent_that_asked_tells() -> None:
    for it in (
        given(created(), APPROVED, actor=HUMAN),
        given(created(), APPROVED, actor=Actor("agent", "agt_2")),
        given(created(), APPROVED, active=False),
    ):
        it.when(REPORT).then_refused(ActorForbidden)
    given().when(REPORT).then_refused(CheckInNotFound)


def test_the_audit_names_the_outcome_and_not_what_was_said() -> None:
    told = DECIDER.describe(REPORT)
    assert told == {"room_id": ROOM_ID, "agent_id": AGENT_ID, "outcome": "succeeded"}
