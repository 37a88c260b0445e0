"""An agent: registered once, scoped to rooms that exist, deactivated for good."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from commands.approvals.agent import (
    DECIDER,
    AdoptAgent,
    Agent,
    AgentAnswered,
    AgentExists,
    AgentNotFound,
    DeactivateAgent,
    RegisterAgent,
    UnknownRoom,
)
from commands.approvals.room import STREAM as ROOM
from commands.approvals.room import Room
from commands.decider import Context, Ref
from commands.refusals import Refusal
from schemas.approvals.agent import AgentAdopted, AgentDeactivated, AgentRegistered
from tests.commands.approvals.histories import KEY_HASH, room
from tests.given import HUMAN, NOW, Given

REGISTER = RegisterAgent("Robby", "wr_0123456789ab", KEY_HASH, platform="langchain")
ROOMS = {Ref(ROOM, "room_1"): room(), Ref(ROOM, "room_2"): Room()}


def registered(**fields: Any) -> AgentRegistered:
    defaults = {
        "name": "Robby",
        "description": "",
        "platform": "langchain",
        "room_scopes": [],
        "key_prefix": "wr_0123456789ab",
        "key_hash": KEY_HASH,
        "registered_by": "usr_1",
        "registered_at": NOW,
    }
    return AgentRegistered(**defaults | fields)


def scoped(*room_ids: str) -> RegisterAgent:
    return RegisterAgent("Robby", "wr_0123456789ab", KEY_HASH, "", "langchain", list(room_ids))


def test_an_agent_is_registered() -> None:
    Given(DECIDER).when(REGISTER).then(registered())


def test_an_agent_is_scoped_to_rooms_that_exist() -> None:
    given = Given(DECIDER, states=ROOMS).when(scoped("room_1"))
    given.then(registered(room_scopes=["room_1"]))
    assert given.state.sees("room_1")
    assert not given.state.sees("room_2")


def test_a_scope_of_no_room_is_refused_with_its_place() -> None:
    given = Given(DECIDER, states=ROOMS).when(scoped("room_1", "room_2"))
    assert given.then_refused(UnknownRoom).details == {"field": "room_scopes[1]"}


def test_registering_the_same_key_again_is_quiet() -> None:
    Given(DECIDER, registered()).when(REGISTER).then_quiet()


def test_registering_another_key_under_the_same_id_is_refused() -> None:
    other = RegisterAgent("Robby", "wr_x", "cd" * 32)
    Given(DECIDER, registered()).when(other).then_refused(AgentExists)


def test_an_agent_without_scopes_sees_every_room() -> None:
    assert Given(DECIDER, registered()).state.sees("room_7")


def test_an_agent_is_deactivated() -> None:
    given = Given(DECIDER, registered(), now=NOW + 9).when(DeactivateAgent())
    given.then(AgentDeactivated("usr_1", NOW + 9))
    assert not given.state.active
    assert given.state.updated_at == NOW + 9


def test_deactivating_twice_is_quiet() -> None:
    gone = AgentDeactivated("usr_1", NOW)
    Given(DECIDER, registered(), gone).when(DeactivateAgent()).then_quiet()


def test_deactivating_nobody_is_refused() -> None:
    Given(DECIDER).when(DeactivateAgent()).then_refused(AgentNotFound)


def test_the_answer_shows_the_prefix_and_never_the_hash() -> None:
    agent = DECIDER.evolve(Agent(), registered())
    context = Context("ten_1", "agt_1", HUMAN, NOW, "cmd_1", {}, {})
    answer = DECIDER.answer(REGISTER, agent, context)
    assert answer == AgentAnswered(
        "agt_1", "Robby", "", "langchain", [], "wr_0123456789ab", True, "usr_1", NOW, NOW
    )
    assert KEY_HASH not in repr(answer)


def test_the_audit_is_told_the_name_and_the_scopes() -> None:
    assert DECIDER.describe(scoped("room_1")) == {"name": "Robby", "room_scopes": ["room_1"]}
    assert DECIDER.describe(DeactivateAgent()) == {}


COMMANDS = st.one_of(
    st.just(REGISTER),
    st.just(scoped("room_1")),
    st.just(scoped("room_2")),
    st.just(RegisterAgent("Eve", "wr_y", "cd" * 32)),
    st.just(DeactivateAgent()),
)


@given(st.lists(COMMANDS, max_size=10))
def test_no_sequence_changes_a_key_or_revives_an_agent(
    sequence: list[RegisterAgent | DeactivateAgent],
) -> None:
    agent, context = Agent(), Context("ten_1", "agt_1", HUMAN, NOW, "cmd_1", ROOMS, {})
    for command in sequence:
        before = agent
        try:
            for event in DECIDER.decide(command, agent, context):
                assert not isinstance(event, AgentRegistered) or not before.key_hash
                agent = DECIDER.evolve(agent, event)  # type: ignore[arg-type]
        except Refusal:
            assert agent == before
        if before.key_hash:
            assert agent.key_hash == before.key_hash
            assert before.active or not agent.active


# Adoption

ADOPT = AdoptAgent("Robby", "", "langchain", "wr_0123456789ab", KEY_HASH, NOW - 5)
ADOPTED = AgentAdopted("Robby", "", "langchain", "wr_0123456789ab", KEY_HASH, "usr_1", NOW - 5)


def test_a_claimed_agent_is_adopted_and_sees_every_room() -> None:
    adopted = Given(DECIDER).when(ADOPT).then(ADOPTED)
    assert adopted.state.active
    assert adopted.state.sees("room_1")
    assert (adopted.state.registered_by, adopted.state.registered_at) == ("usr_1", NOW - 5)


def test_adopting_again_is_quiet_even_after_the_agent_was_deactivated() -> None:
    Given(DECIDER, ADOPTED).when(ADOPT).then_quiet()
    Given(DECIDER, ADOPTED, AgentDeactivated("usr_1", NOW)).when(ADOPT).then_quiet()


def test_adopting_another_agent_under_the_same_id_is_refused() -> None:
    other = registered(key_hash="00" * 32)
    Given(DECIDER, other).when(ADOPT).then_refused(AgentExists)
