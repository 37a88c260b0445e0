"""A load generator that costs little beside what it measures: raw HTTP/1.1 on kept connections."""

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple, cast


class Figures(NamedTuple):
    """What a run of load gave. Latencies in milliseconds."""

    requests_per_second: float
    p50: float
    p99: float
    requests: int


class _Connection(asyncio.Protocol):
    """Sends the same request again and again, and times each answer."""

    def __init__(self, request: bytes, ends: float) -> None:
        self._request, self._ends = request, ends
        self._buffer = b""
        self._sent = 0.0
        self.spent: list[float] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it
        self._send()

    def _send(self) -> None:
        self._sent = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found or len(rest) < _length(head):
            return
        now = time.perf_counter()
        if not head.startswith(b"HTTP/1.1 2"):
            self._finish(RuntimeError(self._buffer.decode(errors="replace")[:500]))
            return
        self.spent.append(now - self._sent)
        self._buffer = b""
        if now < self._ends:
            self._send()
        else:
            self._finish(None)

    def connection_lost(self, error: Exception | None) -> None:
        self._finish(error or ConnectionError("the server closed the connection"))

    def _finish(self, error: Exception | None) -> None:
        if not self.done.done():
            if error is None:
                self.done.set_result(None)
            else:
                self.done.set_exception(error)
            self._transport.close()


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line[15:])
    return 0


async def load(port: int, requests: Sequence[bytes], seconds: float) -> Figures:
    """Keep a connection busy with each request for so long. Raises what a connection met."""
    loop, began = asyncio.get_running_loop(), time.perf_counter()
    ends = began + seconds
    made = []
    for request in requests:
        connect = loop.create_connection(partial(_Connection, request, ends), "127.0.0.1", port)
        made.append((await connect)[1])
    await asyncio.gather(*(connection.done for connection in made))
    took = time.perf_counter() - began
    spent = sorted(moment for connection in made for moment in connection.spent)
    return Figures(
        len(spent) / took,
        spent[len(spent) // 2] * 1e3,
        spent[int(len(spent) * 0.99)] * 1e3,
        len(spent),
    )


def post(path: str, body: bytes, **headers: str) -> bytes:
    """The bytes of a POST; underscores in header names stand for hyphens."""
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "Content-Type: application/json", "", ""]).encode() + body
