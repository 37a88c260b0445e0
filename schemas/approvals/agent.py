"""Events of `approvals.agent`: who may check in, and with which key."""

from msgspec import Struct

from schemas.types import Micros, Sha256, Text


class AgentRegistered(Struct, frozen=True, tag="approvals.agent_registered.v1"):
    """A person registered an agent. Of its key only the prefix and the hash are known.

    room_scopes: ids of the rooms that the key sees; none means every room of the tenant.
    """

    name: Text
    description: Text
    platform: Text
    room_scopes: list[str]
    key_prefix: str
    key_hash: Sha256
    registered_by: str
    registered_at: Micros


class AgentAdopted(Struct, frozen=True, tag="approvals.agent_adopted.v1"):
    """A person claimed an agent that had registered itself; it keeps its key, and sees every room.

    adopted_at: when the claim was decided, in the directory.
    """

    name: Text
    description: Text
    platform: Text
    key_prefix: str
    key_hash: Sha256
    adopted_by: str
    adopted_at: Micros


class AgentDeactivated(Struct, frozen=True, tag="approvals.agent_deactivated.v1"):
    """The agent's key is not accepted any more. Final."""

    deactivated_by: str
    deactivated_at: Micros


AgentEvent = AgentRegistered | AgentAdopted | AgentDeactivated
