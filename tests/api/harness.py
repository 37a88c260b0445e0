"""The app without a network: `async with Harness(ROUTES) as app: await app.client.get(…)`."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import httpx

from api.app import build_app
from api.credentials import (
    AGENT_KEY_PREFIX,
    API_KEY_PREFIX,
    AgentKey,
    ApiKey,
    Session,
    User,
    lookup_prefix,
)
from api.dispatch import CLIENT_GONE, Observer
from api.exchange import Exchange
from api.openapi import statuses_of
from api.routing import Route
from api.services import Services
from commands import DECIDERS
from commands.decider import Decider
from infra.clock import ManualClock
from infra.config import Settings
from infra.ids import Signer, new_id, secret_hash
from tests.api.memory import (
    Apply,
    MemoryAnalytics,
    MemoryBus,
    MemoryCredentials,
    MemoryLog,
    MemoryReads,
)

SECRET = bytes(range(32))
TENANT = "ten_test"
OTHER_TENANT = "ten_other"


def memory_settings(**changes: Any) -> Settings:
    """Settings that need no server, and no rate limit unless `changes` give one."""
    values: dict[str, Any] = {
        "kafka_bootstrap_servers": "127.0.0.1:1",
        "database_url": "postgresql://127.0.0.1:1/none",
        "clickhouse_url": "chdb:///nowhere",
        "object_store_url": "memory:///",
        "secret_key": SECRET,
        "rate_limit_per_minute": 0,
    }
    return Settings(**{**values, **changes})


class Harness:
    """The app over memory (`routes`: all of them unless given; the platform's are always there).

    `key`, `agent` and `human` make a credential and return the headers that carry it. `bus`, `log`,
    `reads`, `analytics` and `credentials` are the doubles of `tests.api.memory`. changes: settings.
    An answer with a status that its route doesn't document fails the test at the end.
    """

    def __init__(
        self,
        routes: Sequence[Route] | None = None,
        *,
        deciders: Iterable[Decider[Any, Any, Any]] = DECIDERS,
        clock: ManualClock | None = None,
        apply: Apply | None = None,
        changes: Mapping[str, Any] | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.clock = clock or ManualClock()
        self.signer = Signer(SECRET)
        self.bus = MemoryBus(deciders, self.clock, apply)
        self.log, self.reads = MemoryLog(), MemoryReads()
        self.analytics, self.credentials = MemoryAnalytics(), MemoryCredentials()
        self.services = Services(
            settings=memory_settings(**(changes or {})),
            signer=self.signer,
            bus=self.bus,
            reads=self.reads,
            credentials=self.credentials,
            analytics=self.analytics,
            clock=self.clock,
            log=self.log,
        )
        self.app = build_app(self.services, routes, self._observe)
        self._observer = observer
        self._undocumented: set[str] = set()
        self.tokens = self.services.tokens
        self._made = 0

    async def __aenter__(self) -> Self:
        transport = httpx.ASGITransport(app=self.app, client=("192.0.2.1", 4711))
        self.client = httpx.AsyncClient(transport=transport, base_url="http://weir.test")
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.client.aclose()
        assert not self._undocumented, "declare these in the routes' refusals"

    def _observe(self, exchange: Exchange, seconds: float) -> None:
        route, status = exchange.route, exchange.status
        if route is not None and status not in (*statuses_of(route), CLIENT_GONE):
            self._undocumented.add(f"{route.method} {route.path} answered {status}")
        if self._observer is not None:
            self._observer(exchange, seconds)

    def key(
        self,
        tenant: str = TENANT,
        *,
        roles: Iterable[str] = ("admin",),
        scopes: Iterable[str] = (),
        **changes: Any,
    ) -> dict[str, str]:
        """The headers of a new API key."""
        id, secret = self._secret("key", API_KEY_PREFIX)
        self.credentials.api_keys[lookup_prefix(secret)] = ApiKey(
            id,
            tenant,
            secret_hash(secret),
            roles=frozenset(roles),
            scopes=frozenset(scopes),
            **changes,
        )
        return {"X-Wax-Key": secret}

    def agent(self, tenant: str = TENANT, **changes: Any) -> dict[str, str]:
        """The headers of a new agent key."""
        id, secret = self._secret("agt", AGENT_KEY_PREFIX)
        self.credentials.agents[lookup_prefix(secret)] = AgentKey(
            id, tenant, secret_hash(secret), **changes
        )
        return {"Authorization": f"Bearer {secret}"}

    def human(
        self,
        tenant: str = TENANT,
        *,
        roles: Iterable[str] = ("admin",),
        scopes: Iterable[str] = (),
        cookie: bool = False,
    ) -> dict[str, str]:
        """The headers of a new person: a token's, or the session cookie's."""
        self._made += 1
        user = User(
            f"usr_{self._made}",
            tenant,
            email=f"user{self._made}@weir.test",
            name=f"User {self._made}",
            roles=frozenset(roles),
            scopes=frozenset(scopes),
        )
        secret = f"cookie-{self._made}"
        session = Session(f"ses_{self._made}", user.id, tenant, secret_hash(secret))
        self.credentials.users[user.id] = user
        self.credentials.sessions[session.id] = session
        if cookie:
            return {"Cookie": f"sessionid={secret}", "X-Requested-With": "weir"}
        token = self.tokens.access(user_id=user.id, session_id=session.id, tenant=tenant)
        return {"Authorization": f"Bearer {token}"}

    def _secret(self, id_prefix: str, kind: str) -> tuple[str, str]:
        self._made += 1
        return f"{id_prefix}_{self._made}", self.signer.secret(kind, new_id("cmd"))
