"""Declared routes: one row says all there is to say about an endpoint.

From a `Route` come decoding, authentication, idempotency, errors, rate limits and OpenAPI; handlers
repeat none of it. `api/dispatch.py` serves the rows.
"""

import enum
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Struct
from starlette.requests import Request
from starlette.types import Receive, Scope

from api.credentials import Principal
from api.problems import Dialect, Problem, from_refusal
from api.services import Services
from infra.ids import command_id as derived_command_id
from infra.ids import new_id
from schemas.envelope import Actor, Position
from streams.bus import CommandRequest, Reply

B = TypeVar("B")
Q = TypeVar("Q")
T = TypeVar("T")

DEFAULT_MAX_BODY = 1024 * 1024


class Who(enum.Flag):
    """Who may call a route. Combine with `|`."""

    PUBLIC = 0
    API_KEY = enum.auto()
    HUMAN = enum.auto()
    AGENT = enum.auto()
    ANY = HUMAN | AGENT
    SESSION_OR_KEY = HUMAN | API_KEY
    EVERYONE = HUMAN | AGENT | API_KEY

    @property
    def kinds(self) -> frozenset[str]:
        """The actor kinds that are let in; empty means no credential is looked at."""
        found = {Who.API_KEY: "api_key", Who.HUMAN: "user", Who.AGENT: "agent"}
        return frozenset(kind for who, kind in found.items() if who in self and who.value)


class Answer:
    """A response with more to it than data: `Answer(data, status=202, headers={…})`.

    `data` None gives an empty body; bytes and str go out as they are under `media_type`.
    """

    __slots__ = ("data", "headers", "media_type", "status")

    def __init__(
        self,
        data: Any = None,
        *,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
        media_type: str = "application/json",
    ) -> None:
        self.data, self.status, self.media_type = data, status, media_type
        self.headers = dict(headers or {})


class Call(Generic[B, Q]):
    """One request, decoded and authenticated.

    body and query are the route's structs (None when it declares none). path holds the decoded path
    parameters. content: the bytes that `body` was decoded from. attempt: the
    `Envelope.attempt` of what it reports.
    """

    __slots__ = (
        "_command_id",
        "attempt",
        "body",
        "content",
        "dialect",
        "fingerprint",
        "headers",
        "path",
        "principal",
        "query",
        "receive",
        "request_id",
        "scope",
        "services",
    )

    def __init__(
        self,
        *,
        services: Services,
        principal: Principal,
        dialect: Dialect,
        scope: Scope,
        receive: Receive,
        path: dict[str, str],
        body: B,
        query: Q,
        request_id: str,
        command_id: str = "",
        fingerprint: str = "",
        content: bytes = b"",
        attempt: str = "",
    ) -> None:
        self.content, self.attempt = content, attempt
        self.services, self.principal, self.dialect = services, principal, dialect
        self.scope, self.receive = scope, receive
        self.path, self.body, self.query = path, body, query
        self.request_id, self.fingerprint = request_id, fingerprint
        self._command_id = command_id
        self.headers: dict[str, str] = {}  # response headers

    @property
    def command_id(self) -> str:
        """The id of the command that this request is: its Idempotency-Key's, or a fresh one."""
        if not self._command_id:
            self._command_id = new_id("cmd")
        return self._command_id

    @property
    def tenant(self) -> str:
        """The caller's tenant."""
        return self.principal.tenant

    @property
    def actor(self) -> Actor:
        """The caller, as events name it."""
        return self.principal.actor

    @property
    def raw(self) -> Request:
        """Starlette's view of the request, for what a row can't declare."""
        return Request(self.scope, self.receive)

    @property
    def address(self) -> str:
        """The client's address."""
        client = self.scope.get("client")
        return client[0] if client else ""

    def position(self, position: Position | str) -> None:
        """Tell the client where its write lies (`X-Log-Position`)."""
        self.headers["x-log-position"] = str(position)

    async def send(
        self,
        stream_id: str,
        command: Struct,
        *,
        tenant: str | None = None,
        actor: Actor | None = None,
        step: str = "",
        timeout: float = 5.0,
    ) -> Reply:
        """Send a command to its decider and wait for the outcome.

        tenant and actor are the caller's unless given. A handler that sends a second command gives
        it a `step` of its own, so that each has its command id. Returns an accepted reply, with
        `X-Log-Position` set. Raises Problem when it was refused or failed; OutcomeUnknown and
        LogUnavailable pass through and become 503.
        """
        owner = self.tenant if tenant is None else tenant
        command_id = self.command_id
        if step:
            command_id = derived_command_id(owner, self.command_id, scope=step)
        request = CommandRequest(
            tenant=owner,
            stream_id=stream_id,
            command=command,
            actor=self.actor if actor is None else actor,
            command_id=command_id,
            fingerprint=self.fingerprint,
            correlation_id=self.request_id,
        )
        return await self.deliver(request, timeout)

    async def deliver(self, request: CommandRequest, timeout: float = 5.0) -> Reply:
        """Send a request as it is; returns and raises as `send` does."""
        reply = await self.services.bus.send(request, timeout)
        if reply.position:
            self.headers["x-log-position"] = reply.position
        if reply.replayed:
            self.headers["idempotency-replayed"] = "true"
        if reply.status == "refused":
            raise from_refusal(
                self.dialect,
                kind=reply.kind,
                code=reply.code,
                message=reply.message,
                details=reply.details,
            )
        if reply.status == "failed":
            raise Problem(
                500,
                "internal_error",
                "The command could not be carried out; the incident is recorded",
                details={"incident_id": reply.incident},
            )
        return reply


def answer_of(reply: Reply, cls: type[T]) -> T:
    """The decider's answer (`Decider.answer`) as a struct. Raises msgspec.ValidationError."""
    return msgspec.json.decode(reply.answer, type=cls)


Handler = Callable[[Any], Awaitable[Any]]


class Route:
    """One endpoint. Rows that share words are made by a `functools.partial` of it.

    path: as its document writes it, parameters in braces; served with and without a trailing slash.
    rest: the path ends with a parameter that takes all that is left of a request's, slashes too.
    body, query: struct types (a body type may be any msgspec type). response: what a 2xx holds, for
    OpenAPI. refusals: statuses of the refusals that can occur, besides those that follow from the
    row. roles, scopes: one of the roles, and all of the scopes, are needed (403 without); an agent
    has no roles, and none is asked of it. unclaimed: an agent that nobody has claimed may call it.
    max_body: bytes, after decompression. stream: the response is a stream of events. lenient: NaN
    and Infinity in the body are read as null, `150.0` as an integer. raw_body: `call.body`
    is the bytes as they came. streamed: the body, at most `max_body`, is not read for the handler:
    it takes it from `call.raw.stream()` as it arrives.
    repeats: a request without an Idempotency-Key that repeats one whose answer was lost is that one
    (`api.retries`). analytics: the answer comes from ClickHouse, so `min_position` may ask
    to wait for a write. media_type: of the response; accepts: of the request. protobuf: either may
    be protobuf too, read and written by the handler. quiet: successes are logged at debug only
    (telemetry, health). by_plan: the tenant's plan limits such requests a minute, too.
    """

    def __init__(
        self,
        method: str,
        path: str,
        handler: Handler,
        *,
        dialect: Dialect,
        who: Who,
        tags: tuple[str, ...],
        summary: str,
        body: Any = None,
        query: type[Struct] | None = None,
        response: Any = None,
        status: int = 200,
        roles: Collection[str] = (),
        scopes: Collection[str] = (),
        refusals: tuple[int, ...] = (),
        max_body: int = DEFAULT_MAX_BODY,
        stream: bool = False,
        lenient: bool = False,
        raw_body: bool = False,
        streamed: bool = False,
        analytics: bool = False,
        quiet: bool = False,
        repeats: bool = False,
        rest: bool = False,
        media_type: str = "",
        accepts: str = "application/json",
        protobuf: bool = False,
        unclaimed: bool = False,
        by_plan: bool = False,
        description: str = "",
    ) -> None:
        self.method, self.path, self.handler = method, path, handler
        self.dialect, self.who, self.tags, self.summary = dialect, who, tags, summary
        self.body, self.query, self.response, self.status = body, query, response, status
        self.roles, self.scopes = frozenset(roles), frozenset(scopes)
        self.refusals, self.max_body, self.stream = refusals, max_body, stream
        self.lenient, self.raw_body, self.streamed = lenient, raw_body, streamed
        self.analytics, self.quiet, self.rest = analytics, quiet, rest
        self.repeats = repeats
        self.accepts, self.protobuf, self.description = accepts, protobuf, description
        self.unclaimed, self.by_plan = unclaimed, by_plan
        self.media_type = media_type or ("text/event-stream" if stream else "application/json")

    @property
    def unsafe(self) -> bool:
        """Whether it writes."""
        return self.method not in ("GET", "HEAD")

    def __repr__(self) -> str:
        return f"<{self.method} {self.path}>"
