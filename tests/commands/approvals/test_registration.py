"""An agent that registered itself: claimed once, in time, by one tenant."""

from typing import Any

import msgspec
import pytest

from commands.approvals.registration import (
    CLAIM_MICROS,
    DECIDER,
    ClaimAgent,
    ClaimTokenNotFound,
    ClaimTokenUsed,
    ExpireAgentClaim,
    Registration,
    RegistrationAnswered,
    RegistrationExists,
    SelfRegisterAgent,
)
from commands.decider import ClearTimer, Context, SetTimer
from commands.refusals import ActorForbidden
from schemas.approvals.registration import AgentClaimed, AgentClaimExpired, AgentSelfRegistered
from schemas.envelope import SYSTEM, Actor
from tests.commands.approvals.histories import AGENT_ID, KEY_HASH
from tests.given import AGENT, HUMAN, NOW, Given

NOBODY = Actor("anonymous", "anonymous")
PREFIX, TOKEN_HASH = "wr_0123456789ab", "cd" * 32
REGISTER = SelfRegisterAgent("Robby", PREFIX, KEY_HASH, TOKEN_HASH, platform="langchain")
CLAIM = ClaimAgent(TOKEN_HASH, "ten_1")
ENDS = NOW + CLAIM_MICROS
REGISTERED = AgentSelfRegistered("Robby", "", "langchain", PREFIX, KEY_HASH, TOKEN_HASH, NOW, ENDS)
EXPIRE = ExpireAgentClaim(ENDS)


def claimed(claim_id: str = "cmd_1", at: int = NOW) -> AgentClaimed:
    return AgentClaimed("ten_1", "usr_1", claim_id, "Robby", "", "langchain", PREFIX, KEY_HASH, at)


def given(*events: Any, actor: Actor = HUMAN) -> Given:
    return Given(DECIDER, *events, id=AGENT_ID, actor=actor)


def test_an_agent_registers_itself_and_its_token_is_good_for_a_week() -> None:
    assert CLAIM_MICROS == 7 * 86_400 * 1_000_000
    given(actor=NOBODY).when(REGISTER).then(REGISTERED)


def test_registering_again_is_quiet_and_with_another_key_refused() -> None:
    given(REGISTERED, actor=NOBODY).when(REGISTER).then_quiet()
    other = msgspec.structs.replace(REGISTER, key_hash="00" * 32)
    given(REGISTERED, actor=NOBODY).when(other).then_refused(RegistrationExists)


def test_a_person_claims_it_for_their_tenant() -> None:
    given(REGISTERED).when(CLAIM).then(claimed())
    last = ENDS - 1
    given(REGISTERED).at(last).when(CLAIM).then(claimed(at=last))


def test_the_same_claim_again_is_quiet_and_any_other_is_refused() -> None:
    given(REGISTERED, claimed()).when(CLAIM).then_quiet()
    taken = given(REGISTERED, claimed("cmd_0"))
    for tenant in ("ten_1", "ten_2"):
        refusal = taken.when(ClaimAgent(TOKEN_HASH, tenant)).then_refused(ClaimTokenUsed)
        assert refusal.code == "conflict"
        assert refusal.details == {}, "whose it is, is nobody else's business"


def test_a_wrong_token_and_no_agent_look_alike() -> None:
    wrong = given(REGISTERED).when(ClaimAgent("00" * 32, "ten_1"))
    none = given().when(CLAIM)
    refusals = [each.then_refused(ClaimTokenNotFound) for each in (wrong, none)]
    assert refusals[0].message == refusals[1].message


def test_a_token_ends_with_its_time_fired_or_not() -> None:
    given(REGISTERED).at(ENDS).when(CLAIM).then_refused(ClaimTokenNotFound)
    expired = given(REGISTERED, actor=SYSTEM).at(ENDS).when(EXPIRE)
    expired.then(AgentClaimExpired(ENDS))
    expired.by(HUMAN).at(NOW).when(CLAIM).then_refused(ClaimTokenNotFound)


@pytest.mark.parametrize(
    "events", [(), (REGISTERED, claimed()), (REGISTERED, AgentClaimExpired(ENDS))]
)
def test_a_timer_that_came_too_late_is_quiet(events: Any) -> None:
    given(*events, actor=SYSTEM).at(ENDS).when(EXPIRE).then_quiet()


def test_a_timer_for_another_instant_is_quiet() -> None:
    given(REGISTERED, actor=SYSTEM).when(ExpireAgentClaim(ENDS - 1)).then_quiet()


@pytest.mark.parametrize("actor", [AGENT, NOBODY, SYSTEM])
def test_only_people_claim(actor: Actor) -> None:
    given(REGISTERED, actor=actor).when(CLAIM).then_refused(ActorForbidden)


def test_the_timer_is_set_with_the_registration_and_cleared_by_its_end() -> None:
    assert DECIDER.timers(REGISTERED, AGENT_ID) == (SetTimer("claim", ENDS, EXPIRE),)
    for event in (claimed(), AgentClaimExpired(ENDS)):
        assert DECIDER.timers(event, AGENT_ID) == (ClearTimer("claim"),)


def test_the_answer_tells_the_agent_and_its_claim_and_no_hash_of_the_token() -> None:
    registration = DECIDER.evolve(DECIDER.evolve(Registration(), REGISTERED), claimed())
    assert msgspec.json.decode(msgspec.json.encode(registration), type=Registration) == registration
    context = Context("_directory", AGENT_ID, HUMAN, NOW, "cmd_1", {}, {})
    answer = DECIDER.answer(CLAIM, registration, context)
    assert answer == RegistrationAnswered(
        AGENT_ID, "Robby", "", "langchain", PREFIX, NOW, ENDS, claimed()
    )
    assert TOKEN_HASH.encode() not in msgspec.json.encode(answer)


def test_the_audit_says_for_whom_and_nothing_secret() -> None:
    assert DECIDER.describe(REGISTER) == {"name": "Robby"}
    assert DECIDER.describe(CLAIM) == {"claimed_for": "ten_1"}
    assert DECIDER.describe(EXPIRE) == {}
