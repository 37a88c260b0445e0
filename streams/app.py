"""The Faust app: processors of what is soft and can be rebuilt from the log.

Each processor's module attaches its agents to the app, in `Processors`. Faust 0.15.3 needs care:
its consumers read aborted records of transactional topics unless told otherwise (`read_committed`),
`exactly_once` loses its fencing on a rebalance, tables can hang in recovery, and an agent with
concurrency above 1 commits past events that are unfinished. So: no tables, no transactions,
concurrency 1, and a processor's state and its offset live in Postgres, in one transaction.
"""

import asyncio
import logging
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import Any

import faust
from aiokafka import TopicPartition
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread

from infra.config import Settings
from schemas.codec import Codec
from streams.billing import agent as usage_agent
from streams.billing.meter import SERVER_AWAY, UsageMeter
from streams.bus import CommandBus
from streams.watchdog import Watchdog

logger = logging.getLogger(__name__)

FAUST_VERSION = "0.15.3"
GROUP = "streams.v1"
START_SECONDS = 60.0
STOP_SECONDS = 10.0
# Longer than a group takes to share out the partitions of a member that died.
UNASSIGNED_SECONDS = 60.0


def read_committed() -> None:
    """Make Faust's consumers skip what was aborted. Raises RuntimeError on another Faust."""
    if faust.__version__ != FAUST_VERSION:
        raise RuntimeError(
            f"Faust {faust.__version__} is not the {FAUST_VERSION} whose consumer this patches: "
            "see whether it is still needed, and run tests/integration/test_faust_app.py"
        )
    create = AIOKafkaConsumerThread._create_worker_consumer
    if getattr(create, "reads_committed", False):
        return

    def create_reading_committed(thread: Any, transport: Any) -> Any:
        created = create(thread, transport)
        # Read when the consumer starts, which is later.
        created._isolation_level = "read_committed"
        return created

    create_reading_committed.reads_committed = True  # type: ignore[attr-defined]
    AIOKafkaConsumerThread._create_worker_consumer = create_reading_committed


def make_app(bootstrap: str, folder: Path, group: str = GROUP) -> Any:
    """An app without agents. `folder` is for Faust's files, of which nothing needs to be kept."""
    read_committed()
    return faust.App(
        group,
        broker=[f"kafka://{address}" for address in bootstrap.split(",")],
        datadir=folder,
        store="memory://",
        web_enabled=False,
        processing_guarantee="at_least_once",
        topic_allow_declare=False,
        topic_disable_leader=True,
        consumer_auto_offset_reset="earliest",
        # Heartbeats come from Faust's consumer thread, so a busy loop does not cost the membership,
        # and after a `kill -9` the partitions are free within seconds.
        broker_session_timeout=10.0,
        broker_heartbeat_interval=3.0,
        broker_rebalance_timeout=20.0,
        broker_commit_interval=2.0,
        stream_buffer_maxsize=4096,
        stream_wait_empty=False,
    )


class Processors:
    """Every processor in one app, with the watchdog beside it: the role `streams`.

    folder: for Faust's files. group: the consumer group; each gets every record once.
    """

    def __init__(
        self,
        settings: Settings,
        codec: Codec,
        bus: CommandBus,
        folder: Path,
        group: str = GROUP,
    ) -> None:
        self.meter = UsageMeter(
            bootstrap=settings.kafka_bootstrap_servers,
            database=settings.database_url,
            codec=codec,
            bus=bus,
        )
        self.app = make_app(settings.kafka_bootstrap_servers, folder, group)
        usage_agent.attach(self.app, self.meter)
        self._partitions = settings.partitions
        self._watchdogs = (
            Watchdog(self._pending, away=SERVER_AWAY),
            Watchdog(self._unassigned, away=SERVER_AWAY, stuck_seconds=UNASSIGNED_SECONDS),
        )

    async def run(self, ready: Callable[[], None]) -> None:
        """Process until cancelled.

        Raises RuntimeError when Faust gives up, and TimeoutError when it does not come up.
        """
        watching: list[asyncio.Task[None]] = []
        try:
            async with asyncio.timeout(START_SECONDS):
                await self.app.start()
            watching += [asyncio.create_task(dog.run()) for dog in self._watchdogs]
            ready()
            await self.app.wait_until_stopped()
            raise RuntimeError(f"Faust gave up: {self.app.crash_reason!r}")
        finally:
            await self._stop_faust()
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)
            await self.meter.stop()

    async def _stop_faust(self) -> None:
        """Stop Faust, or leave it to the end of the process: one that gave up may wait for good."""
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self.app.stop()
        except Exception:
            logger.exception("Faust did not stop")

    async def _pending(self) -> dict[Hashable, int]:
        """What is not counted in the partitions that this process has."""
        return await self._uncounted(
            TopicPartition(*partition)
            for partition in self.app.consumer.assignment()
            if partition.topic in usage_agent.TOPICS
        )

    async def _unassigned(self) -> dict[Hashable, int]:
        """What nobody counts, when this process has no partition at all.

        It may be a spare beside others that do the work, or it may have lost its group unawares.
        """
        if self.app.consumer.assignment():
            return {}
        return await self._uncounted(
            TopicPartition(topic, number)
            for topic in usage_agent.TOPICS
            for number in range(self._partitions)
        )

    async def _uncounted(self, partitions: Iterable[TopicPartition]) -> dict[Hashable, int]:
        found = {partition: await self.meter.uncounted(partition) for partition in partitions}
        return {place: offset for place, offset in found.items() if offset is not None}
