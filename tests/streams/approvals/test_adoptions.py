"""What follows from a claim is one command, whoever sends it and however often."""

from commands.approvals.agent import AdoptAgent
from schemas.approvals.registration import AgentClaimed
from schemas.envelope import Actor
from streams.approvals.adoptions import adoption_of

ADA = Actor("user", "usr_1", "Ada")
CLAIMED = AgentClaimed(
    claimed_for="ten_1",
    claimed_by="usr_1",
    claim_id="cmd_1",
    name="Robby",
    description="helps",
    platform="langchain",
    key_prefix="wr_0123456789ab",
    key_hash="ab" * 32,
    claimed_at=1_700_000_000_000_000,
)


def test_the_tenant_that_won_is_told_to_adopt_the_agent_by_who_claimed_it() -> None:
    request = adoption_of("agt_1", CLAIMED, ADA, "req_1")
    assert (request.tenant, request.stream_id, request.actor) == ("ten_1", "agt_1", ADA)
    assert request.command == AdoptAgent(
        "Robby", "helps", "langchain", "wr_0123456789ab", "ab" * 32, CLAIMED.claimed_at
    )


def test_every_sender_gives_it_the_same_id_and_fingerprint() -> None:
    first, second = (adoption_of("agt_1", CLAIMED, ADA, id) for id in ("req_1", "req_2"))
    assert first.command_id == second.command_id
    assert first.fingerprint == second.fingerprint != ""
    assert adoption_of("agt_2", CLAIMED, ADA, "req_1").command_id != first.command_id
