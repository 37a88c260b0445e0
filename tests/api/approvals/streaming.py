"""The approvals surface with a live tail: what is recorded goes to a log in memory, and a stream's
response can be read while it is being written."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import TopicPartition

from api.approvals import ROUTES
from api.live import LiveHub
from api.subscription import Subscription
from schemas.approvals import EVENTS
from schemas.avro_derivation import derive, tag_of
from schemas.codec import Codec, SchemaVersion
from schemas.envelope import to_headers
from streams.deciding import Recorded
from tests.api.approvals.conftest import Waitroom
from tests.api.approvals.tables import Tables
from tests.api.fake_log import FakeLog, FakeRecord
from tests.api.harness import Harness

PATIENCE = 5.0
CODEC = Codec(
    EVENTS,
    [
        SchemaVersion(number, tag_of(event), 1, derive(event))
        for number, event in enumerate(EVENTS, start=1)
    ],
)


class WatchedHub(LiveHub):
    """A hub that tells when somebody has joined."""

    joined: asyncio.Event

    def attach(self, subscription: Subscription) -> None:
        super().attach(subscription)
        self.joined.set()


class LiveWaitroom(Waitroom):
    """A Waitroom whose events reach `hub`, by way of `log`."""

    def __init__(self, harness: Harness, log: FakeLog, hub: WatchedHub) -> None:
        super().__init__(harness)
        self.log, self.hub = log, hub

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
        task = asyncio.create_task(self.harness.app(scope, reader.receive, reader.send))
        try:
            yield reader
        finally:
            reader.leave()
            async with asyncio.timeout(PATIENCE):
                await task

    async def listening(self) -> None:
        """Wait until somebody has joined the tail."""
        async with asyncio.timeout(PATIENCE):
            await self.hub.joined.wait()


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


async def append(log: FakeLog, partition: TopicPartition, item: Recorded) -> None:
    """Put a recorded event on the log, as the decider loop writes it."""
    offset = log.end[partition]
    headers = tuple(to_headers(item.envelope))
    record = FakeRecord(*partition, offset, headers, CODEC.encode(item.event))
    log.records[partition].append(record)
    log.end[partition] = offset + 1
    async with log.changed:
        log.changed.notify_all()


@asynccontextmanager
async def live_waitroom() -> AsyncIterator[LiveWaitroom]:
    """A LiveWaitroom that is up."""
    log, tables = FakeLog(), Tables()
    hub = WatchedHub(log.consumer, CODEC)
    hub.joined = asyncio.Event()

    async def apply(recorded: Sequence[Recorded]) -> None:
        await tables.apply(recorded)
        for item in recorded:
            await append(log, hub.partition_of(item.envelope.tenant), item)

    await hub.start()
    try:
        async with Harness(ROUTES, apply=apply) as harness:
            harness.services.live = hub
            tables.answer(harness.reads)
            yield LiveWaitroom(harness, log, hub)
    finally:
        await hub.stop()
