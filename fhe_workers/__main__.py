"""The role of this package: `weir run fhe-worker`, or `python -m fhe_workers`."""

import asyncio
import os
from collections.abc import Callable

from fhe_workers.execution import Execution
from fhe_workers.pool import Pool, PoolLimits
from fhe_workers.worker import Worker, jobs_consumer
from infra.clock import SYSTEM_CLOCK
from infra.config import Settings, load_settings
from infra.kafka import Log
from infra.objects import Objects
from infra.roles import run_roles
from streams.runtime import codec, command_bus


async def serve(settings: Settings, stop: asyncio.Event, ready: Callable[[], None]) -> None:
    """Compute jobs until `stop` is set; `ready()` is called once the first may come."""
    bus = command_bus(settings)
    dead_letters = Log(settings.kafka_bootstrap_servers, "fhe-worker-dead-letters")
    children = _cores()
    await bus.start()
    try:
        async with Pool(PoolLimits(children=children)) as pool:
            execution = Execution(
                pool=pool,
                objects=Objects(settings.object_store_url, in_place=True),
                reports=bus,
                clock=SYSTEM_CLOCK,
            )
            worker = Worker(
                jobs=jobs_consumer(settings.kafka_bootstrap_servers),
                execution=execution,
                codec=codec(),
                dead_letters=dead_letters,
                capacity=children,
            )
            await worker.run(stop, ready)
    finally:
        await dead_letters.stop()
        await bus.stop()


def _cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


if __name__ == "__main__":
    asyncio.run(run_roles(["fhe-worker"], load_settings()))
