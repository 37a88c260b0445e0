"""The decider role: the partitions that this process leases, each with its own loop."""

import asyncio
import contextlib
import logging
from collections.abc import Hashable, Mapping

import psycopg

from infra.clock import Clock
from infra.kafka import Log
from infra.leases import Leases
from infra.postgres import DatabaseUnavailable, connect
from schemas.codec import Codec
from streams.decider import PartitionDecider
from streams.deciding import Registry
from streams.store import create_tables
from streams.watchdog import Watchdog

logger = logging.getLogger(__name__)


class DeciderRole:
    """The partitions that this process leases, each with its own loop."""

    def __init__(
        self,
        *,
        bootstrap: str,
        database: str,
        partitions: int,
        registry: Registry,
        codec: Codec,
        clock: Clock,
        owner: str,
    ) -> None:
        self._bootstrap, self._database = bootstrap, database
        self._registry, self._codec, self._clock = registry, codec, clock
        self._leases = Leases(database, "decider", partitions, owner)
        self._replies = Log(bootstrap, f"{owner}-replies")
        self._loops: dict[int, PartitionDecider] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}

    @property
    def loops(self) -> Mapping[int, PartitionDecider]:
        """The partitions run here."""
        return self._loops

    async def serving(self) -> None:
        """Return once every partition leased here is decided (and the leases are settled)."""
        while not self._loops or not all(loop.ready for loop in self._loops.values()):
            await asyncio.sleep(0.02)
            if self._leases.settled and not self._leases.held:
                return  # others hold them all: this process is the spare

    async def run(self) -> None:
        """Run until cancelled."""
        await self._prepare()
        await self._leases.start()
        watching = asyncio.create_task(Watchdog(self._beats).run(), name="watchdog")
        try:
            while True:
                await self._follow_leases()
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
            await self._replies.stop()

    async def _beats(self) -> Mapping[Hashable, int]:
        """What the watchdog sees: a loop whose count stands still is stuck, work or no work."""
        return {partition: loop.beats for partition, loop in self._loops.items()}

    async def _prepare(self) -> None:
        while True:
            try:
                connection = await connect(self._database, autocommit=True)
                try:
                    await create_tables(connection)
                finally:
                    with contextlib.suppress(psycopg.Error):
                        await connection.close()
                return
            except (DatabaseUnavailable, psycopg.OperationalError) as error:
                logger.warning("waiting for Postgres: %s", error)
                await asyncio.sleep(0.5)

    async def _follow_leases(self) -> None:
        held = self._leases.held
        for partition in set(self._tasks) - held:
            task = self._tasks.pop(partition)
            del self._loops[partition]
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        for partition in held - set(self._tasks):
            loop = PartitionDecider(
                partition,
                bootstrap=self._bootstrap,
                database=self._database,
                registry=self._registry,
                codec=self._codec,
                clock=self._clock,
                replies=self._replies,
            )
            self._loops[partition] = loop
            self._tasks[partition] = asyncio.create_task(loop.run(), name=f"decider-{partition}")
