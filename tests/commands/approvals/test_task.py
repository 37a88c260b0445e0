"""A task: posted by a person, claimed by one agent at a time, ended by a person."""

from typing import Any

import msgspec
import pytest

from commands.approvals.check_in_state import AlreadyDecided, CheckInNotFound, PayloadMismatch
from commands.approvals.policy import DEFAULT_POLICIES
from commands.approvals.room import Room, RoomNotFound
from commands.approvals.task import DECIDER, LEASE
from commands.approvals.task_state import (
    HELPERS_MAX,
    AlreadyAtWork,
    ClaimChanged,
    ClaimTask,
    DecideTask,
    JoinTask,
    NoHelpRequested,
    ReleaseTask,
    RenewTaskClaim,
    RequestHelp,
    ReturnTask,
    Task,
    TaskAnswered,
    TaskClaimedAlready,
    TaskExists,
    TaskNotClaimed,
    TooManyHelpers,
)
from commands.approvals.trust import STREAM as TRUST
from commands.decider import ClearTimer, Context, Emit, Ref, SetTimer
from commands.refusals import ActorForbidden
from schemas.approvals.task import (
    Helper,
    TaskClaimed,
    TaskClaimRenewed,
    TaskDecided,
    TaskHelperJoined,
    TaskHelpRequested,
    TaskReleased,
)
from schemas.approvals.trust import TrustMoved
from schemas.envelope import SYSTEM, Actor
from tests.commands.approvals.histories import AGENT_ID, HASH, ROOM_ID, TRUST_ID, decision
from tests.commands.approvals.tasks import (
    HALF,
    HELPER,
    MINUTE,
    OTHER,
    OTHER_ID,
    POST,
    TASK_ID,
    UNTIL,
    all_states,
    claimed,
    posted,
)
from tests.given import AGENT, HUMAN, NOW, Given

MINE, THEIRS = (ROOM_ID, AGENT_ID), (ROOM_ID, OTHER_ID)
CLAIM, RELEASE = ClaimTask(*MINE), ReleaseTask(*MINE)
HELP, JOIN = RequestHelp(*MINE, "which account?"), JoinTask(*THEIRS)
HELP_ASKED = TaskHelpRequested(*MINE, "which account?", NOW)
JOINED = TaskHelperJoined(*MINE, OTHER_ID, [HELPER], NOW)
RELEASED = TaskReleased(*MINE, "agent", NOW)
RENEWED = TaskClaimRenewed(*MINE, HALF + 60 * MINUTE)
ACCEPT = DecideTask(*MINE, "approved", "well done")
ENDED = TaskDecided(*MINE, "approved", decision(id="cmd_0"))


def given(*events: Any, actor: Actor = AGENT, **loaded: Any) -> Given:
    return Given(DECIDER, *events, id=TASK_ID, actor=actor, states=all_states(**loaded))


# Posting


def test_a_person_posts_a_task() -> None:
    given(actor=HUMAN).when(POST).then(posted())


def test_posting_the_same_again_under_the_same_id_is_quiet() -> None:
    given(posted(), actor=HUMAN).when(POST).then_quiet()


def test_posting_something_else_under_the_same_id_is_refused() -> None:
    command = msgspec.structs.replace(POST, action="delete everything")
    given(posted(), actor=HUMAN).when(command).then_refused(TaskExists)


@pytest.mark.parametrize("actor", [AGENT, SYSTEM])
def test_only_people_post_tasks(actor: Actor) -> None:
    given(actor=actor).when(POST).then_refused(ActorForbidden)


def test_a_task_needs_a_room() -> None:
    nowhere = {Ref("approvals.room", ROOM_ID): Room()}
    Given(DECIDER, id=TASK_ID, states=nowhere).when(POST).then_refused(RoomNotFound)


# Claiming


def test_an_agent_claims_a_task_for_the_rooms_lease() -> None:
    given(posted()).when(CLAIM).then(claimed())
    policies = msgspec.structs.replace(DEFAULT_POLICIES, claim_minutes=5)
    short = TaskClaimed(*MINE, "Robby", 5, NOW, NOW + 5 * MINUTE)
    given(posted(), policies=policies).when(CLAIM).then(short)


def test_who_comes_second_is_told_who_won() -> None:
    refusal = given(posted(), claimed(), actor=OTHER).when(ClaimTask(*THEIRS))
    details = refusal.then_refused(TaskClaimedAlready).details
    assert details == {
        "status": "in_progress",
        "claimed_by": AGENT_ID,
        "claimed_by_name": "Robby",
        "claimed_at": NOW,
    }


def test_claiming_again_is_quiet_and_later_a_sign_of_life() -> None:
    given(posted(), claimed()).when(CLAIM).then_quiet()
    given(posted(), claimed()).at(HALF - 1).when(CLAIM).then_quiet()
    given(posted(), claimed()).at(HALF).when(CLAIM).then(RENEWED)


ACTS = [CLAIM, RELEASE, HELP, JoinTask(*MINE)]


@pytest.mark.parametrize("command", ACTS)
def test_nobody_acts_for_another_agent(command: Any) -> None:
    for actor in (HUMAN, OTHER, SYSTEM):
        given(posted(), actor=actor).when(command).then_refused(ActorForbidden)


@pytest.mark.parametrize("command", ACTS)
def test_a_deactivated_agent_does_nothing(command: Any) -> None:
    given(posted(), claimed(), active=False).when(command).then_refused(ActorForbidden)


@pytest.mark.parametrize("command", ACTS)
def test_no_task_and_one_out_of_scope_look_alike(command: Any) -> None:
    nowhere = given().when(command).then_refused(CheckInNotFound)
    narrow = given(posted(), room_scopes=["room_2"]).when(command).then_refused(CheckInNotFound)
    elsewhere = msgspec.structs.replace(command, room_id="room_2")
    moved = given(posted()).when(elsewhere).then_refused(CheckInNotFound)
    assert nowhere.message == narrow.message == moved.message


@pytest.mark.parametrize("command", ACTS)
def test_what_has_ended_is_left_alone(command: Any) -> None:
    refusal = given(posted(), claimed(), ENDED).when(command).then_refused(AlreadyDecided)
    assert refusal.details["decision_id"] == "cmd_0"


# Giving back


def test_the_agent_gives_a_task_back() -> None:
    given_ = given(posted(), claimed(), HELP_ASKED, JOINED).when(RELEASE).then(RELEASED)
    state = given_.state
    assert (state.status, state.claim, state.help, state.helpers) == ("pending", None, None, [])
    given_.by(OTHER).when(ClaimTask(*THEIRS)).then(claimed(OTHER_ID, "Marvin"))


def test_giving_back_again_is_quiet() -> None:
    given(posted(), claimed(), RELEASED).when(RELEASE).then_quiet()


def test_giving_back_what_one_has_not_is_refused() -> None:
    given(posted()).when(RELEASE).then_refused(TaskNotClaimed)
    others = claimed(OTHER_ID, "Marvin")
    given(posted(), others).when(RELEASE).then_refused(ActorForbidden)
    given(posted(), claimed(), RELEASED, others).when(RELEASE).then_refused(ActorForbidden)


# The lease

RETURN = ReturnTask(*MINE, UNTIL)


def test_a_claim_without_a_sign_of_life_ends() -> None:
    given_ = given(posted(), claimed(), actor=SYSTEM).at(UNTIL).when(RETURN)
    given_.then(TaskReleased(*MINE, "lease", UNTIL))
    assert given_.state.status == "pending"


def test_a_timer_that_came_too_late_is_quiet() -> None:
    for events in (
        (),
        (posted(),),
        (posted(), claimed(), RENEWED),
        (posted(), claimed(), RELEASED),
        (posted(), claimed(), ENDED),
        (posted(), claimed(), TaskReleased(*MINE, "lease", UNTIL)),
    ):
        given(*events, actor=SYSTEM).at(UNTIL).when(RETURN).then_quiet()


def test_a_sign_of_life_counts_once_half_the_lease_is_over() -> None:
    alive = RenewTaskClaim(*MINE)
    given(posted(), claimed()).at(HALF - 1).when(alive).then_quiet()
    given_ = given(posted(), claimed()).at(HALF).when(alive).then(RENEWED)
    given_.when(alive).then_quiet()


def test_a_sign_of_life_of_any_other_is_quiet() -> None:
    for events in ((posted(),), (posted(), claimed(OTHER_ID)), (posted(), claimed(), ENDED)):
        given(*events).at(HALF).when(RenewTaskClaim(*MINE)).then_quiet()


def test_the_timer_follows_the_claim() -> None:
    back = ReturnTask(*MINE, RENEWED.claimed_until)
    assert DECIDER.timers(claimed(), TASK_ID) == (SetTimer(LEASE, UNTIL, RETURN),)
    assert DECIDER.timers(RENEWED, TASK_ID) == (SetTimer(LEASE, RENEWED.claimed_until, back),)
    for event in (RELEASED, ENDED):
        assert DECIDER.timers(event, TASK_ID) == (ClearTimer(LEASE),)
    for event in (posted(), HELP_ASKED, JOINED):
        assert DECIDER.timers(event, TASK_ID) == ()


# Help


def test_the_agent_asks_for_help() -> None:
    given_ = given(posted(), claimed()).when(HELP).then(HELP_ASKED)
    given_.when(HELP).then_quiet()
    other = RequestHelp(*MINE, "found it; which day?")
    given_.when(other).then(TaskHelpRequested(*MINE, "found it; which day?", NOW))


def test_asking_for_help_is_a_sign_of_life() -> None:
    asked = TaskHelpRequested(*MINE, "which account?", HALF)
    given(posted(), claimed()).at(HALF).when(HELP).then(asked, RENEWED)


def test_only_who_has_the_task_asks_for_help() -> None:
    given(posted()).when(HELP).then_refused(TaskNotClaimed)
    given(posted(), claimed(OTHER_ID)).when(HELP).then_refused(ActorForbidden)


def test_another_agent_joins() -> None:
    given_ = given(posted(), claimed(), HELP_ASKED, actor=OTHER).when(JOIN).then(JOINED)
    given_.when(JOIN).then_quiet()
    assert given_.state.is_worked_on_by(OTHER_ID)


def test_joining_needs_a_request_for_help_by_somebody_else() -> None:
    given(posted(), actor=OTHER).when(JOIN).then_refused(NoHelpRequested)
    given(posted(), claimed(), actor=OTHER).when(JOIN).then_refused(NoHelpRequested)
    own = given(posted(), claimed(), HELP_ASKED).when(JoinTask(*MINE))
    own.then_refused(AlreadyAtWork)


def test_helpers_are_bounded() -> None:
    many = [Helper(f"agt_{number}", "x", NOW) for number in range(10, 10 + HELPERS_MAX)]
    full = TaskHelperJoined(*MINE, "agt_10", many, NOW)
    given(posted(), claimed(), HELP_ASKED, full, actor=OTHER).when(JOIN).then_refused(
        TooManyHelpers
    )


# Ending


@pytest.mark.parametrize(
    ("status", "change", "score"), [("approved", 1.0, 16.0), ("rejected", -0.3, 14.7)]
)
def test_a_person_ends_a_task_and_trust_moves(status: Any, change: float, score: float) -> None:
    counts = {f"{name}_count": 0 for name in ("approved", "modified", "rejected", "expired")}
    trust = TrustMoved(
        agent_id=AGENT_ID,
        room_id=ROOM_ID,
        check_in_id=TASK_ID,
        outcome=status,
        change=change,
        score=score,
        **counts | {f"{status}_count": 1},
        moved_at=NOW,
    )
    given(posted(), claimed(), actor=HUMAN).when(DecideTask(*MINE, status, "so be it")).then(
        TaskDecided(*MINE, status, decision(reason="so be it")), Emit(TRUST, TRUST_ID, trust)
    )


def test_a_task_that_nobody_has_is_dropped_and_moves_no_trust() -> None:
    drop = DecideTask(ROOM_ID, "", "rejected", "not needed any more")
    given(posted(), actor=HUMAN).when(drop).then(
        TaskDecided(ROOM_ID, "", "rejected", decision(reason="not needed any more"))
    )


def test_changes_are_kept_with_the_decision() -> None:
    command = DecideTask(*MINE, "modified", "half", modifications='{"amount":60}')
    events = given(posted(), claimed(), actor=HUMAN).when(command).decided()
    assert events[0] == TaskDecided(*MINE, "modified", decision(reason="half"), '{"amount":60}')


def test_the_same_decision_again_is_quiet_and_another_is_told_which_won() -> None:
    own = TaskDecided(*MINE, "approved", decision())
    given(posted(), claimed(), own, actor=HUMAN).when(ACCEPT).then_quiet()
    late = given(posted(), claimed(), ENDED, actor=HUMAN).when(ACCEPT)
    assert late.then_refused(AlreadyDecided).details["decision_id"] == "cmd_0"


def test_a_decision_about_the_work_of_another_agent_is_refused() -> None:
    others = given(posted(), claimed(OTHER_ID), actor=HUMAN).when(ACCEPT)
    assert others.then_refused(ClaimChanged).details["claimed_by"] == OTHER_ID
    given(posted(), actor=HUMAN).when(ACCEPT).then_refused(ClaimChanged)
    unseen = DecideTask(ROOM_ID, "", "rejected", "no")
    given(posted(), claimed(), actor=HUMAN).when(unseen).then_refused(ClaimChanged)


def test_a_decision_over_something_else_than_was_asked_is_refused() -> None:
    shown = msgspec.structs.replace(ACCEPT, payload_hash="0" * 64)
    refusal = given(posted(), claimed(), actor=HUMAN).when(shown).then_refused(PayloadMismatch)
    assert refusal.details == {"payload_hash": HASH}


@pytest.mark.parametrize("actor", [AGENT, SYSTEM])
def test_only_people_end_tasks(actor: Actor) -> None:
    given(posted(), claimed(), actor=actor).when(ACCEPT).then_refused(ActorForbidden)


def test_there_must_be_something_to_end() -> None:
    given(actor=HUMAN).when(ACCEPT).then_refused(CheckInNotFound)


# What is told


def test_the_answer_is_the_task_as_it_is_now_and_can_be_stored() -> None:
    task = Task()
    for event in (posted(), claimed(), HELP_ASKED, JOINED, RENEWED, ENDED):
        task = DECIDER.evolve(task, event)
        assert msgspec.json.decode(msgspec.json.encode(task), type=Task) == task
    context = Context("ten_1", TASK_ID, AGENT, NOW, "cmd_1", {}, {})
    assert DECIDER.answer(CLAIM, task, context) == TaskAnswered(TASK_ID, task)
    assert (task.status, task.agent_id) == ("approved", AGENT_ID)


@pytest.mark.parametrize("command", [POST, *ACTS, RETURN, RenewTaskClaim(*MINE), ACCEPT])
def test_what_the_audit_says_names_the_room_and_no_text_of_an_agents(command: Any) -> None:
    said = DECIDER.describe(command)
    assert said["room_id"] == ROOM_ID
    assert "which account?" not in said.values()
