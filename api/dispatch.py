"""Serves the declared routes: one ASGI application, no middleware, nothing reflected per request.

For each request, in this order: match the path, authenticate, count it against the rate limit,
check kind, roles and scopes, decode the query and the body, call the handler, encode its answer.
Whatever goes wrong is told in the dialect of the route, or of the path where there is no route.
"""

import logging
import os
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from api.auth import Authenticator, unauthorized
from api.billing.plan_limits import PlanLimits
from api.bodies import Disconnected, limited, read_body
from api.cors import Cors
from api.credentials import ANONYMOUS, Principal
from api.decoding import BodyDecoder, QueryDecoder, body_decoder, parse_query, query_decoder
from api.exchange import Exchange
from api.failures import problem_of
from api.idempotency import HEADER as IDEMPOTENCY_KEY
from api.idempotency import command_of, fingerprint
from api.keyed_reports import KeyedReports
from api.limits import RateLimiter
from api.matching import Match, RouteTable
from api.problems import Problem, dialect_of
from api.retries import Retries
from api.routing import Call, Route
from api.services import Services
from schemas.envelope import Position

logger = logging.getLogger(__name__)

_REQUEST_ID = re.compile(rb"^[A-Za-z0-9._:/+=@-]{1,128}$")
_POSITION_SECONDS = 5.0  # how long a query may wait for a write to show
CLIENT_GONE = 499


class Observer(Protocol):
    """Is told of every request when it is over (metrics, access log)."""

    def __call__(self, exchange: Exchange, seconds: float) -> None: ...


class Endpoint:
    """A route with what is prepared for it once."""

    __slots__ = ("decode_body", "decode_query", "kinds", "route", "unsafe")

    def __init__(self, route: Route) -> None:
        dialect = route.dialect
        self.route = route
        self.kinds = route.who.kinds
        self.unsafe = route.unsafe
        self.decode_query: QueryDecoder | None = None
        if route.query is not None:
            self.decode_query = query_decoder(route.query, status=dialect.invalid)
        self.decode_body: BodyDecoder | None = None
        if route.body is not None and not route.raw_body:
            self.decode_body = body_decoder(
                route.body,
                malformed_status=dialect.malformed,
                invalid_status=dialect.invalid,
                lenient=route.lenient,
            )


class Dispatcher:
    """The ASGI application over a list of routes."""

    def __init__(
        self,
        routes: Sequence[Route],
        *,
        services: Services,
        authenticator: Authenticator,
        limiter: RateLimiter,
        plans: PlanLimits | None = None,
        cors: Cors,
        retries: Retries,
        observer: Observer | None = None,
    ) -> None:
        self._table = RouteTable(routes)
        self._endpoints = {route: Endpoint(route) for route in routes}
        self._services, self._authenticator = services, authenticator
        self._limiter, self._cors, self._observer = limiter, cors, observer
        self._plans = plans
        self._retries, self._keyed = retries, KeyedReports(services.clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._serve(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        headers: dict[bytes, bytes] = dict(scope["headers"])
        given = headers.get(b"x-request-id")
        if given is not None and _REQUEST_ID.match(given):
            request_id = given.decode()
        else:
            request_id = "req_" + os.urandom(12).hex()
        exchange = Exchange(scope, headers, receive, send, request_id)
        try:
            await self._handle(exchange)
        except (Disconnected, ClientDisconnect):
            exchange.status = exchange.status or CLIENT_GONE
        except Exception as error:
            if exchange.started:
                logger.exception("response broken off", extra={"request_id": request_id})
                raise
            await self._refuse(exchange, error, {})
        finally:
            if exchange.attempt is not None:
                self._retries.end(exchange.attempt)
            if self._observer is not None:
                self._observer(exchange, time.perf_counter() - began)

    async def _handle(self, exchange: Exchange) -> None:
        match = self._table.match(exchange.method, exchange.path)
        headers = exchange.headers
        origin = headers.get(b"origin")
        if origin is not None:
            exchange.cors = self._cors.headers(origin)
        route = match.route
        if route is None:
            if exchange.method == "OPTIONS" and match.allowed:
                exchange.permit = self._limiter.peek(exchange.address)
                preflight = self._cors.preflight(headers, match.allowed)
                await exchange.respond(204, extra=preflight)
                return
            exchange.throttle(self._limiter.take(exchange.address))
            raise _unmatched(match)
        exchange.route, exchange.dialect = route, route.dialect
        endpoint = self._endpoints[route]
        principal = await self._identify(exchange, endpoint)
        if exchange.method == "HEAD" and route.stream:
            await exchange.respond(route.status, media_type=route.media_type.encode())
            return
        call = await self._decode(exchange, endpoint, principal, match.parameters)
        if route.analytics:
            await self._await_position(call, headers)
        try:
            result = await route.handler(call)
        except Exception as error:
            if exchange.started or isinstance(error, Disconnected | ClientDisconnect):
                raise
            await self._refuse(exchange, error, call.headers)
            if route.repeats and call.fingerprint and exchange.status < 500:
                self._keyed.forget(call.command_id)
            return
        await exchange.result(result, route, call.headers)

    async def _identify(self, exchange: Exchange, endpoint: Endpoint) -> Principal:
        """Who calls, if they may: credential, rate limit, kind, roles and scopes. Raises Problem.

        Without a credential, or with a wrong one, the address is what is counted.
        """
        headers, address = exchange.headers, exchange.address
        if not endpoint.kinds:
            exchange.throttle(self._limiter.take(address))
            return ANONYMOUS
        try:
            principal = await self._authenticator.authenticate(headers, address)
            if principal is None:
                raise unauthorized()
        except Exception:
            exchange.throttle(self._limiter.take(address))
            raise
        exchange.principal = principal
        exchange.throttle(self._limiter.take(principal.actor.id))
        route = endpoint.route
        if route.by_plan and self._plans is not None:
            exchange.throttle(await self._plans.take(principal.tenant))
        if principal.actor.kind not in endpoint.kinds:
            wanted = " or ".join(sorted(endpoint.kinds))
            raise Problem(403, "forbidden", f"This is for {wanted}, not {principal.actor.kind}")
        if not principal.claimed and not route.unclaimed:
            message = "An agent that nobody has claimed yet reads about itself and no more"
            raise Problem(403, "forbidden", message)
        is_agent = principal.actor.kind == "agent"
        if route.roles and not is_agent and not route.roles & principal.roles:
            needed = " or ".join(sorted(route.roles))
            raise Problem(403, "forbidden", f"The role {needed} is needed")
        if route.scopes and not route.scopes <= principal.scopes:
            needed = ", ".join(sorted(route.scopes - principal.scopes))
            raise Problem(403, "forbidden", f"The credential lacks the scope {needed}")
        if principal.by_cookie and endpoint.unsafe:
            self._cors.check_same_site(headers)
        return principal

    async def _decode(
        self,
        exchange: Exchange,
        endpoint: Endpoint,
        principal: Principal,
        parameters: dict[str, str],
    ) -> Call[Any, Any]:
        """Everything that the handler is given. Raises Problem."""
        route, scope, headers = endpoint.route, exchange.scope, exchange.headers
        query: Any = None
        if endpoint.decode_query is not None:
            query = endpoint.decode_query(scope["query_string"])
        command_id = digest = mark = ""
        key = headers.get(IDEMPOTENCY_KEY) if endpoint.unsafe else None
        if key is not None:
            command_id = command_of(key, principal, route.dialect)
        body: Any = None
        content = b""
        if route.body is None:
            exchange.receive = limited(exchange.receive, route.max_body)
        else:
            content = await read_body(
                exchange.receive, headers, route.max_body, route.dialect.malformed
            )
            body = content if endpoint.decode_body is None else endpoint.decode_body(content)
        if key is not None:
            digest = fingerprint(route.method, exchange.path, scope["query_string"], content)
            if route.repeats and not self._keyed.agrees(command_id, digest):
                raise Problem(
                    route.dialect.reused,
                    "idempotency_key_reused",
                    "this idempotency key was used for another request",
                )
        elif route.repeats:
            sender = f"{principal.tenant} {principal.actor.id} {route.method}".encode()
            path, query_string = exchange.path.rstrip(b"/"), scope["query_string"]
            same = self._services.signer.request(sender, path, query_string, content)
            exchange.attempt = await self._retries.begin(same, exchange.receive)
            command_id, mark = exchange.attempt.command_id, exchange.attempt.mark
        return Call(
            services=self._services,
            principal=principal,
            dialect=route.dialect,
            scope=scope,
            receive=exchange.receive,
            path=parameters,
            body=body,
            query=query,
            request_id=exchange.request_id,
            command_id=command_id,
            fingerprint=digest,
            content=content,
            attempt=mark,
        )

    async def _await_position(self, call: Call[Any, Any], headers: Mapping[bytes, bytes]) -> None:
        """Wait until the analytics views hold the position that the client names, if any."""
        given = headers.get(b"x-min-log-position", b"").decode("latin-1")
        if not given and b"min_position" in call.scope["query_string"]:
            pairs = parse_query(call.scope["query_string"], call.dialect.invalid)
            given = dict(pairs).get("min_position", "")
        if not given:
            return
        try:
            position = Position.parse(given)
        except ValueError:
            raise Problem(
                call.dialect.invalid,
                "validation_error",
                "Expected topic:partition:offset, as X-Log-Position has it",
                field="min_position",
                where="query",
            ) from None
        if not await self._services.analytics.reached(position, _POSITION_SECONDS):
            raise Problem(
                409,
                "position_not_reached",
                f"The views have not reached {position} yet; try again in 1 s",
                headers={"retry-after": "1"},
            )

    async def _refuse(
        self, exchange: Exchange, error: Exception, headers: Mapping[str, str]
    ) -> None:
        """Answer with what went wrong, in the dialect of the route or of the path."""
        route = exchange.route
        problem = problem_of(error, exchange.request_id, route.path if route else "")
        dialect = exchange.dialect or dialect_of(exchange.path.decode("latin-1"))
        await exchange.problem(problem, dialect, headers)


def _unmatched(match: Match) -> Problem:
    if match.allowed:
        allow = ", ".join(match.allowed)
        return Problem(
            405, "method_not_allowed", f"Allowed here: {allow}", headers={"allow": allow}
        )
    return Problem(404, "not_found", "There is nothing at this path")
