"""Server-sent events over a subscription: `id:` is a log position, so a client that comes back with
`Last-Event-ID` goes on where it was.

The response ends when the client is gone, when a write to it takes too long, when the subscription
ends (a slow reader, a revoked key, a shutdown) and at the latest after `lifetime`, so that whoever
listens shows its credential anew. EventSource and its like reconnect by themselves; `retry:` says
when. A quiet stream gets a comment every 15 seconds together with an `id:` alone, which moves the
client's Last-Event-ID on without an event (HTML standard, "dispatch the event", step 1 and 2).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec
from msgspec import Struct
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.subscription import LiveEvent, Resync, Subscription
from infra.kafka import LogUnavailable

logger = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 15.0
SEND_TIMEOUT_SECONDS = 30.0
LIFETIME_SECONDS = 3600.0
RETRY_MS = 2000
_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}


class Frame(Struct, frozen=True):
    """One event as the client sees it: its name, and data that is rendered as JSON."""

    event: str
    data: object


Render = Callable[[LiveEvent], Frame | None]
Settle = Callable[[Sequence[LiveEvent | Resync]], Awaitable[None]]


class EventStream(Response):
    """The response. `render` makes a frame of an event, or None for what the client need not see.

    It owns the subscription and closes it. Times are in seconds. `settle` is awaited with what is
    rendered next, for streams that must not tell of a thing before it can be asked for.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        subscription: Subscription,
        render: Render,
        *,
        heartbeat: float = HEARTBEAT_SECONDS,
        send_timeout: float = SEND_TIMEOUT_SECONDS,
        lifetime: float = LIFETIME_SECONDS,
        headers: Mapping[str, str] | None = None,
        settle: Settle | None = None,
    ) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers({**_HEADERS, **(headers or {})})
        self._subscription, self._render, self._settle = subscription, render, settle
        self._heartbeat, self._send_timeout, self._lifetime = heartbeat, send_timeout, lifetime

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until somebody ends it; never raises because of the client."""
        async with self._subscription:
            pump = asyncio.create_task(self._pump(send))
            gone = asyncio.create_task(_disconnected(receive))
            try:
                await asyncio.wait({pump, gone}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                pump.cancel()
                gone.cancel()
                results = await asyncio.gather(pump, gone, return_exceptions=True)
        for result in results:
            # A transport that fails in mid-write is a client that is gone.
            if isinstance(result, Exception) and not isinstance(result, OSError):
                raise result

    async def _pump(self, send: Send) -> None:
        async def write(body: bytes, more: bool = True) -> None:
            async with asyncio.timeout(self._send_timeout):
                await send({"type": "http.response.body", "body": body, "more_body": more})

        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        subscription = self._subscription
        clock = asyncio.get_running_loop().time
        closes_at = clock() + self._lifetime
        try:
            await write(b"retry: %d\n" % RETRY_MS + self._checkpoint() + b"\n")
            written_at = clock()
            while not subscription.ended and clock() < closes_at:
                patience = min(self._heartbeat, closes_at - clock())
                body = await self._frames(await subscription.batch(max(patience, 0.0)))
                if not body and clock() - written_at >= self._heartbeat:
                    body = b": heartbeat\n" + self._checkpoint() + b"\n"
                if body:
                    await write(body)
                    written_at = clock()
            rest = await self._frames(await subscription.batch(0.0, 1000))
            reason = subscription.ended or "lifetime"
            await write(rest + b": %b\nretry: %d\n\n" % (reason.encode(), RETRY_MS), more=False)
        except TimeoutError:
            # Nothing was read for `send_timeout`: cut it off, it resumes by its last id.
            subscription.end("client stopped reading")
        except LogUnavailable:
            # It stays where it is: it will ask again with the id that it has.
            await write(b": the log is away\nretry: %d\n\n" % (RETRY_MS * 2), more=False)

    def _checkpoint(self) -> bytes:
        position = self._subscription.checkpoint()
        return b"id: %b\n" % str(position).encode() if position is not None else b""

    async def _frames(self, items: Sequence[LiveEvent | Resync]) -> bytes:
        if self._settle is not None:
            await self._settle(items)
        return b"".join([self._frame(item) for item in items])

    def _frame(self, item: LiveEvent | Resync) -> bytes:
        if isinstance(item, Resync):
            frame: Frame | None = Frame("resync", {"reason": item.reason})
        else:
            try:
                frame = self._render(item)
            except Exception:
                # One event that can't be shown must not end the stream, or it would end for ever.
                logger.exception("cannot render %s at %s", item.type, item.position)
                frame = None
        if frame is None:
            return b""
        return b"id: %b\nevent: %b\ndata: %b\n\n" % (
            str(item.position).encode(),
            frame.event.encode(),
            msgspec.json.encode(frame.data),
        )


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
