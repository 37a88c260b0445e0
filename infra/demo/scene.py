"""What the demo acts with: the API as each kind of caller sees it, and `weir` itself."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

import httpx

from infra.bootstrap import Credentials
from infra.clock import Clock, iso
from infra.demo.stage import DemoFailed
from infra.ids import new_id

T = TypeVar("T")
Caller = Literal["key", "person", "agent"]

PATIENCE_SECONDS = 60.0
_PAUSE_SECONDS = 0.1


class Scene:
    """A running installation and its first tenant.

    data: the folder of the stack. mark: short text that no other demo on this installation has
    used, for names that must be unique. began: ISO 8601 instant before the first step.
    """

    def __init__(
        self, client: httpx.AsyncClient, known: Credentials, data: Path, clock: Clock
    ) -> None:
        self.client, self.known, self.data = client, known, data
        self.mark, self.began = new_id("demo")[-8:], iso(clock.now())
        self._headers: dict[Caller, dict[str, str]] = {
            "key": {"X-Wax-Key": known.api_key},
            "person": {"Authorization": f"Bearer {known.admin_token}"},
            "agent": {"Authorization": f"Bearer {known.agent_key}"},
        }

    async def call(
        self,
        who: Caller,
        method: str,
        path: str,
        body: Any = None,
        *,
        status: int = 200,
        headers: dict[str, str] | None = None,
        **more: Any,
    ) -> httpx.Response:
        """Send a request and hold the answer to its status. Raises DemoFailed."""
        if body is not None:
            more["json"] = body
        sent = {**self._headers[who], **(headers or {})}
        try:
            answer = await self.client.request(method, path, headers=sent, **more)
        except httpx.HTTPError as error:
            raise DemoFailed(f"{method} {path}: {type(error).__name__} {error}") from error
        if answer.status_code != status:
            said = " ".join(answer.text.split())[:300]
            raise DemoFailed(f"{method} {path} answered {answer.status_code}: {said}")
        return answer

    async def events(self, who: Caller, path: str) -> AsyncIterator[tuple[str, Any]]:
        """The server-sent events of a stream as `(event, data)`; None for data that is none."""
        # A live stream is silent for as long as nothing happens.
        quiet = httpx.Timeout(10, read=None)
        headers = self._headers[who]
        async with self.client.stream("GET", path, headers=headers, timeout=quiet) as answer:
            if answer.status_code != 200:
                raise DemoFailed(f"GET {path} answered {answer.status_code}")
            yield "open", None
            name = ""
            async for line in answer.aiter_lines():
                field, _, value = line.partition(": ")
                if field == "event":
                    name = value
                elif field == "data":
                    yield name, json.loads(value)

    async def weir(self, *arguments: str) -> str:
        """Run a `weir` command on this stack and return what it prints. Raises DemoFailed."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "infra.cli",
            *arguments,
            "--data",
            str(self.data),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            # Nothing but the folder tells it where to go, as for a person.
            env={k: v for k, v in os.environ.items() if k != "KAFKA_BOOTSTRAP_SERVERS"},
        )
        output, errors = await process.communicate()
        if process.returncode != 0:
            said = " ".join(errors.decode().split())
            raise DemoFailed(f"weir {' '.join(arguments)} ended with {process.returncode}: {said}")
        return output.decode()


async def until(ask: Callable[[], Awaitable[T | None]], what: str) -> T:
    """Ask again and again until there is an answer. Raises DemoFailed when it takes too long."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            # What is asked for is on the far side of HTTP, where nothing tells us.
            while (found := await ask()) is None:  # noqa: ASYNC110
                await asyncio.sleep(_PAUSE_SECONDS)
            return found
    except TimeoutError:
        raise DemoFailed(f"{what} has not come in {PATIENCE_SECONDS:.0f} s") from None
