"""Properties of the check-in's stream over any sequence of commands by anybody."""

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from commands.approvals.check_in import DECIDER
from commands.approvals.check_in_state import (
    ApproveCheckIn,
    CheckIn,
    ExpireCheckIn,
    ModifyCheckIn,
    RejectCheckIn,
    WithdrawCheckIn,
)
from commands.approvals.trust import DECIDER as TRUST
from commands.approvals.trust import Trust
from commands.decider import Context, Emit, Ref
from commands.refusals import Refusal
from schemas.envelope import SYSTEM
from tests.commands.approvals.histories import CHECK_IN_ID, CREATE, DUE, TRUST_ID, states
from tests.given import AGENT, HUMAN, NOW

IDS = ("room_1", "agt_1")
COMMANDS = st.one_of(
    st.sampled_from(
        [
            msgspec.structs.replace(CREATE, timeout_action=action)
            for action in ("auto_approve", "cancel", "hold")
        ]
    ),
    st.just(ApproveCheckIn(*IDS)),
    st.just(RejectCheckIn(*IDS, "no")),
    st.just(ModifyCheckIn(*IDS, "half", "{}")),
    st.just(WithdrawCheckIn(*IDS)),
    st.just(ExpireCheckIn(*IDS, DUE)),
    st.just(ExpireCheckIn(*IDS, DUE + 1)),
)
STEPS = st.lists(st.tuples(COMMANDS, st.sampled_from([HUMAN, AGENT, SYSTEM])), max_size=14)


@given(STEPS)
def test_one_decision_wins_and_moves_trust_at_most_once(steps: list[Any]) -> None:
    check_in, trust, decisions = CheckIn(), Trust(), []
    for number, (command, actor) in enumerate(steps):
        loaded = states() | {Ref("approvals.trust", TRUST_ID): trust}
        context = Context("ten_1", CHECK_IN_ID, actor, NOW, f"cmd_{number}", loaded, {})
        try:
            events = DECIDER.decide(command, check_in, context)
        except Refusal:
            continue
        for event in events:
            if isinstance(event, Emit):
                trust = TRUST.evolve(trust, event.event)
                continue
            if check_in.decision is not None:
                raise AssertionError(f"{event} after {check_in.decision}")
            check_in = DECIDER.evolve(check_in, event)
            if check_in.decision is not None:
                decisions.append(check_in.decision)
    assert len(decisions) <= 1
    assert (check_in.status in ("absent", "pending")) is (not decisions)
    moves = trust.approved_count + trust.modified_count + trust.rejected_count + trust.expired_count
    by_people = decisions and decisions[0].source == "human"
    assert moves == (1 if by_people or check_in.status == "expired" else 0)
    if decisions:
        assert decisions[0].payload_hash == check_in.payload_hash
