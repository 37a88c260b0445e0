"""A check-in: judged when it is made, decided once, and never without leave."""

from typing import Any

import msgspec
import pytest

from commands.approvals.check_in import DECIDER, ESCALATION, TIMEOUT
from commands.approvals.check_in_state import (
    AlreadyDecided,
    ApproveCheckIn,
    CheckIn,
    CheckInAnswered,
    CheckInExists,
    CheckInNotFound,
    CreateCheckIn,
    ExpireCheckIn,
    ModifyCheckIn,
    PayloadMismatch,
    PolicyForbids,
    RejectCheckIn,
    WithdrawCheckIn,
)
from commands.approvals.policy import DEFAULT_POLICIES
from commands.approvals.room import Room, RoomNotFound
from commands.approvals.trust import STREAM as TRUST
from commands.approvals.trust import Trust
from commands.decider import ClearTimer, Context, Emit, Ref, SetTimer
from commands.refusals import ActorForbidden
from schemas.approvals.check_in import (
    CheckInApproved,
    CheckInExpired,
    CheckInHeld,
    CheckInModified,
    CheckInRejected,
    CheckInWithdrawn,
)
from schemas.approvals.policies import Conditions, Rule, TextMatch, TrustThresholds, Verdict
from schemas.approvals.trust import TrustMoved
from schemas.envelope import SYSTEM, Actor
from tests.commands.approvals.histories import (
    AGENT_ID,
    CHECK_IN_ID,
    CREATE,
    DUE,
    HASH,
    ROOM_ID,
    TRUST_ID,
    created,
    decision,
    states,
)
from tests.given import AGENT, HUMAN, NOW, Given

IDS = (ROOM_ID, AGENT_ID)
OTHER_AGENT = Actor("agent", "agt_2", "Marvin")
REFUNDS = Conditions(action=TextMatch(prefix="refund"))


def given(*events: Any, actor: Actor = HUMAN, **loaded: Any) -> Given:
    return Given(DECIDER, *events, id=CHECK_IN_ID, actor=actor, states=states(**loaded))


def moved(outcome: Any, change: float, score: float, **counts: int) -> Emit:
    four = {f"{name}_count": 0 for name in ("approved", "modified", "rejected", "expired")}
    event = TrustMoved(
        agent_id=AGENT_ID,
        room_id=ROOM_ID,
        check_in_id=CHECK_IN_ID,
        outcome=outcome,
        change=change,
        score=score,
        **four | counts,
        moved_at=NOW,
    )
    return Emit(TRUST, TRUST_ID, event)


# Asking


def test_a_check_in_waits_for_a_person() -> None:
    given(actor=AGENT).when(CREATE).then(created())


def test_the_agent_may_override_the_rooms_timeout() -> None:
    command = msgspec.structs.replace(CREATE, timeout_minutes=1, timeout_action="hold")
    expected = created(timeout_minutes=1, timeout_action="hold", due_at=NOW + 60_000_000)
    given(actor=AGENT).when(command).then(expected)


@pytest.mark.parametrize("override", [{"timeout_minutes": 1}, {"timeout_action": "auto_approve"}])
def test_a_room_may_keep_the_timeout_to_itself(override: dict[str, Any]) -> None:
    policies = msgspec.structs.replace(DEFAULT_POLICIES, timeout_override=False)
    command = msgspec.structs.replace(CREATE, **override)
    given(actor=AGENT, policies=policies).when(command).then_refused(PolicyForbids)
    given(actor=AGENT, policies=policies).when(CREATE).then(created())


def test_a_rule_approves_at_once_and_says_so() -> None:
    rule = Rule("auto_approve", REFUNDS, name="refunds")
    policies = msgspec.structs.replace(DEFAULT_POLICIES, rules=[rule])
    reason = "rules[0] (refunds) matched on action"
    verdict = Verdict("auto_approve", "rule", reason, 0, "refunds")
    by_policy = decision(source="policy", by="policy", by_name="refunds", reason=reason)
    given(actor=AGENT, policies=policies).when(CREATE).then(
        created(verdict=verdict, due_at=None), CheckInApproved(*IDS, by_policy)
    )


def test_trust_approves_at_once_and_is_not_moved_by_it() -> None:
    thresholds = TrustThresholds(auto_approve_medium=40)
    policies = msgspec.structs.replace(DEFAULT_POLICIES, trust_thresholds=thresholds)
    events = given(actor=AGENT, policies=policies, trust=Trust(41.5)).when(CREATE).decided()
    assert [type(event).__name__ for event in events] == ["CheckInCreated", "CheckInApproved"]
    assert events[0].verdict.source == "trust"
    assert events[0].trust_score == 41.5


def test_what_the_policies_forbid_leaves_no_check_in() -> None:
    rule = Rule("forbid", REFUNDS, name="frozen", reason="refunds are frozen")
    policies = msgspec.structs.replace(DEFAULT_POLICIES, rules=[rule])
    refusal = given(actor=AGENT, policies=policies).when(CREATE).then_refused(PolicyForbids)
    assert (refusal.code, refusal.kind) == ("policy_forbids", "forbidden")
    assert refusal.message == "refunds are frozen"
    assert refusal.details == {"source": "rule", "rule_index": 0, "rule_name": "frozen"}


def test_asking_the_same_again_under_the_same_id_is_quiet() -> None:
    given(created(), actor=AGENT).when(CREATE).then_quiet()


def test_asking_something_else_under_the_same_id_is_refused() -> None:
    command = msgspec.structs.replace(CREATE, action="delete everything")
    given(created(), actor=AGENT).when(command).then_refused(CheckInExists)


def test_an_unknown_room_and_one_out_of_scope_look_alike() -> None:
    nowhere = states() | {Ref("approvals.room", ROOM_ID): Room()}
    first = Given(DECIDER, id=CHECK_IN_ID, actor=AGENT, states=nowhere).when(CREATE)
    second = given(actor=AGENT, room_scopes=["room_2"]).when(CREATE)
    refusals = [each.then_refused(RoomNotFound) for each in (first, second)]
    assert refusals[0].message == refusals[1].message


@pytest.mark.parametrize("actor", [HUMAN, OTHER_AGENT])
def test_nobody_asks_for_somebody_else(actor: Actor) -> None:
    given(actor=actor).when(CREATE).then_refused(ActorForbidden)


def test_a_deactivated_agent_asks_nothing() -> None:
    given(actor=AGENT, active=False).when(CREATE).then_refused(ActorForbidden)


# Deciding


def test_a_person_approves_and_trust_rises() -> None:
    given(created()).when(ApproveCheckIn(*IDS, "fine")).then(
        CheckInApproved(*IDS, decision(reason="fine")),
        moved("approved", 1.0, 16.0, approved_count=1),
    )


def test_a_person_rejects_and_trust_falls() -> None:
    given(created()).when(RejectCheckIn(*IDS, "too much")).then(
        CheckInRejected(*IDS, decision(reason="too much")),
        moved("rejected", -0.3, 14.7, rejected_count=1),
    )


def test_a_person_modifies_and_trust_rises_less() -> None:
    given(created()).when(ModifyCheckIn(*IDS, "half", '{"amount":60}')).then(
        CheckInModified(*IDS, decision(reason="half"), '{"amount":60}'),
        moved("modified", 0.6, 15.6, modified_count=1),
    )


DECISIONS = [
    ApproveCheckIn(*IDS),
    RejectCheckIn(*IDS, "no"),
    ModifyCheckIn(*IDS, "half", "{}"),
]
SETTLED = [
    CheckInApproved(*IDS, decision(id="cmd_0", by="usr_0", reason="ok")),
    CheckInRejected(*IDS, decision(id="cmd_0", by="usr_0", reason="no")),
    CheckInModified(*IDS, decision(id="cmd_0", by="usr_0", reason="half"), "{}"),
    CheckInWithdrawn(*IDS, decision(id="cmd_0", source="agent", by=AGENT_ID)),
    CheckInExpired(*IDS, decision(id="cmd_0", source="timeout", by="weir")),
]


@pytest.mark.parametrize("command", DECISIONS)
@pytest.mark.parametrize("settled", SETTLED)
def test_the_second_decision_is_told_which_one_won(command: Any, settled: Any) -> None:
    refusal = given(created(), settled).when(command).then_refused(AlreadyDecided)
    assert (refusal.code, refusal.kind) == ("conflict", "conflict")
    won = settled.decision
    assert refusal.details["decision_id"] == "cmd_0"
    assert (refusal.details["decided_by"], refusal.details["decided_at"]) == (won.by, NOW)
    assert refusal.details["status"] in refusal.message


@pytest.mark.parametrize("command", DECISIONS)
def test_the_same_command_again_is_quiet(command: Any) -> None:
    decided = given(created()).when(command).decided()[0]
    given(created(), decided).when(command).then_quiet()


@pytest.mark.parametrize("command", DECISIONS)
@pytest.mark.parametrize("actor", [AGENT, SYSTEM])
def test_only_people_decide(command: Any, actor: Actor) -> None:
    given(created(), actor=actor).when(command).then_refused(ActorForbidden)


@pytest.mark.parametrize("command", DECISIONS)
def test_nothing_to_decide_is_refused(command: Any) -> None:
    given().when(command).then_refused(CheckInNotFound)


@pytest.mark.parametrize("command", DECISIONS)
def test_a_decision_over_something_else_than_was_asked_is_refused(command: Any) -> None:
    shown = msgspec.structs.replace(command, payload_hash="0" * 64)
    refusal = given(created()).when(shown).then_refused(PayloadMismatch)
    assert refusal.details == {"payload_hash": HASH}
    right = msgspec.structs.replace(command, payload_hash=HASH)
    assert given(created()).when(right).decided()[0].decision.payload_hash == HASH


def test_a_decision_that_names_another_agent_is_refused() -> None:
    command = ApproveCheckIn(ROOM_ID, "agt_2")
    given_ = Given(DECIDER, created(), id=CHECK_IN_ID, states=states())
    given_.when(command).then_refused(CheckInNotFound)


# Withdrawing


def test_the_agent_withdraws() -> None:
    withdrawn = decision(
        source="agent", by=AGENT_ID, by_name="Robby", reason="withdrawn by the agent"
    )
    given(created(), actor=AGENT).when(WithdrawCheckIn(*IDS)).then(
        CheckInWithdrawn(*IDS, withdrawn)
    )


def test_withdrawing_again_with_the_same_command_is_quiet() -> None:
    withdrawn = CheckInWithdrawn(*IDS, decision(source="agent", by=AGENT_ID))
    given(created(), withdrawn, actor=AGENT).when(WithdrawCheckIn(*IDS)).then_quiet()


def test_withdrawing_what_is_decided_is_refused() -> None:
    given_ = given(created(), SETTLED[0], actor=AGENT)
    given_.when(WithdrawCheckIn(*IDS)).then_refused(AlreadyDecided)


@pytest.mark.parametrize("actor", [HUMAN, OTHER_AGENT])
def test_only_the_agent_that_asked_withdraws(actor: Actor) -> None:
    given(created(), actor=actor).when(WithdrawCheckIn(*IDS)).then_refused(ActorForbidden)


def test_withdrawing_nothing_is_refused() -> None:
    given(actor=AGENT).when(WithdrawCheckIn(*IDS)).then_refused(CheckInNotFound)


# Timing out

EXPIRE = ExpireCheckIn(*IDS, DUE)
IN_TIME = decision(
    source="timeout", by="weir", by_name="", reason="nobody decided within 60 minutes"
)


def test_a_timeout_cancels_and_trust_falls_a_little() -> None:
    given(created(), actor=SYSTEM).when(EXPIRE).then(
        CheckInExpired(*IDS, IN_TIME), moved("expired", -0.1, 14.9, expired_count=1)
    )


def test_a_timeout_approves_when_the_room_says_so() -> None:
    waiting = created(timeout_action="auto_approve")
    given(waiting, actor=SYSTEM).when(EXPIRE).then(CheckInApproved(*IDS, IN_TIME))


def test_a_timeout_holds_and_a_person_can_still_decide() -> None:
    given_ = given(created(timeout_action="hold"), actor=SYSTEM)
    given_.when(EXPIRE).then(CheckInHeld(*IDS, NOW))
    assert (given_.state.status, given_.state.held_at) == ("pending", NOW)
    given_.by(HUMAN).when(ApproveCheckIn(*IDS)).then(
        CheckInApproved(*IDS, decision()), moved("approved", 1.0, 16.0, approved_count=1)
    )


@pytest.mark.parametrize("settled", SETTLED)
def test_a_timer_that_fires_after_the_decision_is_quiet(settled: Any) -> None:
    given(created(), settled, actor=SYSTEM).when(EXPIRE).then_quiet()


def test_a_timer_for_another_instant_is_quiet() -> None:
    given(created(), actor=SYSTEM).when(ExpireCheckIn(*IDS, DUE - 1)).then_quiet()


def test_a_timer_that_fires_twice_is_quiet() -> None:
    held = CheckInHeld(*IDS, NOW)
    given(created(timeout_action="hold"), held, actor=SYSTEM).when(EXPIRE).then_quiet()


def test_a_timer_of_no_check_in_is_quiet() -> None:
    given(actor=SYSTEM).when(EXPIRE).then_quiet()


def test_the_timer_is_set_with_the_question_and_cleared_with_the_answer() -> None:
    assert DECIDER.timers(created(), CHECK_IN_ID) == (SetTimer(TIMEOUT, DUE, EXPIRE),)
    assert DECIDER.timers(created(due_at=None), CHECK_IN_ID) == ()
    assert DECIDER.timers(CheckInHeld(*IDS, NOW), CHECK_IN_ID) == ()
    for settled in SETTLED:
        assert DECIDER.timers(settled, CHECK_IN_ID) == (ClearTimer(TIMEOUT), ClearTimer(ESCALATION))


# What is told


def test_the_answer_is_the_check_in_as_it_is_now() -> None:
    check_in = DECIDER.evolve(DECIDER.evolve(CheckIn(), created()), SETTLED[2])
    context = Context("ten_1", CHECK_IN_ID, HUMAN, NOW, "cmd_1", {}, {})
    answer = DECIDER.answer(DECISIONS[0], check_in, context)
    assert answer == CheckInAnswered(CHECK_IN_ID, check_in)
    assert (check_in.status, check_in.modifications) == ("modified", "{}")
    assert msgspec.json.decode(msgspec.json.encode(check_in), type=CheckIn) == check_in


def test_the_audit_finds_the_room_and_the_agent_of_every_command() -> None:
    for command in (CREATE, *DECISIONS, WithdrawCheckIn(*IDS), EXPIRE):
        said = DECIDER.describe(command)
        assert (said["room_id"], said["agent_id"]) == IDS
        assert [ref.stream for ref in DECIDER.loads(command, CHECK_IN_ID)] == [
            "approvals.room",
            "approvals.agent",
            "approvals.trust",
        ]
    assert isinstance(CREATE, CreateCheckIn)
    assert DECIDER.describe(CREATE)["action"] == "refund an order"
