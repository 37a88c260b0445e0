"""A check-in that takes several people: each says yes once, all to the same payload."""

import hashlib
from typing import Any

import msgspec
import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from commands.approvals.check_in import DECIDER
from commands.approvals.check_in_state import (
    AlreadyDecided,
    ApproveCheckIn,
    ExpireCheckIn,
    ModifyCheckIn,
    PayloadMismatch,
    RejectCheckIn,
    VotedAlready,
    WithdrawCheckIn,
)
from commands.approvals.payload import payload_hash
from commands.approvals.policy import DEFAULT_POLICIES
from commands.decider import Emit
from commands.refusals import Refusal
from schemas.approvals.check_in import (
    CheckInApproved,
    CheckInExpired,
    CheckInModified,
    CheckInRejected,
    CheckInVoted,
    CheckInWithdrawn,
    Vote,
)
from schemas.approvals.policies import Conditions, Rule, TextMatch
from schemas.envelope import SYSTEM, Actor
from tests.commands.approvals.histories import (
    AGENT_ID,
    CHECK_IN_ID,
    CONTEXT,
    CREATE,
    DUE,
    HASH,
    ROOM_ID,
    created,
    decision,
    states,
)
from tests.given import AGENT, NOW, Given

IDS = (ROOM_ID, AGENT_ID)
ADA, BOB, EVE = (Actor("user", f"usr_{name}", name) for name in ("Ada", "Bob", "Eve"))
HALF, NONE = '{"amount":60}', '{"amount":0}'
TEXT = f'{{"action":"refund an order","context":{CONTEXT},"modifications":{HALF}}}'
HALF_HASH = hashlib.sha256(TEXT.encode()).hexdigest()


def vote(by: Actor, hash: str = HASH, id: str = "", reason: str = "") -> Vote:
    return Vote(id or f"cmd_{by.name}", by.id, by.name, reason, hash, NOW)


def voted(*votes: Vote, modifications: str | None = None, required: int = 2) -> CheckInVoted:
    return CheckInVoted(*IDS, list(votes), required, modifications)


def given(*events: Any, actor: Actor = BOB, required: int = 2) -> Given:
    waits = created(approvals_required=required)
    return Given(DECIDER, waits, *events, id=CHECK_IN_ID, actor=actor, states=states())


def test_the_first_yes_decides_nothing_and_the_last_one_does() -> None:
    it = (
        given(actor=ADA)
        .when(ApproveCheckIn(*IDS, "fine"))
        .then(voted(vote(ADA, id="cmd_1", reason="fine")))
    )
    assert (it.state.status, it.state.decision) == ("pending", None)
    first = voted(vote(ADA))
    events = given(first).when(ApproveCheckIn(*IDS, "me too")).decided()
    assert events[:2] == [
        voted(vote(ADA), vote(BOB, id="cmd_1", reason="me too")),
        CheckInApproved(*IDS, decision(by=BOB.id, by_name="Bob", reason="me too")),
    ]
    assert events[2].event.outcome == "approved"


def test_nobody_votes_twice_and_the_same_command_again_is_quiet() -> None:
    first = voted(vote(ADA))
    refusal = given(first, actor=ADA).when(ApproveCheckIn(*IDS)).then_refused(VotedAlready)
    assert refusal.details == {"approvals": 1, "approvals_required": 2}
    again = voted(vote(ADA, id="cmd_1"))
    given(again, actor=ADA).when(ApproveCheckIn(*IDS)).then_quiet()


@pytest.mark.parametrize("shown", ["", HASH, HALF_HASH])
def test_one_no_ends_it_whatever_stands(shown: str) -> None:
    proposed = voted(vote(ADA, HALF_HASH), modifications=HALF)
    events = given(proposed).when(RejectCheckIn(*IDS, "no", shown)).decided()
    assert events[0] == CheckInRejected(*IDS, decision(by=BOB.id, by_name="Bob", reason="no"))
    other = RejectCheckIn(*IDS, "no", "0" * 64)
    assert given(proposed).when(other).then_refused(PayloadMismatch).details == {
        "payload_hash": HALF_HASH
    }


def test_a_change_is_proposed_with_ones_yes_and_voids_what_was_said_before() -> None:
    it = (
        given(voted(vote(ADA)))
        .when(ModifyCheckIn(*IDS, "half", HALF))
        .then(voted(vote(BOB, HALF_HASH, "cmd_1", "half"), modifications=HALF))
    )
    assert it.state.modifications is None  # the agent may not run it yet


def test_a_change_is_approved_by_its_hash_and_is_what_the_agent_gets() -> None:
    proposed = voted(vote(ADA, HALF_HASH), modifications=HALF)
    unseen = given(proposed).when(ApproveCheckIn(*IDS)).then_refused(PayloadMismatch)
    assert unseen.details == {"payload_hash": HALF_HASH}
    given(proposed).when(ApproveCheckIn(*IDS, "", HASH)).then_refused(PayloadMismatch)
    events = given(proposed).when(ApproveCheckIn(*IDS, "ok", HALF_HASH)).decided()
    assert events[:2] == [
        voted(
            vote(ADA, HALF_HASH),
            vote(BOB, HALF_HASH, "cmd_1", "ok"),
            modifications=HALF,
        ),
        CheckInModified(*IDS, decision(by=BOB.id, by_name="Bob", reason="ok"), HALF),
    ]
    assert events[2].event.outcome == "modified"


def test_proposing_the_change_that_stands_is_a_yes_to_it() -> None:
    proposed = voted(vote(ADA, HALF_HASH), modifications=HALF)
    events = given(proposed).when(ModifyCheckIn(*IDS, "half", HALF)).decided()
    assert isinstance(events[1], CheckInModified)
    given(proposed, actor=ADA).when(ModifyCheckIn(*IDS, "x", HALF)).then_refused(VotedAlready)


def test_who_said_yes_before_may_propose_a_change_or_approve_one() -> None:
    (event,) = given(voted(vote(ADA)), actor=ADA).when(ModifyCheckIn(*IDS, "none", NONE)).decided()
    assert (len(event.votes), event.modifications) == (1, NONE)
    proposed = voted(vote(BOB, HALF_HASH), modifications=HALF)
    it = given(voted(vote(ADA)), proposed, actor=ADA)
    assert isinstance(it.when(ApproveCheckIn(*IDS, "", HALF_HASH)).decided()[1], CheckInModified)


def test_a_change_of_what_one_did_not_see_is_refused() -> None:
    proposed = voted(vote(ADA, HALF_HASH), modifications=HALF)
    given(proposed).when(ModifyCheckIn(*IDS, "none", NONE, HASH)).then_refused(PayloadMismatch)


def test_a_timeout_and_the_agent_end_it_as_ever() -> None:
    half_done = voted(vote(ADA))
    expired = given(half_done, actor=SYSTEM).when(ExpireCheckIn(*IDS, DUE)).decided()
    assert isinstance(expired[0], CheckInExpired)
    (withdrawn,) = given(half_done, actor=AGENT).when(WithdrawCheckIn(*IDS)).decided()
    assert isinstance(withdrawn, CheckInWithdrawn)
    rejected = CheckInRejected(*IDS, decision(id="cmd_0"))
    given(half_done, rejected).when(ApproveCheckIn(*IDS)).then_refused(AlreadyDecided)


def test_a_timeout_approves_what_was_asked_not_what_was_proposed() -> None:
    waits = created(approvals_required=2, timeout_action="auto_approve")
    proposed = voted(vote(ADA, HALF_HASH), modifications=HALF)
    it = Given(DECIDER, waits, proposed, id=CHECK_IN_ID, actor=SYSTEM, states=states())
    (event,) = it.when(ExpireCheckIn(*IDS, DUE)).decided()
    assert isinstance(event, CheckInApproved)
    assert DECIDER.evolve(it.state, event).modifications is None


REFUNDS = Conditions(action=TextMatch(prefix="refund"))


@pytest.mark.parametrize(
    ("rules", "of_room", "expected"),
    [
        ([], 3, 3),
        ([Rule("require_approval", REFUNDS, approvals_required=2)], 1, 2),
        ([Rule("require_approval", REFUNDS, approvals_required=1)], 3, 1),
        ([Rule("require_approval", REFUNDS)], 3, 3),
        ([Rule("auto_approve", REFUNDS)], 3, 1),
    ],
    ids=["the room", "a rule asks for more", "for less", "for nothing", "nobody is asked"],
)
def test_how_many_it_takes_is_fixed_when_it_is_asked(
    rules: list[Rule], of_room: int, expected: int
) -> None:
    policies = msgspec.structs.replace(DEFAULT_POLICIES, rules=rules, approvals_required=of_room)
    it = Given(DECIDER, id=CHECK_IN_ID, actor=AGENT, states=states(policies))
    assert it.when(CREATE).decided()[0].approvals_required == expected


PEOPLE = [Actor("user", f"usr_{number}", str(number)) for number in range(4)]
MOVES = [("approve", shown) for shown in ("", "standing")] + [
    ("modify", HALF),
    ("modify", NONE),
    ("reject", ""),
]


@for_all(st.lists(st.tuples(st.sampled_from(PEOPLE), st.sampled_from(MOVES)), max_size=12))
def test_three_people_approved_exactly_what_the_agent_is_let_run(moves: list[Any]) -> None:
    it = given(required=3)
    for number, (person, (verb, argument)) in enumerate(moves):
        if it.state.status != "pending":
            break
        standing = it.state.votes[-1].payload_hash if it.state.votes else HASH
        command: Any = RejectCheckIn(*IDS, "no")
        if verb == "approve":
            command = ApproveCheckIn(*IDS, "", standing if argument else "")
        elif verb == "modify":
            command = ModifyCheckIn(*IDS, "x", argument)
        try:
            events = it.by(person).when(command).decided()
        except Refusal:
            continue
        for event in events:
            if not isinstance(event, Emit):
                it.state = DECIDER.evolve(it.state, event)
        if it.state.votes:
            # Every command of `Given` has one id, and the same one again would be quiet.
            own = msgspec.structs.replace(it.state.votes[-1], id=f"cmd_{number + 2}")
            votes = [*it.state.votes[:-1], own]
            it.state = msgspec.structs.replace(it.state, votes=votes)
    if it.state.status in ("approved", "modified"):
        ran = payload_hash("refund an order", CONTEXT, it.state.modifications)
        assert [one.payload_hash for one in it.state.votes] == [ran] * 3
        assert len({one.by for one in it.state.votes}) == 3
