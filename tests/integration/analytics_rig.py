"""The analytics loop on real Kafka and chDB, and reports of runs to feed it with."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from aiokafka import TopicPartition

from infra.clickhouse import ClickHouse
from infra.config import Settings
from infra.ids import Signer, new_id
from infra.kafka import Log, bounds, consumer, create_topics
from projections import CLICKHOUSE_VIEWS
from projections.clickhouse import tables_by_topic
from projections.observability.llm_calls import LLM_CALLS
from schemas import EVENTS
from schemas.codec import Codec, load_schemas
from schemas.envelope import Actor, Position
from schemas.observability.run import LlmCall, LlmCallsRecorded, RunCompleted, RunStarted
from streams.analytics import AnalyticsLoop, Limits
from streams.runtime import person_keys
from streams.telemetry import Origin, Telemetry, item_id

SIGNER = Signer(b"a secret of thirty-two bytes ....")
KEY = Actor("api_key", "key_1")


class Rig:
    """A producer, an engine and a loop on the test's own stores."""

    def __init__(self, settings: Settings, clickhouse: ClickHouse, log: Log) -> None:
        self.settings, self.clickhouse, self.log = settings, clickhouse, log
        self.telemetry = Telemetry(log)
        self.person_keys = person_keys(settings)
        self.tenant = new_id("ten")

    def loop(self, limits: Limits | None = None, **options: Any) -> AnalyticsLoop:
        """A loop that is not running yet."""
        return AnalyticsLoop(
            bootstrap=self.settings.kafka_bootstrap_servers,
            clickhouse=self.clickhouse,
            views=options.pop("views", CLICKHOUSE_VIEWS),
            codec=Codec(EVENTS, load_schemas()),
            dead_letters=self.log,
            person_keys=self.person_keys,
            limits=limits,
            **options,
        )

    @contextlib.asynccontextmanager
    async def running(self, loop: AnalyticsLoop) -> AsyncIterator[AnalyticsLoop]:
        """The loop at work; stopped, and its last flush done, when the block ends."""
        task = asyncio.create_task(loop.run())
        try:
            yield loop
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def origin(self) -> Origin:
        return Origin(self.tenant, KEY, new_id("cmd"))

    async def report(self, run_id: str, *events: Any, origin: Origin | None = None) -> Position:
        """Report events of a run, as the API would."""
        return await self.telemetry.record(origin or self.origin(), run_id, events)

    async def start_run(self, agent: str = "bot", **fields: Any) -> str:
        """A new run that has been started."""
        run_id = SIGNER.run_id(self.tenant)
        await self.report(run_id, started(agent, **fields))
        return run_id

    async def totals(self) -> dict[str, Any]:
        """Calls, tokens and cost (picodollars) of the test's tenant."""
        rows = await self.clickhouse.query(
            "SELECT count() AS calls, sum(total_tokens) AS tokens,"
            " toInt64(sum(toInt128(cost_pico))) AS cost_pico"
            f" FROM {LLM_CALLS.table} WHERE tenant = {{tenant:String}}",
            {"tenant": self.tenant},
        )
        return rows[0]


def started(agent: str = "bot", **fields: Any) -> RunStarted:
    """A run's start with defaults."""
    given = {"workflow_name": "default", "workflow_id": "wf_1", "started_at": 1_700_000_000_000_000}
    return RunStarted(agent_name=agent, **{**given, **fields})


def completed(status: str = "success") -> RunCompleted:
    """A run's end with defaults."""
    return RunCompleted(status=status, completed_at=1_700_000_005_000_000)


def call(origin: Origin, index: int, **fields: Any) -> LlmCall:
    """One LLM call of a request, with the id that the API would make."""
    given = {
        "id": item_id("call", origin.command_id, index),
        "model": "gpt-4o",
        "tokens_in": 100,
        "tokens_out": 20,
        "cost": 0.001175,
    }
    return LlmCall(**{**given, **fields})


def calls(*items: LlmCall) -> LlmCallsRecorded:
    """The event that holds these calls."""
    return LlmCallsRecorded(calls=list(items))


@contextlib.asynccontextmanager
async def rig_on(settings: Settings) -> AsyncIterator[Rig]:
    """A rig with topics made and everything connected."""
    await create_topics(settings.kafka_bootstrap_servers, settings.partitions)
    clickhouse = ClickHouse(settings.clickhouse_url, tables=tables_by_topic(CLICKHOUSE_VIEWS))
    log = Log(settings.kafka_bootstrap_servers, "test")
    await clickhouse.start()
    await log.start()
    try:
        yield Rig(settings, clickhouse, log)
    finally:
        await log.stop()
        await clickhouse.stop()


async def dead_letters(settings: Settings) -> dict[str, str]:
    """Source position -> reason of every record in the dead letters."""
    reader = consumer(settings.kafka_bootstrap_servers, "test")
    await reader.start()
    try:
        place = TopicPartition("telemetry.dlq", 0)
        reader.assign([place])
        first, end = await bounds(reader, place)
        reader.seek(place, first)
        found: dict[str, str] = {}
        while await reader.position(place) < end:
            for records in (await reader.getmany(timeout_ms=500)).values():
                for record in records:
                    headers = dict(record.headers)
                    found[headers["source"].decode()] = headers["reason"].decode()
        return found
    finally:
        await reader.stop()
