"""A proxy before a Kafka broker that loses, delays and cuts what a test tells it to.

Clients that bootstrap through it stay on it: wherever an answer names the broker's address
(Metadata, FindCoordinator), the proxy puts its own port. Nothing else is changed.
"""

import asyncio
import contextlib
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Self, TypeVar

from infra.embedded.ports import LOOPBACK

PRODUCE, FETCH, METADATA, FIND_COORDINATOR = 0, 1, 3, 10
INIT_PRODUCER_ID, ADD_PARTITIONS_TO_TXN, END_TXN = 22, 24, 26
T = TypeVar("T")
_HEAD = struct.Struct(">hhih")  # api key, api version, correlation id, length of the client id
_SIZE = struct.Struct(">i")


class Fault(Enum):
    """What happens to a request."""

    DROP_REQUEST = "the broker never sees it, the client waits"
    DROP_ANSWER = "the broker does it, the client waits"
    DELAY_REQUEST = "the broker sees it late, even when the client has gone meanwhile"
    CUT = "the broker does it, the client's connection is closed instead of an answer"


@dataclass
class Rule:
    """A fault for the next `times` requests of one kind by one client.

    delay: in seconds, for DELAY_REQUEST. `passed` is set when the last one is through with it.
    """

    api_key: int
    client_id: str
    fault: Fault
    times: int = 1
    delay: float = 0.0
    passed: asyncio.Event = field(default_factory=asyncio.Event)

    def strikes(self, api_key: int, client_id: str) -> bool:
        """Whether this request is one of those; counts it."""
        if (api_key, client_id) != (self.api_key, self.client_id) or not self.times:
            return False
        self.times -= 1
        return True

    def done(self) -> None:
        """A request is through with it."""
        if not self.times:
            self.passed.set()


class KafkaProxy:
    """`async with KafkaProxy(broker_port) as proxy`: clients use `proxy.bootstrap`."""

    def __init__(self, broker_port: int) -> None:
        self._broker_port = broker_port
        self.rules: list[Rule] = []
        self.connections = 0
        self._served: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, LOOPBACK, 0)
        self.port = int(self._server.sockets[0].getsockname()[1])
        self.bootstrap = f"{LOOPBACK}:{self.port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._served:
            task.cancel()
        await asyncio.gather(*self._served, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._served.add(task)
        self.connections += 1
        try:
            await _Connection(self, reader, writer).serve()
        except asyncio.CancelledError:
            pass  # the proxy closes; asyncio's streams would report it as an error
        finally:
            self._served.discard(task)
            writer.close()

    async def broker(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to the broker. Raises OSError."""
        return await asyncio.open_connection(LOOPBACK, self._broker_port)

    def rule_for(self, api_key: int, client_id: str) -> Rule | None:
        """The first rule that strikes a request."""
        return next((rule for rule in self.rules if rule.strikes(api_key, client_id)), None)

    def readdressed(self, answer: bytes) -> bytes:
        """An answer whose broker is at the proxy's port: same length, so the frame stays right."""
        host = LOOPBACK.encode()
        ours, theirs = _SIZE.pack(self.port), _SIZE.pack(self._broker_port)
        return answer.replace(host + theirs, host + ours)


class _Connection:
    """One client's connection and the one to the broker behind it."""

    def __init__(
        self, proxy: KafkaProxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._proxy, self._reader, self._writer = proxy, reader, writer
        # What to do with the answer to each request that the broker has, by correlation id.
        self._waiting: dict[int, tuple[int, Fault | None]] = {}

    async def serve(self) -> None:
        """Pass frames both ways until a side closes."""
        try:
            broker_reader, broker_writer = await self._proxy.broker()
        except OSError:
            return
        answers = asyncio.create_task(_until_closed(self._answers, broker_reader))
        try:
            # A request that is delayed goes out although its client has hung up.
            await _until_closed(self._requests, broker_writer)
            if not answers.done() and broker_writer.can_write_eof():
                broker_writer.write_eof()
                await answers
        finally:
            answers.cancel()
            broker_writer.close()
            with contextlib.suppress(asyncio.CancelledError):
                await answers

    async def _requests(self, broker: asyncio.StreamWriter) -> None:
        while True:
            frame = await _frame(self._reader)
            api_key, _, correlation, length = _HEAD.unpack_from(frame)
            client_id = frame[_HEAD.size : _HEAD.size + max(0, length)].decode()
            rule = self._proxy.rule_for(api_key, client_id)
            fault = rule.fault if rule is not None else None
            if fault is Fault.DELAY_REQUEST and rule is not None:
                await asyncio.sleep(rule.delay)
            if fault is not Fault.DROP_REQUEST:
                self._waiting[correlation] = (api_key, fault)
                broker.write(_SIZE.pack(len(frame)) + frame)
                await broker.drain()
            if rule is not None:
                rule.done()

    async def _answers(self, broker: asyncio.StreamReader) -> None:
        while True:
            frame = await _frame(broker)
            api_key, fault = self._waiting.pop(_SIZE.unpack_from(frame)[0])
            if fault is Fault.CUT:
                self._writer.close()
                return
            if fault is Fault.DROP_ANSWER:
                continue
            if api_key in (METADATA, FIND_COORDINATOR):
                frame = self._proxy.readdressed(frame)
            self._writer.write(_SIZE.pack(len(frame)) + frame)
            await self._writer.drain()


async def _frame(reader: asyncio.StreamReader) -> bytes:
    """The next frame without its length. Raises IncompleteReadError at the end."""
    return await reader.readexactly(_SIZE.unpack(await reader.readexactly(_SIZE.size))[0])


async def _until_closed(pump: Callable[[T], Awaitable[None]], side: T) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError, OSError):
        await pump(side)
