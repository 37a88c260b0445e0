"""Server-sent events: the wire form, heartbeats, and every way a stream ends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from api.live import LiveHub
from api.sse import EventStream, Frame
from api.subscription import QUEUE_MAX, LiveEvent
from schemas.codec import Codec
from tests.api.fake_log import FakeLog, dispatched

PATIENCE = 5.0


def render(event: LiveEvent) -> Frame | None:
    if event.type == "test.hidden.v1":
        return None
    if event.type == "test.broken.v1":
        raise ValueError("cannot be shown")
    return Frame("thing", {"at": event.position.offset})


class Client:
    """The other end of one ASGI response."""

    def __init__(self, log: FakeLog) -> None:
        self.text, self.status, self.finished = "", 0, False
        self.headers: dict[str, str] = {}
        self.reading = asyncio.Event()
        self.reading.set()
        self._gone = asyncio.Event()
        self._more = asyncio.Condition()

    async def receive(self) -> dict[str, Any]:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            return
        await self.reading.wait()
        async with self._more:
            self.text += message["body"].decode()
            self.finished = not message.get("more_body", False)
            self._more.notify_all()

    async def until(self, text: str) -> str:
        """What was received, once it holds `text`."""
        async with asyncio.timeout(PATIENCE), self._more:
            await self._more.wait_for(lambda: text in self.text)
        return self.text

    def leave(self) -> None:
        self._gone.set()


class Stage:
    """A hub over a fake log and one tenant."""

    def __init__(self, log: FakeLog, hub: LiveHub) -> None:
        self.log, self.hub = log, hub
        self.partition = hub.partition_of("ten_a")

    async def append(self, type: str = "test.thing_done.v1") -> int:
        return await self.log.append(self.partition, "ten_a", type)

    async def dispatched(self) -> None:
        await dispatched(self.hub, self.log, self.partition)

    def at(self, offset: int) -> str:
        return f"events:{self.partition.partition}:{offset}"

    @asynccontextmanager
    async def client(
        self, after: str | None = None, **options: Any
    ) -> AsyncIterator[tuple[Client, "asyncio.Task[None]"]]:
        response = EventStream(await self.hub.subscribe("ten_a", after=after), render, **options)
        client = Client(self.log)
        task = asyncio.create_task(response({}, client.receive, client.send))
        try:
            yield client, task
        finally:
            client.leave()
            client.reading.set()
            async with asyncio.timeout(PATIENCE):
                await task


@asynccontextmanager
async def stage() -> AsyncIterator[Stage]:
    log = FakeLog()
    hub = LiveHub(log.consumer, Codec([], []))
    await hub.start()
    try:
        yield Stage(log, hub)
    finally:
        await hub.stop()


async def test_an_event_is_sent_with_its_position() -> None:
    async with stage() as it, it.client() as (client, _):
        await client.until("retry: 2000\n")
        await it.append()
        text = await client.until('data: {"at":0}\n\n')
        assert text == (
            f'retry: 2000\nid: {it.at(-1)}\n\nid: {it.at(0)}\nevent: thing\ndata: {{"at":0}}\n\n'
        )
        assert client.status == 200
        assert client.headers["content-type"].startswith("text/event-stream")
        assert client.headers["cache-control"] == "no-store"
        assert "content-length" not in client.headers


async def test_what_is_hidden_or_cannot_be_rendered_does_not_end_the_stream() -> None:
    async with stage() as it, it.client() as (client, _):
        for type in ("test.hidden.v1", "test.broken.v1", "test.thing_done.v1"):
            await it.append(type)
        text = await client.until("data:")
        assert text.count("event:") == 1
        assert f"id: {it.at(2)}\n" in text


async def test_a_client_resumes_by_its_last_id() -> None:
    async with stage() as it:
        for _ in range(3):
            await it.append()
        await it.dispatched()
        async with it.client(after=it.at(0)) as (client, _):
            text = await client.until('{"at":2}')
            assert '{"at":1}' in text
            assert '{"at":0}' not in text


async def test_a_position_that_is_gone_sends_a_resync_event() -> None:
    async with stage() as it:
        for _ in range(5):
            await it.append()
        await it.dispatched()
        it.log.forget(it.partition, before=4)
        async with it.client(after=it.at(0)) as (client, _):
            text = await client.until("event: resync")
            assert f"id: {it.at(4)}\nevent: resync\n" in text


async def test_a_quiet_stream_gets_heartbeats_that_move_its_id_on() -> None:
    async with stage() as it, it.client(heartbeat=0.01) as (client, _):
        await client.until(": heartbeat\n")
        # Nothing for this client to see, and yet it need not read it again when it comes back.
        await it.append("test.hidden.v1")
        assert it.at(0) in await client.until(f": heartbeat\nid: {it.at(0)}\n\n")


async def test_a_client_that_leaves_ends_the_stream() -> None:
    async with stage() as it, it.client() as (client, task):
        await client.until("retry:")
        assert it.hub.listeners == 1
        client.leave()
        async with asyncio.timeout(PATIENCE):
            await task
        assert it.hub.listeners == 0


async def test_a_client_that_leaves_a_firehose_ends_it() -> None:
    async with stage() as it:

        async def flood() -> None:
            while True:
                await it.append()
                await asyncio.sleep(0)

        pouring = asyncio.create_task(flood())
        try:
            async with it.client() as (client, task):
                await client.until('{"at":20}')
                client.leave()
                async with asyncio.timeout(PATIENCE):
                    await task
                assert it.hub.listeners == 0
        finally:
            pouring.cancel()
            await asyncio.gather(pouring, return_exceptions=True)


async def test_a_slow_reader_is_dropped_with_a_word_on_when_to_retry() -> None:
    async with stage() as it, it.client() as (client, task):
        await client.until("retry:")
        client.reading.clear()
        for _ in range(QUEUE_MAX + 100):
            await it.append()
            await it.dispatched()
        client.reading.set()
        async with asyncio.timeout(PATIENCE):
            await task
        assert client.finished
        assert client.text.endswith(": slow reader\nretry: 2000\n\n")
        # It got a stretch without holes and knows where it stands.
        last = int(client.text.rpartition("id: ")[2].split("\n")[0].rpartition(":")[2])
        assert client.text.count("event: thing") == last + 1


async def test_a_client_that_reads_nothing_is_cut_off() -> None:
    async with stage() as it, it.client(send_timeout=0.05) as (client, task):
        await client.until("retry:")
        client.reading.clear()
        await it.append()
        async with asyncio.timeout(PATIENCE):
            await task
        assert it.hub.listeners == 0
        assert not client.finished


async def test_a_revoked_key_ends_the_stream() -> None:
    async with stage() as it:
        subscription = await it.hub.subscribe("ten_a", credential="key_1")
        client = Client(it.log)
        task = asyncio.create_task(
            EventStream(subscription, render)({}, client.receive, client.send)
        )
        await client.until("retry:")
        it.hub.revoke("key_1")
        async with asyncio.timeout(PATIENCE):
            await task
        assert client.text.endswith(": credential revoked\nretry: 2000\n\n")


async def test_a_stream_has_a_lifetime() -> None:
    async with stage() as it, it.client(lifetime=0.05) as (client, task):
        async with asyncio.timeout(PATIENCE):
            await task
        assert client.text.endswith(": lifetime\nretry: 2000\n\n")


async def test_a_log_that_is_away_while_catching_up_asks_for_a_retry() -> None:
    async with stage() as it:
        for _ in range(3):
            await it.append()
        await it.dispatched()
        subscription = await it.hub.subscribe("ten_a", after=it.at(0))
        await it.log.set_up(False)
        client = Client(it.log)
        async with asyncio.timeout(PATIENCE):
            await EventStream(subscription, render)({}, client.receive, client.send)
        assert client.text.endswith(": the log is away\nretry: 4000\n\n")
