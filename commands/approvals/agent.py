"""`approvals.agent`: who checks in, known by the hash of its key."""

from collections.abc import Sequence
from typing import assert_never

from msgspec import Struct
from msgspec.structs import replace

from commands.approvals.room import STREAM as ROOM
from commands.decider import Context, Decider, Ref
from commands.refusals import AlreadyDone, InvalidCommand, NotFound
from schemas.approvals.agent import (
    AgentAdopted,
    AgentDeactivated,
    AgentEvent,
    AgentRegistered,
)
from schemas.types import Micros, Sha256, Text
from schemas.unions import members

STREAM = "approvals.agent"


class RegisterAgent(Struct, frozen=True, tag="approvals.register_agent.v1"):
    """Register an agent with a key made at the edge; only prefix and hash come here."""

    name: Text
    key_prefix: str
    key_hash: Sha256
    description: Text = ""
    platform: Text = ""
    room_scopes: list[str] = []


class AdoptAgent(Struct, frozen=True, tag="approvals.adopt_agent.v1"):
    """Take in an agent whose claim the directory has decided for this tenant.

    Only what follows from `AgentClaimed` is sent, by who claimed and by the adoptions of `streams`.
    """

    name: Text
    description: Text
    platform: Text
    key_prefix: str
    key_hash: Sha256
    adopted_at: Micros


class DeactivateAgent(Struct, frozen=True, tag="approvals.deactivate_agent.v1"):
    """Stop the agent's key for good."""


AgentCommand = RegisterAgent | AdoptAgent | DeactivateAgent


class AgentExists(AlreadyDone):
    """An agent with this id exists and is not what was asked for."""


class AgentNotFound(NotFound):
    """The tenant has no such agent."""


class UnknownRoom(InvalidCommand):
    """A key cannot be scoped to a room that the tenant does not have."""


class Agent(Struct, frozen=True):
    """The state of an agent; without a key hash it does not exist. Instants are microseconds."""

    name: str = ""
    description: str = ""
    platform: str = ""
    room_scopes: list[str] = []
    key_prefix: str = ""
    key_hash: str = ""
    active: bool = False
    registered_by: str = ""
    registered_at: int = 0
    updated_at: int = 0

    def sees(self, room_id: str) -> bool:
        """Whether the agent's key reaches the room."""
        return not self.room_scopes or room_id in self.room_scopes


class AgentAnswered(Struct, frozen=True):
    """What a caller is told of an agent."""

    id: str
    name: str
    description: str
    platform: str
    room_scopes: list[str]
    key_prefix: str
    active: bool
    registered_by: str
    registered_at: int
    updated_at: int


def loads(command: AgentCommand, agent_id: str) -> Sequence[Ref]:
    if isinstance(command, RegisterAgent):
        return [Ref(ROOM, room_id) for room_id in command.room_scopes]
    return ()


def decide(command: AgentCommand, agent: Agent, context: Context) -> list[AgentEvent]:
    match command:
        case RegisterAgent():
            return _register(command, agent, context)
        case AdoptAgent():
            return _adopt(command, agent, context)
        case DeactivateAgent():
            if not agent.key_hash:
                raise AgentNotFound("no such agent")
            return [AgentDeactivated(context.actor.id, context.now)] if agent.active else []
    assert_never(command)


def _register(command: RegisterAgent, agent: Agent, context: Context) -> list[AgentEvent]:
    if _is_known(command.key_hash, agent):
        return []
    for index, room_id in enumerate(command.room_scopes):
        if not context.state(ROOM, room_id).slug:
            raise UnknownRoom(f"room_scopes[{index}]: no such room", field=f"room_scopes[{index}]")
    return [
        AgentRegistered(
            name=command.name,
            description=command.description,
            platform=command.platform,
            room_scopes=command.room_scopes,
            key_prefix=command.key_prefix,
            key_hash=command.key_hash,
            registered_by=context.actor.id,
            registered_at=context.now,
        )
    ]


def _adopt(command: AdoptAgent, agent: Agent, context: Context) -> list[AgentEvent]:
    if _is_known(command.key_hash, agent):
        return []
    return [
        AgentAdopted(
            name=command.name,
            description=command.description,
            platform=command.platform,
            key_prefix=command.key_prefix,
            key_hash=command.key_hash,
            adopted_by=context.actor.id,
            adopted_at=command.adopted_at,
        )
    ]


def _is_known(key_hash: str, agent: Agent) -> bool:
    """Whether the agent is here already, with this key. Raises AgentExists for another key."""
    if agent.key_hash in ("", key_hash):
        return bool(agent.key_hash)
    raise AgentExists("an agent with this id exists already")


def evolve(agent: Agent, event: AgentEvent) -> Agent:
    match event:
        case AgentRegistered():
            return Agent(
                name=event.name,
                description=event.description,
                platform=event.platform,
                room_scopes=event.room_scopes,
                key_prefix=event.key_prefix,
                key_hash=event.key_hash,
                active=True,
                registered_by=event.registered_by,
                registered_at=event.registered_at,
                updated_at=event.registered_at,
            )
        case AgentAdopted():
            return Agent(
                name=event.name,
                description=event.description,
                platform=event.platform,
                key_prefix=event.key_prefix,
                key_hash=event.key_hash,
                active=True,
                registered_by=event.adopted_by,
                registered_at=event.adopted_at,
                updated_at=event.adopted_at,
            )
        case AgentDeactivated():
            return replace(agent, active=False, updated_at=event.deactivated_at)
    assert_never(event)


def answer(command: AgentCommand, agent: Agent, context: Context) -> AgentAnswered:
    return AgentAnswered(
        id=context.stream_id,
        name=agent.name,
        description=agent.description,
        platform=agent.platform,
        room_scopes=agent.room_scopes,
        key_prefix=agent.key_prefix,
        active=agent.active,
        registered_by=agent.registered_by,
        registered_at=agent.registered_at,
        updated_at=agent.updated_at,
    )


def describe(command: AgentCommand) -> dict[str, object]:
    if isinstance(command, RegisterAgent):
        return {"name": command.name, "room_scopes": command.room_scopes}
    if isinstance(command, AdoptAgent):
        return {"name": command.name}
    return {}


DECIDER: Decider[AgentCommand, Agent, AgentEvent] = Decider(
    stream=STREAM,
    commands=members(AgentCommand),
    events=members(AgentEvent),
    initial=Agent(),
    decide=decide,
    evolve=evolve,
    loads=loads,
    answer=answer,
    describe=describe,
)
