"""A client of the prompts surface, over memory or over real servers."""

from collections.abc import Mapping
from typing import Any

import httpx

PROMPTS = "/api/v1/prompts/"
CHAT = [
    {"role": "system", "content": "You are a helpful assistant for {{company}}."},
    {"role": "user", "content": "{{user_query}}"},
]


class PromptsClient:
    """What a builder at the web UI (`builder`) and an agent's code (`key`) do."""

    def __init__(
        self, client: httpx.AsyncClient, builder: dict[str, str], key: dict[str, str]
    ) -> None:
        self.client, self.builder, self.key = client, builder, key

    async def call(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """Ask below `/api/v1/prompts/`, as the builder unless headers are given."""
        arguments = {} if body is None else {"json": body}
        return await self.client.request(
            method, PROMPTS + path, headers=headers or self.builder, **arguments
        )

    async def ask(self, path: str) -> Any:
        """The answer of a GET that has to succeed."""
        answer = await self.call("GET", path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def create(self, name: str = "support", content: Any = "Hello", **fields: Any) -> Any:
        """A new prompt."""
        answer = await self.call("POST", "", {"name": name, "content": content, **fields})
        assert answer.status_code == 201, answer.text
        return answer.json()

    async def add(self, prompt_id: str, content: Any = "Hello again", **fields: Any) -> Any:
        """A new version."""
        body = {"content": content, **fields}
        answer = await self.call("POST", f"{prompt_id}/versions/", body)
        assert answer.status_code == 201, answer.text
        return answer.json()

    async def move(self, prompt_id: str, label: str, version: int) -> Any:
        """Point a label at a version."""
        answer = await self.call("PUT", f"{prompt_id}/labels/{label}/", {"version": version})
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def fetch(self, name: str = "support", **query: Any) -> httpx.Response:
        """What an agent's code gets."""
        path = f"/api/v1/observe/prompts/{name}/"
        return await self.client.get(path, params=query, headers=self.key)

    async def fetched(self, name: str = "support", **query: Any) -> Any:
        """What an agent's code gets, which has to be there."""
        answer = await self.fetch(name, **query)
        assert answer.status_code == 200, answer.text
        return answer.json()
