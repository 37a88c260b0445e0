"""The approvals surface over memory, with a person, an agent and a room."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from api.approvals import ROUTES
from api.credentials import AgentKey, lookup_prefix
from infra.ids import new_id, secret_hash
from schemas.envelope import SYSTEM
from streams.bus import CommandRequest
from tests.api.approvals.client import WaitroomClient
from tests.api.approvals.tables import Tables
from tests.api.harness import TENANT, Harness


class Waitroom(WaitroomClient):
    """The client over a harness, whose credential store learns of the agents it registers."""

    def __init__(self, harness: Harness, tables: Tables) -> None:
        super().__init__(harness.app, harness.client, harness.human())
        self.harness, self.tables = harness, tables

    def registered(self, secret: str, agent: dict[str, Any]) -> None:
        self.know(secret, agent)

    def know(self, secret: str, agent: dict[str, Any], tenant: str = TENANT) -> None:
        """Let the credential store find an agent's key, as its view would."""
        self.harness.credentials.agents[lookup_prefix(secret)] = AgentKey(
            agent["id"],
            tenant,
            secret_hash(secret),
            name=agent["name"],
            room_scopes=frozenset(agent["room_scopes"]),
            revoked=not agent["is_active"],
        )
        self.harness.services.credential_cache.drop("agent", agent["id"])


@pytest.fixture
async def waitroom() -> AsyncIterator[Waitroom]:
    tables = Tables()
    async with Harness(ROUTES, apply=tables.apply) as harness:
        tables.answer(harness.reads)
        yield Waitroom(harness, tables)


async def as_system(it: Waitroom, id: str, command: Any) -> None:
    """Send what a process of ours sends to a stream of the tenant."""
    request = CommandRequest(
        tenant=TENANT, stream_id=id, command=command, actor=SYSTEM, command_id=new_id("cmd")
    )
    assert (await it.harness.bus.send(request)).status == "accepted"
