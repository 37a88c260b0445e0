"""A kept connection that asks one thing after the other, in HTTP/1.1, at little cost."""

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """What a request gave; position: where it lies in the log, empty where that is not told."""

    body: bytes
    position: str


class KeptConnection:
    """One kept connection, with headers of its own. spent: seconds of each request."""

    def __init__(self, port: int, headers: Mapping[str, str]) -> None:
        self._port = port
        self._headers = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.spent: list[float] = []

    async def open(self) -> None:
        """Connect."""
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)

    def close(self) -> None:
        """Hang up."""
        self._writer.close()

    async def send(
        self, method: str, path: str, body: bytes = b"", kind: str = "application/json"
    ) -> Answer:
        """Ask, and time the answer. Raises RuntimeError when it is not 2xx."""
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{self._headers}"
            f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        began = time.perf_counter()
        self._writer.write(head.encode() + body)
        lines = await self._head()
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        content = await self._reader.readexactly(int(headers.get("content-length", "0")))
        self.spent.append(time.perf_counter() - began)
        if not lines[0].startswith("HTTP/1.1 2"):
            raise RuntimeError(f"{path}: {lines[0]} {content[:300]!r}")
        return Answer(content, headers.get("x-log-position", ""))

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The `data` of an answer to JSON."""
        text = b"" if body is None else json.dumps(body).encode()
        return json.loads((await self.send(method, path, text)).body)["data"]

    async def listen(self, path: str) -> None:
        """Begin a stream of server-sent events, and return when it has begun."""
        self._writer.write(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{self._headers}\r\n".encode()
        )
        assert " 200 " in (await self._head())[0]
        await self.until(b"retry:")

    async def until(self, *texts: bytes) -> None:
        """Return when a line of the stream holds these texts. Raises RuntimeError at its end."""
        line = b""
        while not all(text in line for text in texts):
            line = await self._reader.readline()
            if not line:
                raise RuntimeError("the stream has ended")

    async def _head(self) -> list[str]:
        return (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
