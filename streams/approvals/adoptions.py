"""Adoptions: an agent that was claimed in the directory is taken in by the tenant that won.

Two partitions, so two decisions. The first one, `AgentClaimed`, is final; the second follows from
it and is sent by whoever claimed, as part of the same request. Should that request die in between,
it is sent here. Both send the same command with the same id, so that it has one effect and leaves
one audit record, whoever comes first.
"""

from typing import Any

from commands.approvals.agent import AdoptAgent
from infra.ids import command_id
from schemas.approvals.registration import AgentClaimed
from schemas.codec import Codec
from schemas.envelope import Actor, Envelope
from streams.bus import CommandBus, CommandRequest
from streams.following import Follower, of_types, one_by_one

GROUP = "streams.approvals.adoptions.v1"
_PURPOSE = "adoption"


def adoption_of(
    agent_id: str, claimed: AgentClaimed, claimer: Actor, correlation_id: str
) -> CommandRequest:
    """The command that follows from a claim; claimer: the person who claimed."""
    return CommandRequest(
        tenant=claimed.claimed_for,
        stream_id=agent_id,
        command=AdoptAgent(
            name=claimed.name,
            description=claimed.description,
            platform=claimed.platform,
            key_prefix=claimed.key_prefix,
            key_hash=claimed.key_hash,
            adopted_at=claimed.claimed_at,
        ),
        actor=claimer,
        command_id=command_id(claimed.claimed_for, agent_id, _PURPOSE),
        fingerprint=_PURPOSE,
        correlation_id=correlation_id,
    )


class Adoptions:
    """Carries every claim to the tenant that won, until cancelled."""

    def __init__(self, *, bootstrap: str, codec: Codec, bus: CommandBus) -> None:
        self._bus = bus
        self._follower = Follower(
            bootstrap=bootstrap,
            group=GROUP,
            codec=codec,
            wants=of_types(AgentClaimed),
            handle=one_by_one(self._adopt),
        )

    async def run(self) -> None:
        """Follow the log; what goes wrong outside is waited out."""
        await self._follower.run()

    async def _adopt(self, envelope: Envelope, claimed: Any) -> None:
        request = adoption_of(envelope.stream_id, claimed, envelope.actor, envelope.correlation_id)
        await self._bus.post(request)
