"""The app behind the real server, byte by byte: connections that stay, bodies unread, stops."""

import asyncio
import contextlib
import dataclasses
import re
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from api.__main__ import HttpServer, server_config
from api.problems import OBSERVE, SERVICE
from api.routing import Call, Who
from tests.api.harness import Harness
from tests.api.sample import COUNTER, ROUTES, NoteBody, row

PATIENCE = 10.0


class Wire:
    """A connection to the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, head: str, body: bytes = b"") -> None:
        self.writer.write(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
        await self.writer.drain()

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """The next response: status, headers, body."""
        async with asyncio.timeout(PATIENCE):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
            lines = head.strip().split("\r\n")
            pairs = (line.split(": ", 1) for line in lines[1:])
            headers = {name.lower(): value for name, value in pairs}
            body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return int(lines[0].split()[1]), headers, body

    async def closed(self) -> bool:
        """Whether the server ends the connection."""
        async with asyncio.timeout(PATIENCE):
            with contextlib.suppress(ConnectionError):
                return await self.reader.read() == b""
        return True


class Running:
    """The server, its port, and what holds a handler up."""

    def __init__(self, app: Harness, server: HttpServer, port: int) -> None:
        self.app, self.server, self.port = app, server, port
        self.entered, self.gate = asyncio.Event(), asyncio.Event()
        self.wires: list[Wire] = []
        self.commands: list[str] = []

    async def connect(self) -> Wire:
        wire = Wire(*await asyncio.open_connection("127.0.0.1", self.port))
        self.wires.append(wire)
        return wire


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    async def slow(call: Call[Any, None]) -> dict[str, Any]:
        """Waits until it is let go."""
        run.entered.set()
        await run.gate.wait()
        return {"done": True}

    async def report(call: Call[NoteBody, None]) -> dict[str, str]:
        """Says which request it is, as `slow`."""
        run.commands.append(call.command_id)
        return {**await slow(call), "command": call.command_id}

    routes = [
        *ROUTES,
        row("GET", "/api/v1/slow", slow, SERVICE, Who.PUBLIC),
        row(
            "POST", "/api/v1/observe/reports", report, OBSERVE, Who.API_KEY, body=NoteBody,
            max_body=1024 * 1024, repeats=True,
        ),
    ]  # fmt: skip
    async with Harness(routes, deciders=[COUNTER]) as app:
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        ready = asyncio.Event()
        server = HttpServer(server_config(app.app, app.services.settings), ready.set)
        run = Running(app, server, listener.getsockname()[1])
        task = asyncio.create_task(server.serve(sockets=[listener]))
        async with asyncio.timeout(PATIENCE):
            await ready.wait()
        yield run
        run.gate.set()
        server.should_exit = True
        for wire in run.wires:
            wire.writer.close()
        async with asyncio.timeout(PATIENCE):
            await task


def post(path: str, headers: dict[str, str], length: int | None) -> str:
    lines = [f"POST {path} HTTP/1.1", "Host: weir.test"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines.append("Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}")
    return "\n".join(lines)


GET = "GET /api/v1/observe/nothing HTTP/1.1\nHost: weir.test"


async def test_a_connection_outlives_every_refusal(running: Running) -> None:
    wire = await running.connect()
    key = running.app.key()
    for path, headers, length, status in (
        ("/v1/sums/1", {}, 10, 401),
        ("/v1/sums/1", key, 10, 403),
        ("/nowhere", {}, 10, 404),
        ("/api/v1/observe/telemetry", key, 200_000, 413),
        ("/api/v1/observe/telemetry", key, 10, 400),
    ):
        await wire.send(post(path, headers, length), b"x" * length)
        found, _, _ = await wire.answer()
        assert found == status
    await wire.send(GET)
    assert (await wire.answer())[0] == 404


async def test_a_body_is_not_asked_for_when_the_answer_is_no(running: Running) -> None:
    wire = await running.connect()
    await wire.send(post("/v1/sums/1", {"Expect": "100-continue"}, 10))
    assert (await wire.answer())[0] == 401


async def test_an_endless_body_is_cut_off(running: Running) -> None:
    wire = await running.connect()
    await wire.send(post("/api/v1/observe/telemetry", running.app.key(), None))
    for _ in range(3):
        wire.writer.write(b"200\r\n" + b" " * 512 + b"\r\n")
        await wire.writer.drain()
    status, headers, _ = await wire.answer()
    assert (status, headers["connection"]) == (413, "close")
    assert await wire.closed()


async def test_requests_sent_at_once_are_answered_in_order(running: Running) -> None:
    wire = await running.connect()
    ids = [f"r-{number}" for number in range(5)]
    head = (GET + "\nX-Request-Id: {}").replace("\n", "\r\n")
    wire.writer.write("".join(head.format(id) + "\r\n\r\n" for id in ids).encode())
    assert [(await wire.answer())[1]["x-request-id"] for _ in ids] == ids


async def test_a_broken_request_line_is_a_400_and_the_server_lives(running: Running) -> None:
    for garbage in (b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"GET / HTTP/1.1\r\nA\x00: b\r\n\r\n"):
        wire = await running.connect()
        wire.writer.write(garbage + b"\r\n\r\n")
        assert (await wire.reader.read(12)).startswith(b"HTTP/1.1 400")
    wire = await running.connect()
    await wire.send(GET)
    assert (await wire.answer())[0] == 404


async def test_what_is_being_handled_is_finished_before_the_stop(running: Running) -> None:
    wire = await running.connect()
    await wire.send("GET /api/v1/slow HTTP/1.1\nHost: weir.test")
    async with asyncio.timeout(PATIENCE):
        await running.entered.wait()
    running.server.should_exit = True
    running.gate.set()
    status, _, body = await wire.answer()
    assert (status, body) == (200, b'{"done":true}')
    assert await wire.closed()


async def test_the_server_does_not_say_what_it_is_made_of(running: Running) -> None:
    wire = await running.connect()
    await wire.send(GET)
    _, headers, _ = await wire.answer()
    assert "server" not in headers
    assert re.match(r"^\w{3}, \d\d ", headers["date"])


async def test_forwarded_addresses_are_believed_from_named_proxies_only(running: Running) -> None:
    settings = running.app.services.settings
    trusting = dataclasses.replace(settings, trusted_proxies="10.0.0.0/8")
    assert not server_config(running.app.app, settings).proxy_headers
    assert server_config(running.app.app, trusting).proxy_headers


async def reported(running: Running, wire: Wire, headers: dict[str, str], body: bytes) -> None:
    """A report that its handler has by now."""
    running.entered.clear()
    await wire.send(post("/api/v1/observe/reports", headers, len(body)), body)
    async with asyncio.timeout(PATIENCE):
        await running.entered.wait()


# A body of more than the server reads ahead is one whose connection it stops to read.
@pytest.mark.parametrize("note", ["", "x" * 500_000], ids=["small", "large"])
async def test_a_report_whose_client_went_away_is_known_when_it_comes_again(
    running: Running, note: str
) -> None:
    key, body = running.app.key(), b'{"note":"%s"}' % note.encode()
    lost = await running.connect()
    await reported(running, lost, key, body)
    waiting = await running.connect()
    await reported(running, waiting, key, body)
    lost.writer.close()
    await lost.writer.wait_closed()
    again = await running.connect()
    await reported(running, again, key, body)
    running.gate.set()
    for wire in (waiting, again):
        assert (await wire.answer())[0] == 200
    await again.send(post("/api/v1/observe/reports", key, len(body)), body)
    assert (await again.answer())[0] == 200
    gone, other, repeated, new = running.commands
    assert gone == repeated
    assert len({gone, other, new}) == 3


async def test_a_report_that_was_answered_to_nobody_is_known_when_it_comes_again(
    running: Running,
) -> None:
    key = running.app.key()
    lost = await running.connect()
    await reported(running, lost, key, b"{}")
    lost.writer.close()
    await lost.writer.wait_closed()
    # The server takes this connection after it has seen the other one end.
    wire = await running.connect()
    running.gate.set()
    for _ in range(3):
        await wire.send(post("/api/v1/observe/reports", key, 2), b"{}")
        assert (await wire.answer())[0] == 200
    gone, repeated, *new = running.commands
    assert gone == repeated
    assert len({gone, *new}) == 3
