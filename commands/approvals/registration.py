"""`approvals.registration`: an agent that registered itself, and who may call it theirs.

Tenant `_directory`, and the stream's id is the agent's own. A claim is decided here, once and for
good; what follows in the tenant that won (`AdoptAgent`) is sent by whoever claimed, and by
`streams/approvals/adoptions.py` in case they did not come to it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, assert_never

from msgspec import Struct
from msgspec.structs import replace

from commands.decider import ClearTimer, Context, Decider, SetTimer
from commands.refusals import ActorForbidden, AlreadyDone, NotFound
from schemas.approvals.registration import (
    AgentClaimed,
    AgentClaimExpired,
    AgentSelfRegistered,
    RegistrationEvent,
)
from schemas.types import Micros, Sha256, Text
from schemas.unions import members

STREAM = "approvals.registration"
CLAIM_MICROS = 7 * 24 * 3600 * 1_000_000
_TIMER = "claim"


class SelfRegisterAgent(Struct, frozen=True, tag="approvals.self_register_agent.v1"):
    """Make an agent known that nobody has vouched for; of its secrets only hashes come here."""

    name: Text
    key_prefix: str
    key_hash: Sha256
    claim_token_hash: Sha256
    description: Text = ""
    platform: Text = ""


class ClaimAgent(Struct, frozen=True, tag="approvals.claim_agent.v1"):
    """Use a claim token up, for the tenant of the person who does."""

    claim_token_hash: Sha256
    claimed_for: Text


class ExpireAgentClaim(Struct, frozen=True, tag="approvals.expire_agent_claim.v1"):
    """Sent by the scheduler when the token's time is over."""

    due_at: Micros


RegistrationCommand = SelfRegisterAgent | ClaimAgent | ExpireAgentClaim


class RegistrationExists(AlreadyDone):
    """An agent with this id registered itself already, with another key."""


class ClaimTokenNotFound(NotFound):
    """No agent waits for this token: it is wrong, or its time is over."""


class ClaimTokenUsed(AlreadyDone):
    """The token was used already, by whomever."""


class Registration(Struct, frozen=True):
    """Without a key hash it does not exist. Instants are microseconds UTC."""

    name: str = ""
    description: str = ""
    platform: str = ""
    key_prefix: str = ""
    key_hash: str = ""
    claim_token_hash: str = ""
    registered_at: int = 0
    expires_at: int = 0
    expired: bool = False
    claim: AgentClaimed | None = None


class RegistrationAnswered(Struct, frozen=True):
    """What a caller is told: the agent, and the claim once there is one."""

    id: str
    name: str
    description: str
    platform: str
    key_prefix: str
    registered_at: int
    expires_at: int
    claim: AgentClaimed | None


def decide(
    command: RegistrationCommand, registration: Registration, context: Context
) -> Sequence[RegistrationEvent]:
    """Raises RegistrationExists, ClaimTokenNotFound, ClaimTokenUsed, ActorForbidden."""
    match command:
        case SelfRegisterAgent():
            return _register(command, registration, context)
        case ClaimAgent():
            return _claim(command, registration, context)
        case ExpireAgentClaim():
            over = registration.claim is not None or registration.expired
            if over or command.due_at != registration.expires_at:
                return []
            return [AgentClaimExpired(context.now)]
    assert_never(command)


def _register(
    command: SelfRegisterAgent, registration: Registration, context: Context
) -> Sequence[RegistrationEvent]:
    if registration.key_hash:
        if registration.key_hash == command.key_hash:
            return []
        raise RegistrationExists("an agent with this id exists already")
    return [
        AgentSelfRegistered(
            name=command.name,
            description=command.description,
            platform=command.platform,
            key_prefix=command.key_prefix,
            key_hash=command.key_hash,
            claim_token_hash=command.claim_token_hash,
            registered_at=context.now,
            expires_at=context.now + CLAIM_MICROS,
        )
    ]


def _claim(
    command: ClaimAgent, registration: Registration, context: Context
) -> Sequence[RegistrationEvent]:
    if context.actor.kind != "user":
        raise ActorForbidden("only a person claims an agent")
    # Both are hashes of secrets of 256 bits: how long comparing takes tells nothing of use.
    if not registration.key_hash or registration.claim_token_hash != command.claim_token_hash:
        raise ClaimTokenNotFound("no agent waits for this claim token")
    if registration.claim is not None:
        if registration.claim.claim_id == context.command_id:
            return []
        raise ClaimTokenUsed("the claim token was used already")
    if registration.expired or context.now >= registration.expires_at:
        raise ClaimTokenNotFound("the claim token has expired")
    return [
        AgentClaimed(
            claimed_for=command.claimed_for,
            claimed_by=context.actor.id,
            claim_id=context.command_id,
            name=registration.name,
            description=registration.description,
            platform=registration.platform,
            key_prefix=registration.key_prefix,
            key_hash=registration.key_hash,
            claimed_at=context.now,
        )
    ]


def evolve(registration: Registration, event: RegistrationEvent) -> Registration:
    match event:
        case AgentSelfRegistered():
            fields = {name: getattr(event, name) for name in event.__struct_fields__}
            return Registration(**fields)
        case AgentClaimed():
            return replace(registration, claim=event)
        case AgentClaimExpired():
            return replace(registration, expired=True)
    assert_never(event)


def timers(event: RegistrationEvent, agent_id: str) -> Sequence[SetTimer | ClearTimer]:
    """The token ends by itself unless it is used."""
    if isinstance(event, AgentSelfRegistered):
        return (SetTimer(_TIMER, event.expires_at, ExpireAgentClaim(event.expires_at)),)
    return (ClearTimer(_TIMER),)


def answer(
    command: RegistrationCommand, registration: Registration, context: Context
) -> RegistrationAnswered:
    return RegistrationAnswered(
        id=context.stream_id,
        name=registration.name,
        description=registration.description,
        platform=registration.platform,
        key_prefix=registration.key_prefix,
        registered_at=registration.registered_at,
        expires_at=registration.expires_at,
        claim=registration.claim,
    )


def describe(command: RegistrationCommand) -> Mapping[str, Any]:
    match command:
        case SelfRegisterAgent():
            return {"name": command.name}
        case ClaimAgent():
            return {"claimed_for": command.claimed_for}
        case ExpireAgentClaim():
            return {}
    assert_never(command)


DECIDER: Decider[RegistrationCommand, Registration, RegistrationEvent] = Decider(
    stream=STREAM,
    commands=members(RegistrationCommand),
    events=members(RegistrationEvent),
    initial=Registration(),
    decide=decide,
    evolve=evolve,
    timers=timers,
    answer=answer,
    describe=describe,
)
