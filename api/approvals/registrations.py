"""Agents that register themselves, `/v1/agents/self-register`, and their claim by a person.

A claim token names its agent: `wct_<the agent id's own part>.<secret>`. Like the agent's key it is
derived, so that it can be shown again and nobody has stored it.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from api.approvals.agents import AgentItem, agent_item, answered_agent
from api.approvals.declaring import route
from api.approvals.envelopes import Data, data
from api.credentials import AGENT_KEY_PREFIX, DIRECTORY, lookup_prefix
from api.limits import RateLimiter
from api.problems import Problem, not_found
from api.routing import Call, Who, answer_of
from commands.approvals.agent import AgentAnswered
from commands.approvals.registration import ClaimAgent, RegistrationAnswered, SelfRegisterAgent
from infra.clock import iso
from infra.failpoints import failpoint
from infra.ids import Signer, secret_hash
from projections.approvals import registrations
from schemas.types import Text
from streams.approvals.adoptions import adoption_of

# Nobody vouches for who registers, so an address gets few: so many at once, then one a minute.
REGISTRATIONS_AT_ONCE = 10
_REGISTRATIONS_PER_MINUTE = 1
_LIMITER = "approvals.self_registrations"  # its name in Services.caches
_TOKEN = re.compile(r"^wct_([0-9a-z]{26})\.[0-9a-z]{52}$")


class SelfRegisterBody(Struct, frozen=True):
    """An agent that nobody has registered."""

    name: Annotated[Text, Meta(min_length=1, max_length=200)]
    description: Annotated[Text, Meta(max_length=2000)] | None = None
    platform: Annotated[Text, Meta(max_length=100)] | None = None


class ClaimBody(Struct, frozen=True):
    """The token that the agent was given when it registered itself."""

    claim_token: Annotated[Text, Meta(min_length=1, max_length=200)]


class OwnAgent(AgentItem, frozen=True, kw_only=True):
    """An agent as it sees itself. claim_token: what a person claims it with, until one has."""

    claim_token: str | None
    claim_expires_at: str | None


class SelfRegisteredAgent(Struct, frozen=True):
    """A new agent and its key, which is shown here and never again, and its claim token."""

    agent: AgentItem
    api_key: str
    key_prefix: str
    claim_token: str
    claim_expires_at: str


async def self_register(call: Call[SelfRegisterBody, None]) -> Any:
    """Make an agent known that nobody has vouched for."""
    limiter = call.services.caches.setdefault(
        _LIMITER, RateLimiter(_REGISTRATIONS_PER_MINUTE, REGISTRATIONS_AT_ONCE)
    )
    wait = limiter.take(call.address).retry_after
    if wait:
        message = f"Too many agents registered from here; try again in {wait} s"
        raise Problem(429, "rate_limited", message, headers={"retry-after": str(wait)})
    signer, body = call.services.signer, call.body
    agent_id = "agt_" + call.command_id.removeprefix("cmd_")
    secret = signer.secret(AGENT_KEY_PREFIX, call.command_id)
    token = claim_token(signer, agent_id)
    command = SelfRegisterAgent(
        name=body.name,
        key_prefix=lookup_prefix(secret),
        key_hash=secret_hash(secret),
        claim_token_hash=secret_hash(token),
        description=body.description or "",
        platform=body.platform or "",
    )
    answer = answer_of(await call.send(agent_id, command), RegistrationAnswered)
    call.headers["cache-control"] = "no-store"
    agent = _unclaimed(msgspec.to_builtins(answer))
    expires_at = iso(answer.expires_at)
    return data(SelfRegisteredAgent(agent, secret, agent.key_prefix, token, expires_at))


async def claim_agent(call: Call[ClaimBody, None]) -> Any:
    """Make a self-registered agent the caller's tenant's. One claim wins; then the tenant adopts
    the agent, at once or, should this process die in between, moments later."""
    token = call.body.claim_token
    match = _TOKEN.match(token)
    if match is None:
        not_found("No agent waits for this claim token")
    agent_id = f"agt_{match[1]}"
    claim = ClaimAgent(secret_hash(token), call.tenant)
    reply = await call.send(agent_id, claim, tenant=DIRECTORY)
    claimed = answer_of(reply, RegistrationAnswered).claim
    assert claimed is not None, "an accepted claim is kept"
    failpoint("claim.decided")
    adopted = await call.deliver(adoption_of(agent_id, claimed, call.actor, call.request_id))
    # Its key opens more from now on; other processes hear of it from the log.
    call.services.credential_cache.drop("agent", agent_id)
    return data(answered_agent(answer_of(adopted, AgentAnswered)))


async def get_me(call: Call[None, None]) -> Any:
    """The agent whose key this is; one that nobody has claimed is shown its claim token."""
    if call.principal.claimed:
        agent = await agent_item(call, call.actor.id)
        return data(OwnAgent(**_fields(agent), claim_token=None, claim_expires_at=None))
    row = await call.services.reads.one(registrations.BY_ID, call.actor.id)
    if row is None:
        not_found("No such agent")
    call.headers["cache-control"] = "no-store"
    token = claim_token(call.services.signer, row["id"])
    expires_at = iso(row["expires_at"])
    return data(
        OwnAgent(**_fields(_unclaimed(row)), claim_token=token, claim_expires_at=expires_at)
    )


def claim_token(signer: Signer, agent_id: str) -> str:
    """The claim token of an agent that registered itself."""
    return signer.secret(f"wct_{agent_id.removeprefix('agt_')}.", agent_id)


def _unclaimed(row: Mapping[str, Any]) -> AgentItem:
    same = ("id", "name", "description", "platform", "key_prefix")
    return AgentItem(
        **{name: row[name] for name in same},
        room_scopes=[],
        is_active=True,
        claimed=False,
        created_by="",
        created_at=iso(row["registered_at"]),
        updated_at=iso(row["registered_at"]),
    )


def _fields(agent: AgentItem) -> dict[str, Any]:
    return {name: getattr(agent, name) for name in agent.__struct_fields__}


ROUTES = [
    route(
        "POST",
        "/v1/agents/self-register",
        self_register,
        Who.PUBLIC,
        "Register oneself as an agent that nobody has claimed",
        body=SelfRegisterBody,
        response=Data[SelfRegisteredAgent],
        status=201,
        refusals=(409,),
    ),
    route(
        "POST",
        "/v1/agents/claim",
        claim_agent,
        Who.HUMAN,
        "Claim an agent that registered itself",
        body=ClaimBody,
        response=Data[AgentItem],
        refusals=(404, 409),
    ),
    route(
        "GET",
        "/v1/agents/me",
        get_me,
        Who.AGENT,
        "Get the calling agent",
        response=Data[OwnAgent],
        refusals=(404,),
        unclaimed=True,
    ),
]
