"""One request on its way through: what its response carries in any case, and the sending of it."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from api.bodies import media_type_of
from api.credentials import Principal
from api.limits import Permit
from api.problems import PROTOBUF, Dialect, Problem
from api.retries import Attempt
from api.routing import Answer, Route

RawHeaders = list[tuple[bytes, bytes]]

encode = msgspec.json.Encoder(decimal_format="number").encode
JSON = b"application/json"


class Exchange:
    """A request, and what becomes known of it while it is handled. path: as it came, encoded."""

    __slots__ = (
        "attempt",
        "cors",
        "dialect",
        "headers",
        "method",
        "path",
        "permit",
        "principal",
        "receive",
        "request_id",
        "route",
        "scope",
        "send",
        "started",
        "status",
    )

    def __init__(
        self,
        scope: Scope,
        headers: Mapping[bytes, bytes],
        receive: Receive,
        send: Send,
        request_id: str,
    ) -> None:
        self.scope, self.headers, self.receive, self.send = scope, headers, receive, send
        self.request_id = request_id
        self.method: str = scope["method"]
        self.path: bytes = scope.get("raw_path") or scope["path"].encode()
        self.cors: RawHeaders = []
        self.dialect: Dialect | None = None
        self.permit: Permit | None = None
        self.principal: Principal | None = None
        self.route: Route | None = None
        self.attempt: Attempt | None = None
        self.started = False
        self.status = 0

    @property
    def address(self) -> str:
        """The client's address."""
        client = self.scope.get("client")
        return client[0] if client else ""

    def throttle(self, permit: Permit) -> None:
        """Note what a rate limiter says: of several, headers tell of the one with the least left.

        Raises Problem (429) when it says no.
        """
        if self.permit is None or permit.retry_after or permit.remaining < self.permit.remaining:
            self.permit = permit
        if permit.retry_after:
            raise Problem(
                429,
                "rate_limited",
                f"Too many requests; try again in {permit.retry_after} s",
                headers={"retry-after": str(permit.retry_after)},
            )

    def _fixed_headers(self) -> RawHeaders:
        found: RawHeaders = [(b"x-request-id", self.request_id.encode())]
        if self.cors:
            found += self.cors
        permit = self.permit
        if permit is not None:
            found.append((b"ratelimit-limit", b"%d" % permit.limit))
            found.append((b"ratelimit-remaining", b"%d" % permit.remaining))
            found.append((b"ratelimit-reset", b"%d" % permit.reset))
        return found

    async def respond(
        self,
        status: int,
        body: bytes = b"",
        media_type: bytes = JSON,
        extra: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        """Send a whole response. HEAD gets the headers only."""
        headers = self._fixed_headers()
        headers.extend(extra)
        if status != 204:
            headers.append((b"content-length", b"%d" % len(body)))
            if body:
                headers.append((b"content-type", media_type))
        self.started, self.status = True, status
        if self.attempt is not None:
            await self.attempt.answer(status)
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        if self.method == "HEAD" or status == 204:
            body = b""
        await self.send({"type": "http.response.body", "body": body})

    async def problem(
        self, problem: Problem, dialect: Dialect, extra: Mapping[str, str] | None = None
    ) -> None:
        """Send a problem in a dialect, with the headers that the handler had set by then."""
        rendered, headers = dialect.render(problem, self.request_id), problem.headers
        if dialect.protobuf is not None and media_type_of(self.headers) == PROTOBUF:
            body, media_type = dialect.protobuf(rendered), PROTOBUF.encode()
        else:
            body, media_type = encode(rendered), JSON
        await self.respond(problem.status, body, media_type, [*raw(extra or {}), *raw(headers)])

    async def result(self, result: Any, route: Route, extra: Mapping[str, str]) -> None:
        """Send what a handler returned."""
        if isinstance(result, Response):
            await self._through(result, extra)
            return
        status, media_type = route.status, JSON
        if isinstance(result, Answer):
            status = result.status or status
            extra = {**extra, **result.headers}
            media_type = result.media_type.encode()
            result = result.data
            if result is None:
                await self.respond(status, b"", media_type, raw(extra))
                return
            if isinstance(result, str):
                result = result.encode()
        elif status == 204:
            await self.respond(status, b"", media_type, raw(extra))
            return
        body = result if isinstance(result, bytes) else encode(result)
        await self.respond(status, body, media_type, raw(extra) if extra else ())

    async def _through(self, response: Response, extra: Mapping[str, str]) -> None:
        """Let a Starlette response send itself, with our headers added."""
        added = [*self._fixed_headers(), *raw(extra)]

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.started, self.status = True, message["status"]
                message = {**message, "headers": [*message["headers"], *added]}
            await self.send(message)

        await response(self.scope, self.receive, send)


def raw(headers: Mapping[str, str]) -> RawHeaders:
    """Headers as ASGI wants them."""
    return [
        (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()
    ]
