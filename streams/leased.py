"""Partitions that a process leases, each with a loop of its own while the lease is held."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Hashable, Mapping
from typing import Any, Generic, Protocol, TypeVar

from infra.leases import Leases
from streams.watchdog import Watchdog

logger = logging.getLogger(__name__)


class PartitionLoop(Protocol):
    """A partition's loop. ready: whether it does its work; beats: a count that never stands still
    while it lives."""

    ready: bool
    beats: int

    def run(self) -> Coroutine[Any, Any, None]:
        """Run until cancelled."""
        ...


L = TypeVar("L", bound=PartitionLoop)


class LeasedLoops(Generic[L]):
    """Runs `make(partition)` for every partition that is leased here, with a watchdog beside."""

    def __init__(self, leases: Leases, make: Callable[[int], L]) -> None:
        self._leases, self._make = leases, make
        self._loops: dict[int, L] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}

    @property
    def loops(self) -> Mapping[int, L]:
        """The partitions run here."""
        return self._loops

    async def serving(self) -> None:
        """Return once every partition leased here is ready (and the leases are settled)."""
        while not self._loops or not all(loop.ready for loop in self._loops.values()):
            await asyncio.sleep(0.02)
            if self._leases.settled and not self._leases.held:
                return  # others hold them all: this process is the spare

    async def run(self) -> None:
        """Take leases and run their loops until cancelled; then give the leases back."""
        await self._leases.start()
        watching = asyncio.create_task(Watchdog(self._beats).run(), name="watchdog")
        try:
            while True:
                await self._follow()
                async with self._leases.changed:
                    await self._leases.changed.wait_for(
                        lambda: self._leases.held != set(self._tasks)
                    )
        finally:
            tasks = [watching, *self._tasks.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._leases.stop()

    async def _beats(self) -> Mapping[Hashable, int]:
        """What the watchdog sees: a loop whose count stands still is stuck, work or no work."""
        return {partition: loop.beats for partition, loop in self._loops.items()}

    async def _follow(self) -> None:
        held = self._leases.held
        for partition in set(self._tasks) - held:
            task = self._tasks.pop(partition)
            del self._loops[partition]
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            logger.info("%s is let go: another process has it", task.get_name())
        for partition in held - set(self._tasks):
            loop = self._loops[partition] = self._make(partition)
            name = f"{type(loop).__name__}-{partition}"
            self._tasks[partition] = asyncio.create_task(loop.run(), name=name)
