"""The usage processor on real Kafka and Postgres, and usage to feed it with."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Mapping
from typing import Any

import psycopg
from aiokafka import TopicPartition
from psycopg.rows import dict_row

from commands.billing.usage import RecordUsage
from infra.config import Settings
from infra.ids import Signer, new_id
from infra.kafka import Log
from projections.billing.usage_windows import ALERTS, WINDOWS
from schemas.envelope import Actor
from schemas.observability.run import LlmCall, LlmCallsRecorded, RunStarted
from streams.billing.agent import TOPICS
from streams.billing.meter import UsageMeter
from streams.runtime import codec
from streams.telemetry import Origin, Telemetry
from tests.loops import Loops, loops

SIGNER = Signer(b"a secret of thirty-two bytes ....")


class UsageRig:
    """One tenant, what it used so far, and meters."""

    def __init__(self, settings: Settings, running: Loops, log: Log) -> None:
        self.settings, self.loops = settings, running
        self.tenant = new_id("ten")
        self.telemetry = Telemetry(log)
        self.used: dict[str, int] = {}
        self.budgets = 0

    def meter(self) -> UsageMeter:
        return UsageMeter(
            bootstrap=self.settings.kafka_bootstrap_servers,
            database=self.settings.database_url,
            codec=codec(),
            bus=self.loops.bus,
        )

    def partitions(self) -> list[TopicPartition]:
        return [
            TopicPartition(topic, number)
            for topic in TOPICS
            for number in range(self.settings.partitions)
        ]

    async def catch_up(self) -> None:
        """Count all that the log holds now."""
        meter = self.meter()
        for partition in self.partitions():
            await meter.catch_up(partition)
        await meter.stop()

    async def use(self, meter: str, quantity: int, usage_id: str = "", counts: bool = True) -> None:
        """Record usage as the API does; a repeat does not count."""
        reply = await self.loops.send(
            self.tenant, usage_id or new_id("usg"), RecordUsage(meter=meter, quantity=quantity)
        )
        assert reply.status == "accepted"
        if counts:
            self.used[meter] = self.used.get(meter, 0) + quantity

    async def call_llm(self, run_id: str, *calls: LlmCall, counts: bool = True) -> None:
        """Report LLM calls of a run."""
        origin = Origin(self.tenant, Actor("agent", "agt_1"), new_id("cmd"))
        await self.telemetry.record(origin, run_id, [LlmCallsRecorded(calls=list(calls))])
        if counts:
            for meter, quantity in (
                ("llm.calls", len(calls)),
                ("llm.tokens_in", sum(call.tokens_in for call in calls)),
                ("llm.tokens_out", sum(call.tokens_out for call in calls)),
            ):
                self.used[meter] = self.used.get(meter, 0) + quantity

    async def begin(self, run_id: str, agent_name: str) -> None:
        """Report that a run began."""
        origin = Origin(self.tenant, Actor("agent", "agt_1"), new_id("cmd"))
        started = RunStarted(
            agent_name=agent_name, workflow_name="default", workflow_id="wf_1", started_at=0
        )
        await self.telemetry.record(origin, run_id, [started])

    def run_id(self) -> str:
        return SIGNER.run_id(self.tenant)

    async def load(self, dice: random.Random, count: int) -> None:
        """Random usage and calls, some of them reported twice; runs begin late, or never."""
        runs = [self.run_id() for _ in range(5)]

        async def one(number: int) -> None:
            if dice.random() < 0.3:
                usage_id, quantity = new_id("usg"), dice.randrange(1, 50)
                await self.use("api.requests", quantity, usage_id)
                if dice.random() < 0.3:
                    await self.use("api.requests", quantity, usage_id, counts=False)
                return
            calls = [some_call(dice) for _ in range(dice.randrange(1, 5))]
            run = dice.choice(runs)
            await self.call_llm(run, *calls)
            if run != runs[0] and dice.random() < 0.2:
                await self.begin(run, dice.choice(["one", "two"]))
            if dice.random() < 0.3:
                await self.call_llm(run, *calls, counts=False)

        for first in range(0, count, 32):
            await asyncio.gather(*(one(number) for number in range(first, min(first + 32, count))))

    async def rows(self, sql: str, *params: Any) -> list[dict[str, Any]]:
        async with await psycopg.AsyncConnection.connect(
            self.settings.database_url, row_factory=dict_row
        ) as connection:
            return await (await connection.execute(sql.encode(), params)).fetchall()

    async def totals(self, kind: str = "month") -> Mapping[str, int]:
        """What the windows of a kind say the tenant used, by meter."""
        with contextlib.suppress(psycopg.errors.UndefinedTable):
            found = await self.rows(
                f"SELECT meter, sum(quantity) AS quantity FROM {WINDOWS} "
                "WHERE tenant = %s AND window_kind = %s GROUP BY meter",
                self.tenant,
                kind,
            )
            return {row["meter"]: int(row["quantity"]) for row in found}
        return {}

    async def until_counted(self, timeout: float = 60.0) -> None:
        """Wait until the windows hold what was used, in every kind of window."""
        try:
            async with asyncio.timeout(timeout):
                # Another process writes the rows: there is nothing to await but the table.
                while await self.totals() != self.used:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        except TimeoutError:
            found = await self.totals()
            raise AssertionError(f"{found} was counted, not {self.used}") from None
        for kind in ("hour", "day", "month"):
            assert await self.totals(kind) == self.used

    async def until_sent(self, timeout: float = 60.0) -> None:
        """Wait until every alert's command is on the log."""
        async with asyncio.timeout(timeout):
            while await self.rows(  # noqa: ASYNC110
                f"SELECT 1 FROM {ALERTS} WHERE tenant = %s AND NOT sent", self.tenant
            ):
                await asyncio.sleep(0.05)


def some_call(dice: random.Random) -> LlmCall:
    return LlmCall(
        id=f"call_{dice.getrandbits(60)}",
        model="m",
        tokens_in=dice.randrange(1, 100),
        tokens_out=dice.randrange(1, 100),
    )


@contextlib.asynccontextmanager
async def usage_rig(settings: Settings) -> AsyncIterator[UsageRig]:
    log = Log(settings.kafka_bootstrap_servers, "usage-rig")
    async with loops(settings) as running:
        await log.start()
        try:
            yield UsageRig(settings, running, log)
        finally:
            await log.stop()
