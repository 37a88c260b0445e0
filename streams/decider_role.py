"""The decider role: the partitions that this process leases, each with its own loop."""

import asyncio
import contextlib
import logging
from collections.abc import Mapping

import psycopg

from infra.clock import Clock
from infra.kafka import Log
from infra.leases import Leases
from infra.postgres import DatabaseUnavailable, connect
from schemas.codec import Codec
from streams.decider import PartitionDecider
from streams.deciding import Registry
from streams.leased import LeasedLoops
from streams.store import create_tables

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
        self._replies = Log(bootstrap, f"{owner}-replies")
        leases = Leases(database, "decider", partitions, owner)
        self._leased = LeasedLoops(leases, self._decider)

    @property
    def loops(self) -> Mapping[int, PartitionDecider]:
        """The partitions run here."""
        return self._leased.loops

    async def serving(self) -> None:
        """Return once every partition leased here is decided (and the leases are settled)."""
        await self._leased.serving()

    async def run(self) -> None:
        """Run until cancelled."""
        await self._prepare()
        try:
            await self._leased.run()
        finally:
            await self._replies.stop()

    def _decider(self, partition: int) -> PartitionDecider:
        return PartitionDecider(
            partition,
            bootstrap=self._bootstrap,
            database=self._database,
            registry=self._registry,
            codec=self._codec,
            clock=self._clock,
            replies=self._replies,
        )

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
