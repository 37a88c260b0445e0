"""The roles of this package: `weir run decider|scheduler|analytics|streams`.

Each is `serve(settings, stop, ready)`: it calls `ready()` once it serves, runs until `stop` is set,
and raises when it cannot go on.
"""

import asyncio
import contextlib
import socket
import tempfile
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Protocol, TypedDict

from infra.clock import SYSTEM_CLOCK
from infra.config import Settings
from infra.ids import Signer, new_id
from infra.kafka import Log
from infra.leases import Leases
from infra.objects import Objects
from infra.postgres import Reads
from infra.stripe import Stripe
from projections import CLICKHOUSE_VIEWS
from schemas.codec import Codec
from streams.analytics import AnalyticsLoop
from streams.approvals.adoptions import Adoptions
from streams.approvals.watching import Watching
from streams.billing.subscription_changes import SubscriptionChanges
from streams.billing.usage_bills import UsageBills
from streams.bus import KafkaCommandBus
from streams.decider_role import DeciderRole
from streams.fhe.erasing import Erasing
from streams.observability.erasures import Eraser
from streams.platform.announcing import Announcing
from streams.platform.audit_exports import AuditExporter
from streams.platform.webhooks import Webhooks
from streams.runtime import clickhouse, codec, command_bus, person_keys, registry
from streams.scheduler import Scheduler
from streams.tenancy.trials import Trials

Ready = Callable[[], None]


class _OnLog(TypedDict):
    """What every process manager is made with."""

    bootstrap: str
    codec: Codec
    bus: KafkaCommandBus


class _Follower(Protocol):
    def run(self) -> Coroutine[Any, Any, None]: ...


async def decider(settings: Settings, stop: asyncio.Event, ready: Ready) -> None:
    """Decide the partitions that this process leases."""
    role = DeciderRole(
        bootstrap=settings.kafka_bootstrap_servers,
        database=settings.database_url,
        partitions=settings.partitions,
        registry=registry(),
        codec=codec(),
        clock=SYSTEM_CLOCK,
        owner=owner(),
    )
    await until_stopped(role.run(), stop, _announce(role.serving(), ready))


async def scheduler(settings: Settings, stop: asyncio.Event, ready: Ready) -> None:
    """Fire due timers."""
    bus = command_bus(settings)
    await bus.start()
    role = Scheduler(
        database=settings.database_url,
        bus=bus,
        codec=codec(),
        clock=SYSTEM_CLOCK,
        owner=owner(),
    )
    ready()
    try:
        await until_stopped(role.run(), stop)
    finally:
        await bus.stop()


async def analytics(settings: Settings, stop: asyncio.Event, ready: Ready) -> None:
    """Fill ClickHouse, and erase persons from it. The engine inside the process is this process's
    alone, and so is every partition then; processes on a server share the partitions by leases."""
    async with clickhouse(settings) as engine:
        log = Log(settings.kafka_bootstrap_servers, "analytics")
        # Nothing here waits for answers: the bus need not be started.
        bus, reads = command_bus(settings), Reads(settings.database_url)
        await reads.start()
        keys = person_keys(settings)
        leases = None
        if not engine.embedded:
            leases = Leases(settings.database_url, "analytics", settings.partitions, owner())
            await leases.start()
        loop = AnalyticsLoop(
            bootstrap=settings.kafka_bootstrap_servers,
            clickhouse=engine,
            views=CLICKHOUSE_VIEWS,
            codec=codec(),
            dead_letters=log,
            person_keys=keys,
            leases=leases,
        )
        eraser = Eraser(
            bootstrap=settings.kafka_bootstrap_servers,
            codec=codec(),
            bus=bus,
            reads=reads,
            clickhouse=engine,
            log=log,
            person_keys=keys,
            views=CLICKHOUSE_VIEWS,
        )
        try:
            work = _together(loop.run(), eraser.run())
            await until_stopped(work, stop, _announce(loop.serving(), ready))
        finally:
            if leases is not None:
                await leases.stop()
            await bus.stop()
            await reads.stop()
            await log.stop()


async def processors(settings: Settings, stop: asyncio.Event, ready: Ready) -> None:
    """Run the Faust processors, the process managers and the sender of webhooks.

    Raises RuntimeError when Faust gives up.
    """
    from streams import app as faust_app  # only here: Faust is slow to load, and patched

    bus, reads = command_bus(settings), Reads(settings.database_url)
    await bus.start()
    await reads.start()
    objects, stripe = Objects(settings.object_store_url), Stripe(settings)
    on_log: _OnLog = {
        "bootstrap": settings.kafka_bootstrap_servers,
        "codec": codec(),
        "bus": bus,
    }
    followers: tuple[_Follower, ...] = (
        AuditExporter(**on_log, reads=reads, objects=objects),
        Adoptions(**on_log),
        Watching(**on_log, reads=reads),
        Announcing(**on_log, reads=reads),
        Erasing(**on_log, reads=reads, objects=objects, clock=SYSTEM_CLOCK),
        SubscriptionChanges(**on_log, stripe=stripe),
        UsageBills(**on_log, stripe=stripe),
        Trials(**on_log, reads=reads, objects=objects),
    )
    webhooks = Webhooks(
        bootstrap=settings.kafka_bootstrap_servers,
        database=settings.database_url,
        partitions=settings.partitions,
        codec=codec(),
        clock=SYSTEM_CLOCK,
        bus=bus,
        signer=Signer(settings.secret_key),
        allowed=settings.egress_allow,
        owner=owner(),
    )
    with tempfile.TemporaryDirectory(prefix="weir-streams-") as folder:
        role = faust_app.Processors(settings, codec(), bus, Path(folder))
        works = [role.run(ready), webhooks.run(), *(follower.run() for follower in followers)]
        try:
            await until_stopped(_together(*works), stop)
        finally:
            await bus.stop()
            await reads.stop()


async def _together(*works: Coroutine[Any, Any, None]) -> None:
    """Run works side by side; the first to fail ends the others, and its error is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(work)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None


def owner() -> str:
    """A name for this process in leases: unique, and telling to a person."""
    return new_id(socket.gethostname().replace("_", "-"))


async def until_stopped(
    work: Awaitable[None], stop: asyncio.Event, *beside: Awaitable[None]
) -> None:
    """Run `work` (and what goes beside it) until `stop` is set; an error of `work` is raised."""
    main = asyncio.ensure_future(work)
    others = [asyncio.ensure_future(item) for item in (stop.wait(), *beside)]
    try:
        await asyncio.wait({main, others[0]}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (main, *others):
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await main
        await asyncio.gather(*others, return_exceptions=True)


async def _announce(serving: Awaitable[None], ready: Ready) -> None:
    await serving
    ready()
