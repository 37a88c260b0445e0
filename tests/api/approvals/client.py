"""A client of Waitroom's surface, over memory or over real servers."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from starlette.types import ASGIApp

PATIENCE = 30.0
POLICIES = {
    "default_action": "require_approval",
    "timeout_minutes": 60,
    "timeout_action": "cancel",
    "rules": [],
}


def sha256(action: str, context: dict[str, Any]) -> str:
    """The payload hash as a client computes it; of plain values, whose JSON is canonical sorted."""
    payload = {"action": action, "context": context}
    text = json.dumps(payload, separators=(",", ":"), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


class WaitroomClient:
    """What people and agents do; `person` are the headers of somebody who may write."""

    def __init__(self, app: ASGIApp, client: httpx.AsyncClient, person: dict[str, str]) -> None:
        self.app, self.client, self.person = app, client, person

    def registered(self, secret: str, agent: dict[str, Any]) -> None:
        """Called with each new agent and its key."""

    async def call(
        self, method: str, path: str, headers: dict[str, str], body: Any = None, **more: Any
    ) -> httpx.Response:
        if body is not None:
            more["json"] = body
        return await self.client.request(method, path, headers=headers, **more)

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
        self.registered(made["api_key"], made["agent"])
        return {"Authorization": f"Bearer {made['api_key']}"}

    async def check_in(
        self, agent: dict[str, str], room: str = "payments", **fields: Any
    ) -> dict[str, Any]:
        """A new check-in."""
        body = {"action": "refund an order", **fields}
        answer = await self.call("POST", f"/v1/rooms/{room}/check-in", agent, body)
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()["data"]
        return found

    async def task(self, room: str = "payments", **fields: Any) -> dict[str, Any]:
        """A new task."""
        body = {"action": "reconcile March", **fields}
        answer = await self.person_calls("POST", f"/v1/rooms/{room}/tasks", body)
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()["data"]
        return found

    async def acts(self, agent: dict[str, str], verb: str, id: str, body: Any = None) -> Any:
        """An agent's `claim`, `release`, `help` or `join`."""
        return await self.call("POST", f"/v1/check-ins/{id}/{verb}", agent, body)

    @asynccontextmanager
    async def stream(
        self, path: str, headers: dict[str, str], query: str = ""
    ) -> AsyncIterator["Reader"]:
        """The response of a GET, readable while it goes on."""
        reader = Reader()
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(k.lower().encode(), v.encode()) for k, v in headers.items()],
            "client": ("192.0.2.1", 4711),
            "server": ("weir.test", 80),
            "scheme": "http",
            "root_path": "",
        }
        task = asyncio.create_task(self.app(scope, reader.receive, reader.send))
        try:
            yield reader
        finally:
            reader.leave()
            async with asyncio.timeout(PATIENCE):
                await task


class Reader:
    """The client of one response."""

    def __init__(self) -> None:
        self.text, self.status = "", 0
        self._asked, self._gone = False, asyncio.Event()
        self._more = asyncio.Condition()

    async def receive(self) -> dict[str, Any]:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        async with self._more:
            if message["type"] == "http.response.start":
                self.status = message["status"]
            else:
                self.text += message["body"].decode()
            self._more.notify_all()

    async def until(self, text: str) -> str:
        """What was received, once it holds `text`."""
        async with asyncio.timeout(PATIENCE), self._more:
            await self._more.wait_for(lambda: text in self.text)
        return self.text

    def leave(self) -> None:
        self._gone.set()


def error(answer: Any) -> tuple[int, str]:
    """The status and the code of a refusal."""
    return answer.status_code, answer.json()["error"]["code"]
