"""The role of this package: `weir run fhe-worker`, or `python -m fhe_workers`."""

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable

from fhe_workers.bootstrapping import Bootstrapper
from fhe_workers.child_process import PoolLimits
from fhe_workers.execution import Execution
from fhe_workers.pool import Pool
from fhe_workers.worker import Worker, jobs_consumer
from infra.build.bootstrap import cached_helper
from infra.clock import SYSTEM_CLOCK
from infra.config import Settings, load_settings
from infra.kafka import Log, LogUnavailable
from infra.objects import Objects
from infra.roles import play
from streams.bus import KafkaCommandBus
from streams.runtime import codec, command_bus
from streams.watchdog import Watchdog

logger = logging.getLogger(__name__)

_RETRY_SECONDS = 1.0


async def serve(settings: Settings, stop: asyncio.Event, ready: Callable[[], None]) -> None:
    """Compute jobs until `stop` is set; `ready()` is called once the first may come."""
    bootstrap, children = settings.kafka_bootstrap_servers, _cores()
    async with contextlib.AsyncExitStack() as running:
        dead_letters = Log(bootstrap, "fhe-worker-dead-letters")
        running.push_async_callback(dead_letters.stop)
        bus = command_bus(settings)
        if not await _started(bus, stop):
            return
        running.push_async_callback(bus.stop)
        pool = await running.enter_async_context(Pool(PoolLimits(children=children)))
        bootstrapper = await running.enter_async_context(Bootstrapper(cached_helper()))
        worker = Worker(
            connect=lambda: jobs_consumer(bootstrap),
            execution=Execution(
                pool=pool,
                objects=Objects(settings.object_store_url, in_place=True),
                reports=bus,
                clock=SYSTEM_CLOCK,
                bootstrapper=bootstrapper,
            ),
            codec=codec(),
            dead_letters=dead_letters,
            capacity=children,
        )
        watching = asyncio.create_task(Watchdog(worker.pending).run(), name="watchdog")
        running.callback(watching.cancel)
        await worker.run(stop, ready)


async def _started(bus: KafkaCommandBus, stop: asyncio.Event) -> bool:
    """Start the bus, as often as it takes; False when asked to stop meanwhile."""
    while not stop.is_set():
        try:
            await bus.start()
        except LogUnavailable as error:
            logger.warning("waiting for the log: %s", error)
        else:
            return True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _RETRY_SECONDS)
    return False


def _cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


if __name__ == "__main__":
    play(["fhe-worker"], load_settings())
