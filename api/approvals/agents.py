"""Agents: `/v1/agents`. An agent's key is shown once, when it is made."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from api.approvals.declaring import route
from api.approvals.envelopes import Data, Page, PageQuery, after, data, page_of
from api.approvals.visible import room_id_of
from api.credentials import AGENT_KEY_PREFIX, lookup_prefix
from api.problems import Problem, not_found
from api.routing import Call, Who, answer_of
from commands.approvals.agent import AgentAnswered, DeactivateAgent, RegisterAgent
from commands.approvals.trust import FORMULA, score_of
from infra.clock import iso
from infra.ids import secret_hash
from projections.approvals import agents, trust_moves, trust_scores
from schemas.approvals.vocabulary import TrustOutcome
from schemas.types import Text

MOVES_SHOWN = 20


class RegisterBody(Struct, frozen=True):
    """A new agent. `room_scopes` are ids (or slugs) of the rooms its key reaches; none is all."""

    name: Annotated[Text, Meta(min_length=1, max_length=200)]
    description: Annotated[Text, Meta(max_length=2000)] | None = None
    platform: Annotated[Text, Meta(max_length=100)] | None = None
    room_scopes: Annotated[list[Text], Meta(max_length=100)] | None = None


class AgentItem(Struct, frozen=True):
    """An agent as clients see it; `key_prefix` is the beginning of its key."""

    id: str
    name: str
    description: str
    platform: str
    room_scopes: list[str]
    key_prefix: str
    is_active: bool
    claimed: bool
    created_by: str
    created_at: str
    updated_at: str


class RegisteredAgent(Struct, frozen=True):
    """A new agent and its key, which is shown here and never again."""

    agent: AgentItem
    api_key: str
    key_prefix: str


class TrustMove(Struct, frozen=True):
    """What moved an agent's trust, by how much, and the score after it, as it was then."""

    check_in_id: str
    outcome: TrustOutcome
    change: float
    score: float
    moved_at: str


class TrustItem(Struct, frozen=True):
    """How far an agent is trusted in one room, 0 to 100, and what moved it: the last twenty."""

    room_id: str
    score: float
    total_check_ins: int
    approved_count: int
    modified_count: int
    rejected_count: int
    expired_count: int
    updated_at: str
    moves: list[TrustMove]


class TrustList(Struct, frozen=True):
    """An agent's trust in each room where a decision has moved it."""

    data: list[TrustItem]


async def register_agent(call: Call[RegisterBody, None]) -> Any:
    """Register an agent and make its key."""
    # The key follows from the command's id: a repeat of the request shows the same one without
    # anybody having kept it.
    secret = call.services.signer.secret(AGENT_KEY_PREFIX, call.command_id)
    body = call.body
    command = RegisterAgent(
        name=body.name,
        key_prefix=lookup_prefix(secret),
        key_hash=secret_hash(secret),
        description=body.description or "",
        platform=body.platform or "",
        room_scopes=await _scopes(call, body.room_scopes or []),
    )
    reply = await call.send("agt_" + call.command_id.removeprefix("cmd_"), command)
    call.headers["cache-control"] = "no-store"
    agent = answered_agent(answer_of(reply, AgentAnswered))
    return data(RegisteredAgent(agent, secret, agent.key_prefix))


async def _scopes(call: Call[Any, Any], named: list[str]) -> list[str]:
    found: list[str] = []
    for index, room in enumerate(named):
        try:
            room_id = await room_id_of(call, room)
        except Problem as problem:
            place = f"room_scopes[{index}]"
            raise Problem(400, "validation_error", problem.message, field=place) from None
        if room_id not in found:
            found.append(room_id)
    return found


async def list_agents(call: Call[None, PageQuery]) -> Any:
    """The tenant's agents, deactivated ones too, newest first."""
    query = call.query
    found = await call.services.reads.all(
        agents.PAGE, call.tenant, *after(query.cursor), query.limit + 1
    )
    return page_of(found, query.limit, _item, "registered_at")


async def get_agent(call: Call[None, None]) -> Any:
    """One agent."""
    return data(await agent_item(call, call.path["agent"]))


async def deactivate_agent(call: Call[None, None]) -> Any:
    """Stop an agent's key, everywhere and for good."""
    reply = await call.send(call.path["agent"], DeactivateAgent())
    return data(answered_agent(answer_of(reply, AgentAnswered)))


async def get_trust(call: Call[None, None]) -> Any:
    """An agent's trust in each room where a decision has moved it."""
    agent = await agent_item(call, call.path["agent"])
    reads = call.services.reads
    rows = await reads.all(trust_scores.OF_AGENT, call.tenant, agent.id)
    moves: dict[str, list[TrustMove]] = {row["room_id"]: [] for row in rows}
    for move in await reads.all(trust_moves.LATEST, MOVES_SHOWN, call.tenant, agent.id):
        if move["room_id"] in moves:
            moves[move["room_id"]].append(_move(move))
    scores = [await _score(call, agent.id, row) for row in rows]
    return TrustList(
        [_trust(row, score, moves[row["room_id"]]) for row, score in zip(rows, scores, strict=True)]
    )


async def _score(call: Call[Any, Any], agent_id: str, row: Any) -> float:
    """The score that the deciders judge by, also when the formula has changed since the row."""
    if row["formula"] == FORMULA:
        return float(row["score"])
    key = (call.tenant, agent_id, row["room_id"])
    outcomes = await call.services.reads.all(trust_moves.OUTCOMES, *key)
    return score_of(move["outcome"] for move in outcomes)


async def agent_item(call: Call[Any, Any], agent_id: str) -> AgentItem:
    """One agent of the tenant's. Raises Problem (404)."""
    row = await call.services.reads.one(agents.BY_ID, call.tenant, agent_id)
    if row is None:
        not_found("No such agent")
    return _item(row)


def answered_agent(agent: AgentAnswered) -> AgentItem:
    """The item of a decider's answer."""
    return _item(msgspec.to_builtins(agent))


def _item(agent: Any) -> AgentItem:
    return AgentItem(
        id=agent["id"],
        name=agent["name"],
        description=agent["description"],
        platform=agent["platform"],
        room_scopes=agent["room_scopes"],
        key_prefix=agent["key_prefix"],
        is_active=agent["active"],
        claimed=True,
        created_by=agent["registered_by"],
        created_at=iso(agent["registered_at"]),
        updated_at=iso(agent["updated_at"]),
    )


def _move(row: Any) -> TrustMove:
    return TrustMove(
        check_in_id=row["check_in_id"],
        outcome=row["outcome"],
        change=row["change"],
        score=row["score"],
        moved_at=iso(row["moved_at"]),
    )


def _trust(row: Any, score: float, moves: list[TrustMove]) -> TrustItem:
    names = ("approved_count", "modified_count", "rejected_count", "expired_count")
    counts = {name: row[name] for name in names}
    return TrustItem(
        room_id=row["room_id"],
        score=score,
        total_check_ins=sum(counts.values()),
        **counts,
        updated_at=iso(row["updated_at"]),
        moves=moves,
    )


ROUTES = [
    route(
        "POST",
        "/v1/agents/register",
        register_agent,
        Who.HUMAN,
        "Register an agent and make its key",
        body=RegisterBody,
        response=Data[RegisteredAgent],
        status=201,
        refusals=(409,),
    ),
    route(
        "GET",
        "/v1/agents",
        list_agents,
        Who.HUMAN,
        "List agents",
        query=PageQuery,
        response=Page[AgentItem],
    ),
    route(
        "GET",
        "/v1/agents/{agent}",
        get_agent,
        Who.HUMAN,
        "Get an agent",
        response=Data[AgentItem],
        refusals=(404,),
    ),
    route(
        "DELETE",
        "/v1/agents/{agent}",
        deactivate_agent,
        Who.HUMAN,
        "Deactivate an agent and its key for good",
        response=Data[AgentItem],
        refusals=(404,),
    ),
    route(
        "GET",
        "/v1/agents/{agent}/trust",
        get_trust,
        Who.HUMAN,
        "Get an agent's trust in each room",
        response=TrustList,
        refusals=(404,),
    ),
]
