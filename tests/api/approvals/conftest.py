"""The approvals surface over memory, with a person, an agent and a room."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from api.approvals import ROUTES
from api.credentials import AgentKey, lookup_prefix
from infra.ids import secret_hash
from tests.api.approvals.tables import Tables
from tests.api.harness import TENANT, Harness

POLICIES = {
    "default_action": "require_approval",
    "timeout_minutes": 60,
    "timeout_action": "cancel",
    "rules": [],
}


class Waitroom:
    """A client of each kind: `person`, and agents that it registered over HTTP."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.person = harness.human()

    async def call(
        self, method: str, path: str, headers: dict[str, str], body: Any = None, **more: Any
    ) -> httpx.Response:
        if body is not None:
            more["json"] = body
        return await self.harness.client.request(method, path, headers=headers, **more)

    async def person_calls(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        return await self.call(method, path, self.person, body, **more)

    async def room(self, name: str = "Payments", **fields: Any) -> dict[str, Any]:
        """A new room."""
        answer = await self.person_calls("POST", "/v1/rooms", {"name": name, **fields})
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()["data"]
        return found

    async def agent(self, name: str = "Robby", **fields: Any) -> dict[str, str]:
        """The headers of a new agent's key."""
        answer = await self.person_calls("POST", "/v1/agents/register", {"name": name, **fields})
        assert answer.status_code == 201, answer.text
        made = answer.json()["data"]
        self.know(made["api_key"], made["agent"])
        return {"Authorization": f"Bearer {made['api_key']}"}

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

    async def check_in(
        self, agent: dict[str, str], room: str = "payments", **fields: Any
    ) -> dict[str, Any]:
        """A new check-in."""
        body = {"action": "refund an order", **fields}
        answer = await self.call("POST", f"/v1/rooms/{room}/check-in", agent, body)
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()["data"]
        return found


@pytest.fixture
async def waitroom() -> AsyncIterator[Waitroom]:
    tables = Tables()
    async with Harness(ROUTES, apply=tables.apply) as harness:
        tables.answer(harness.reads)
        yield Waitroom(harness)
