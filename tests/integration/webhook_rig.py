"""Webhooks on real Kafka and Postgres: a receiver that does what it is told to, and the loops."""

import asyncio
import contextlib
import dataclasses
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, NamedTuple, Self, TypeVar

from standardwebhooks import Webhook

from infra.clock import SYSTEM_CLOCK, Clock
from infra.config import Settings
from infra.ids import Signer, new_id
from infra.postgres import Reads
from streams.approvals.watching import Watching
from streams.platform.announcing import Announcing
from streams.platform.webhooks import Webhooks
from streams.runtime import codec, command_bus
from tests.integration.test_approvals import RealWaitroom, real_waitroom

T = TypeVar("T")

PATIENCE = 60.0
OUR_NETWORK = ("127.0.0.0/8",)


class Received(NamedTuple):
    """A request that has come."""

    path: str
    headers: dict[str, str]
    body: str

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    def verified(self, secret: str) -> Any:
        """The body, once its signature holds. Raises WebhookVerificationError."""
        return Webhook(secret).verify(self.body, self.headers)


Behaviour = Callable[[asyncio.StreamWriter], Awaitable[None]]


def answer(status: int, body: bytes = b"", **headers: str) -> Behaviour:
    """An ordinary answer."""

    async def write(writer: asyncio.StreamWriter) -> None:
        lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        head = [f"HTTP/1.1 {status} X", f"content-length: {len(body)}", "connection: close"]
        writer.write("\r\n".join([*head, *lines, "", ""]).encode() + body)

    return write


async def hang(writer: asyncio.StreamWriter) -> None:
    """Never answer."""
    await asyncio.Event().wait()


async def endless(writer: asyncio.StreamWriter) -> None:
    """A body that does not end."""
    writer.write(b"HTTP/1.1 500 X\r\ncontent-type: text/plain\r\n\r\n")
    with contextlib.suppress(ConnectionError):
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()


class Receiver:
    """An HTTP server. By path: the behaviours that come first, then always the last of them."""

    def __init__(self) -> None:
        self.got: list[Received] = []
        self._behaviours: dict[str, deque[Behaviour]] = {}
        self._more = asyncio.Condition()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def endpoint(self, *behaviours: Behaviour) -> str:
        """The URL of a new path."""
        assert self._server is not None
        path = f"/{new_id('hook')}"
        self.behave(path, *behaviours)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}{path}"

    def behave(self, url: str, *behaviours: Behaviour) -> None:
        """From now on, do this."""
        self._behaviours["/" + url.rpartition("/")[2]] = deque(behaviours or [answer(204)])

    def at(self, url: str) -> list[Received]:
        """What has come to a URL, in order."""
        path = "/" + url.rpartition("/")[2]
        return [request for request in self.got if request.path == path]

    async def until(self, url: str, count: int, timeout: float = PATIENCE) -> list[Received]:
        """What has come to a URL, once it is so many."""
        async with asyncio.timeout(timeout), self._more:
            await self._more.wait_for(lambda: len(self.at(url)) >= count)
        return self.at(url)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        body = (await reader.readexactly(int(headers.get("content-length", 0)))).decode()
        path = first.split(" ")[1]
        async with self._more:
            self.got.append(Received(path, headers, body))
            self._more.notify_all()
        behaviours = self._behaviours.get(path) or deque([answer(404)])
        await (behaviours.popleft() if len(behaviours) > 1 else behaviours[0])(writer)
        await writer.drain()


@contextlib.asynccontextmanager
async def delivering(
    settings: Settings, clock: Clock = SYSTEM_CLOCK, watching: bool = True
) -> AsyncIterator[Webhooks]:
    """The fan-outs and the sender in this process, as the role `streams` runs them."""
    bus, reads = command_bus(settings), Reads(settings.database_url)
    await bus.start()
    await reads.start()
    webhooks = Webhooks(
        bootstrap=settings.kafka_bootstrap_servers,
        database=settings.database_url,
        partitions=settings.partitions,
        codec=codec(),
        clock=clock,
        bus=bus,
        signer=Signer(settings.secret_key),
        allowed=settings.egress_allow,
        owner=new_id("test"),
    )
    works = [webhooks.run()]
    if watching:
        works += [
            fan_out(
                bootstrap=settings.kafka_bootstrap_servers,
                codec=codec(),
                bus=bus,
                reads=reads,
                group=new_id("test"),
            ).run()
            for fan_out in (Watching, Announcing)
        ]
    tasks = [asyncio.create_task(work) for work in works]
    try:
        async with asyncio.timeout(PATIENCE):
            await webhooks.serving()
        yield webhooks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await bus.stop()
        await reads.stop()


async def until(ask: Callable[[], Awaitable[T]], holds: Callable[[T], bool]) -> T:
    """What is found, once it is as it should be: another process may write it, so it is asked."""
    found = await ask()
    try:
        async with asyncio.timeout(PATIENCE):
            while not holds(found):
                await asyncio.sleep(0.05)
                found = await ask()
    except TimeoutError:
        raise AssertionError(f"it stays at {found}") from None
    return found


class Hooked:
    """A room of a tenant, an agent that watches it, and what comes to its endpoint."""

    def __init__(self, waitroom: RealWaitroom, receiver: Receiver, agent: dict[str, str]) -> None:
        self.waitroom, self.receiver, self.agent = waitroom, receiver, agent
        self.settings = waitroom.services.settings

    async def watch(self, url: str = "", **fields: Any) -> dict[str, Any]:
        """A new watcher of signals, unless told otherwise."""
        body = {"event_types": ["signal.broadcast"], **fields}
        if url:
            body["webhook_url"] = url
        answer = await self.waitroom.call("POST", "/v1/rooms/payments/watch", self.agent, body)
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()["data"]
        return found

    async def signal(self, name: str, **payload: Any) -> str:
        """Broadcast a signal; its id."""
        body = {"type": name, "payload": payload}
        answer = await self.waitroom.person_calls("POST", "/v1/rooms/payments/signal", body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["data"]["id"])

    async def watcher(self, id: str) -> dict[str, Any]:
        """A watcher as it is now."""
        answer = await self.waitroom.person_calls("GET", f"/v1/watchers/{id}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()["data"]
        return found

    async def deliveries(self, id: str) -> list[dict[str, Any]]:
        """A watcher's deliveries, oldest first."""
        answer = await self.waitroom.person_calls("GET", f"/v1/watchers/{id}/deliveries")
        assert answer.status_code == 200, answer.text
        return list(reversed(answer.json()["data"]))

    async def until_statuses(self, id: str, expected: Sequence[str]) -> list[dict[str, Any]]:
        """A watcher's deliveries, once these are their statuses, oldest first."""
        return await until(
            lambda: self.deliveries(id),
            lambda found: [one["status"] for one in found] == list(expected),
        )

    async def until_tried(self, id: str) -> dict[str, Any]:
        """The first attempt of a watcher's first delivery, once it was made."""
        found = await until(
            lambda: self.deliveries(id), lambda found: bool(found and found[0]["attempts"])
        )
        attempt: dict[str, Any] = found[0]["attempts"][0]
        return attempt

    async def until_disabled(self, id: str) -> dict[str, Any]:
        """A watcher, once it is disabled."""
        return await until(lambda: self.watcher(id), lambda found: found["status"] == "disabled")


@contextlib.asynccontextmanager
async def hooked(settings: Settings) -> AsyncIterator[Hooked]:
    """A waitroom with a room and an agent, whose own network may be reached, and a receiver."""
    settings = dataclasses.replace(settings, egress_allow=OUR_NETWORK)
    async with real_waitroom(settings) as waitroom, Receiver() as receiver:
        await waitroom.room()
        yield Hooked(waitroom, receiver, await waitroom.agent())
