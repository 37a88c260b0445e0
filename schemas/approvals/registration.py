"""Events of `approvals.registration`, tenant `_directory`: agents that registered themselves.

Such an agent belongs to nobody until a person claims it. The claim is decided here, where all
tenants meet; the tenant that won then adopts the agent (`approvals.agent_adopted`).
"""

from msgspec import Struct

from schemas.types import Micros, Sha256, Text


class AgentSelfRegistered(Struct, frozen=True, tag="approvals.agent_self_registered.v1"):
    """An agent made itself known. Of its key and its claim token only the hashes are known."""

    name: Text
    description: Text
    platform: Text
    key_prefix: str
    key_hash: Sha256
    claim_token_hash: Sha256
    registered_at: Micros
    expires_at: Micros


class AgentClaimed(Struct, frozen=True, tag="approvals.agent_claimed.v1"):
    """The token was used up: the agent is this tenant's, for good. With all that it needs there.

    claimed_for: the tenant. claim_id: the id of the command that won.
    """

    claimed_for: str
    claimed_by: str
    claim_id: str
    name: Text
    description: Text
    platform: Text
    key_prefix: str
    key_hash: Sha256
    claimed_at: Micros


class AgentClaimExpired(Struct, frozen=True, tag="approvals.agent_claim_expired.v1"):
    """Nobody claimed the agent in time: neither its token nor its key is good any more."""

    expired_at: Micros


RegistrationEvent = AgentSelfRegistered | AgentClaimed | AgentClaimExpired
