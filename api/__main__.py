"""The API's role: `weir run api`, or `python -m api`. Composes what handlers use, and serves it.

On stop: no new connections, event streams are ended, requests in progress get some seconds, then
what is behind is let go, in the opposite order of its start.
"""

import asyncio
import contextlib
import gc
import logging
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import uvicorn
from starlette.types import ASGIApp

from api.app import build_app
from api.billing.plan_limits import plan_limits
from api.exchange import Exchange
from api.identity.forgetting import forgotten
from api.identity.key_use import KeyUses
from api.identity.store import PostgresCredentials
from api.live import LiveHub
from api.observability.latest_costs import tenant_repricings
from api.observability.policy_memory import policy_memory
from api.observability.tenant_prices import tenant_prices
from api.observing import RequestObserver
from api.platform.probes import Probes
from api.retries import Retries
from api.retries_journal import Journal
from api.retries_shared import OtherProcesses
from api.services import Services
from api.subscription import LiveEvent
from infra.clickhouse import AnalyticsUnavailable
from infra.clock import SYSTEM_CLOCK
from infra.completions import Completions
from infra.config import Settings
from infra.ids import Signer, new_id
from infra.kafka import LogUnavailable, consumer
from infra.kafka_batches import BatchingLog
from infra.log_view import LogView
from infra.objects import Objects
from infra.postgres import Reads
from infra.sandbox import forbid_core_dumps
from infra.telemetry import LIVE_LISTENERS, LOOP_DELAY
from schemas.avro_derivation import tag_of
from schemas.observability.erasure import UserKeyDropped
from streams.runtime import clickhouse, codec, command_bus

logger = logging.getLogger(__name__)

T = TypeVar("T")

KEEP_ALIVE_SECONDS = 75  # longer than the 60 s after which load balancers let go
STOP_SECONDS = 5
_TELEMETRY_LINGER_MS = 5
_READERS = 8
_BACKLOG = 2048
_LOOP_PROBE_SECONDS = 0.25
_MAY_CHANGE_CREDENTIALS = ("identity.", "approvals.agent_")
_KEY_DROPPED = tag_of(UserKeyDropped)
_LOOP_WINDOW = 40  # probes, ten seconds


async def serve(settings: Settings, stop: asyncio.Event, ready: Callable[[], None]) -> None:
    """Serve HTTP on the configured address until `stop` is set. Calls `ready` once it serves.

    Raises OSError when the address is taken.
    """
    # Requests and answers hold secrets, and this process the master secret.
    forbid_core_dumps()
    listener = _listen(settings.host, settings.port)
    try:
        async with services_on(settings, stop) as services:
            await _serve(listener, services, stop, ready)
    except _Stopped:
        logger.info("stopped before everything had started")
    finally:
        listener.close()


async def _serve(
    listener: socket.socket,
    services: Services,
    stop: asyncio.Event,
    ready: Callable[[], None],
) -> None:
    settings, journal = services.settings, _journal(services.settings)
    others = OtherProcesses(
        settings.database_url,
        settings.kafka_bootstrap_servers,
        new_id("api") if journal is None else journal.name,
    )
    retries = Retries(journal, others)
    await others.start(retries)
    observed, uses = RequestObserver(), KeyUses(services.bus, services.clock)

    def observe(exchange: Exchange, seconds: float) -> None:
        observed(exchange, seconds)
        uses(exchange, seconds)

    app = build_app(services, observer=observe, retries=retries)
    server = HttpServer(server_config(app, settings), ready)
    # What start-up made lives until the end: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="http")
    watching = asyncio.create_task(_watch_loop(services.live), name="loop delay")
    noting = asyncio.create_task(uses.run(), name="key uses")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        services.live.end_all("shutdown")
        server.should_exit = True
        await serving
    finally:
        for task in (serving, watching, noting, stopping):
            task.cancel()
        await asyncio.gather(serving, watching, noting, stopping, return_exceptions=True)
        await others.stop()


def _journal(settings: Settings) -> Journal | None:
    """Where this process notes what it has not answered: a file for each port, if there is a
    folder for that. Raises OSError when the folder cannot be written."""
    if not settings.state_dir:
        return None
    return Journal(Path(settings.state_dir) / f"unanswered-{settings.port}")


@contextlib.asynccontextmanager
async def services_on(settings: Settings, stop: asyncio.Event) -> AsyncIterator[Services]:
    """Everything that handlers use, started; stopped on the way out.

    Waits for servers that are not there yet. Raises _Stopped when `stop` is set meanwhile.
    """
    bootstrap, name = settings.kafka_bootstrap_servers, new_id("api")
    async with contextlib.AsyncExitStack() as running:
        bus = command_bus(settings)
        await _started(bus.start, stop)
        running.push_async_callback(bus.stop)
        log = BatchingLog(bootstrap, f"{name}-telemetry", linger_ms=_TELEMETRY_LINGER_MS)
        await _started(log.start, stop)
        running.push_async_callback(log.stop)
        reads = Reads(settings.database_url, size=_READERS)
        await reads.start()
        running.push_async_callback(reads.stop)
        analytics = await _started(lambda: running.enter_async_context(clickhouse(settings)), stop)
        live = LiveHub(lambda: consumer(bootstrap, f"{name}-live"), codec())
        await _started(live.start, stop)
        running.push_async_callback(live.stop)
        objects = Objects(settings.object_store_url)
        view = LogView(bootstrap, f"{name}-health")
        running.push_async_callback(view.stop)
        completions = Completions(settings.egress_allow)
        running.push_async_callback(completions.close)
        services = Services(
            settings=settings,
            signer=Signer(settings.secret_key),
            bus=bus,
            reads=reads,
            credentials=PostgresCredentials(reads),
            analytics=analytics,
            log=log,
            objects=objects,
            live=live,
            completions=completions,
            probes=Probes(
                log=view, reads=reads, analytics=analytics, objects=objects, clock=SYSTEM_CLOCK
            ),
        )
        forget_what_changes(services, live)
        forget_destroyed_keys(services, live)
        follow(services, live)
        yield services


def forget_what_changes(services: Services, live: LiveHub) -> None:
    """Let the tail of the log drop changed credentials, and end the streams opened with them."""
    cache = services.credential_cache

    def on_event(event: LiveEvent) -> None:
        if not event.type.startswith(_MAY_CHANGE_CREDENTIALS):
            return
        named = forgotten(event.type, event.envelope.stream)
        if named is not None:
            cache.drop(*named)
            live.revoke(named[1])

    live.on_event(on_event)
    live.on_gap(cache.clear)


def forget_destroyed_keys(services: Services, live: LiveHub) -> None:
    """Let the tail of the log drop the keys of persons who are erased."""

    def on_event(event: LiveEvent) -> None:
        if event.type == _KEY_DROPPED:
            services.person_keys.forget(event.tenant, event.event.key)

    live.on_event(on_event)
    live.on_gap(services.person_keys.clear)


def follow(services: Services, live: LiveHub) -> None:
    """Let the tail of the log keep what is known of tenants right: prices, policies, plans."""
    for known in (
        tenant_prices(services),
        tenant_repricings(services),
        policy_memory(services),
        plan_limits(services),
    ):
        live.on_event(known.follow)
        live.on_gap(known.clear)


async def _started(start: Callable[[], Awaitable[T]], stop: asyncio.Event) -> T:
    """Start a client, again and again while its server is not there. Raises _Stopped."""
    pause = 0.2
    while True:
        if stop.is_set():
            raise _Stopped
        try:
            return await start()
        except (LogUnavailable, AnalyticsUnavailable) as error:
            logger.warning("waiting for a server: %s", error)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), pause)
        pause = min(pause * 2, 3.0)


class _Stopped(Exception):
    """`stop` was set before everything had started."""


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise OSError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    listener.set_inheritable(True)
    return listener


def server_config(app: ASGIApp, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="off",
        interface="asgi3",
        loop="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies or None,
        backlog=_BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=STOP_SECONDS,
    )


class HttpServer(uvicorn.Server):
    """uvicorn as a part of a process: signals are not its business, and it says when it serves."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to whoever runs the roles."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept, then say so."""
        await super().startup(sockets)
        self._ready()


async def _watch_loop(live: LiveHub) -> None:
    """Measure how late the event loop is: what blocks it delays every request."""
    clock = asyncio.get_running_loop().time
    recent: list[float] = []
    while True:
        due = clock() + _LOOP_PROBE_SECONDS
        await asyncio.sleep(_LOOP_PROBE_SECONDS)
        recent = [*recent[-_LOOP_WINDOW:], max(0.0, clock() - due)]
        LOOP_DELAY.set(max(recent))
        LIVE_LISTENERS.set(live.listeners)


if __name__ == "__main__":
    from infra.cli import main

    sys.argv[1:] = ["run", "api"]
    main()
