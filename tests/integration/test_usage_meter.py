"""Usage is counted exactly, whatever order and however often records come."""

import asyncio
import random

from aiokafka import TopicPartition

from commands.billing.budget import SetBudget, budget_id
from infra.config import Settings
from infra.kafka import bounds, range_reader, read_range, stop_consumer
from projections.billing.usage_windows import (
    ALERTS,
    BY_AGENT,
    CALLS,
    OFFSETS,
    RUNS,
    UNNAMED,
    WINDOWS,
)
from schemas.avro_derivation import tag_of
from schemas.billing.budget import BudgetReached
from schemas.billing.usage import UsageRecorded
from schemas.envelope import SYSTEM, Envelope, to_headers
from schemas.observability.run import LlmCallsRecorded
from streams.runtime import codec
from tests.api.fake_log import FakeRecord
from tests.integration.usage_rig import UsageRig, some_call, usage_rig
from tests.loops import read_topic

TABLES = (BY_AGENT, RUNS, UNNAMED, WINDOWS, OFFSETS, CALLS, ALERTS)
NOW = 1_700_000_000_000_000
LLM_CALLS = tag_of(LlmCallsRecorded)


async def log_of(settings: Settings, partition: TopicPartition) -> list[object]:
    reader = range_reader(settings.kafka_bootstrap_servers, "test")
    await reader.start()
    try:
        reader.assign([partition])
        first, end = await bounds(reader, partition)
        return [r async for chunk in read_range(reader, partition, first, end) for r in chunk]
    finally:
        await stop_consumer(reader)


async def test_usage_and_llm_calls_add_up_and_again_from_nothing(settings: Settings) -> None:
    dice = seeded()
    async with usage_rig(settings) as rig:
        await rig.load(dice, 150)
        await rig.catch_up()
        await rig.until_counted()
        await rig.catch_up()
        await rig.until_counted()
        before = await rig.rows(f"SELECT * FROM {WINDOWS} ORDER BY 1, 2, 3, 4")
        for table in TABLES:
            await rig.rows(f"DELETE FROM {table} RETURNING 1")
        await rig.catch_up()
        assert await rig.rows(f"SELECT * FROM {WINDOWS} ORDER BY 1, 2, 3, 4") == before


async def test_agents_use_what_their_runs_use_and_again_from_nothing(settings: Settings) -> None:
    dice = seeded()
    async with usage_rig(settings) as rig:
        late, known, unknown = (rig.run_id() for _ in range(3))
        await rig.begin(known, "known")
        for run, calls in ((late, 1), (known, 2), (unknown, 4)):
            await rig.call_llm(run, *(some_call(dice) for _ in range(calls)))
        await rig.catch_up()
        assert await by_agent(rig) == {"": (0, 5), "known": (1, 2)}
        await rig.begin(late, "late")
        await rig.begin(late, "somebody else")
        await rig.call_llm(late, some_call(dice))
        await rig.catch_up()
        assert await by_agent(rig) == {"": (0, 4), "known": (1, 2), "late": (1, 2)}
        assert await rig.totals() == rig.used
        before = await by_agent(rig)
        for table in TABLES:
            await rig.rows(f"DELETE FROM {table} RETURNING 1")
        await rig.catch_up()
        assert await by_agent(rig) == before


async def by_agent(rig: UsageRig) -> dict[str, tuple[int, int]]:
    """Runs and calls of this month by the agent's name."""
    rows = await rig.rows(
        f"SELECT agent_name, runs, calls FROM {BY_AGENT} WHERE tenant = %s AND window_kind = %s",
        rig.tenant,
        "month",
    )
    return {row["agent_name"]: (row["runs"], row["calls"]) for row in rows}


async def test_records_that_come_late_twice_or_with_holes_count_once(settings: Settings) -> None:
    dice = seeded()
    async with usage_rig(settings) as rig:
        await rig.load(dice, 100)
        meter = rig.meter()
        for partition in rig.partitions():
            records = await log_of(settings, partition)
            begin = 0
            # Other tests' records are on the log, too: the pieces are larger when there are many.
            longest = max(20, len(records) // 50)
            while begin < len(records):
                end = begin + dice.randrange(1, longest)
                piece = [record for record in records[begin:end] if dice.random() > 0.2]
                await meter.take(partition, piece)
                # Now and then back by some, as after a rebalance.
                begin = end - dice.choice([0, 0, 5])
            await meter.take(partition, records[-1:])
        await rig.until_counted()
        await meter.stop()


async def test_two_processes_with_the_same_partitions_count_once(settings: Settings) -> None:
    dice = seeded()
    async with usage_rig(settings) as rig:
        await rig.load(dice, 100)
        await asyncio.gather(*(rig.catch_up() for _ in range(3)))
        await rig.until_counted()


async def test_a_budget_is_reached_once_whatever_brought_it_there(settings: Settings) -> None:
    async with usage_rig(settings) as rig:
        budget = budget_id("llm.calls", "month")
        command = SetBudget(meter="llm.calls", window="month", limit=10, alert_percents=[50, 100])
        await rig.loops.send(rig.tenant, budget, command)
        run, dice = rig.run_id(), seeded()
        for _ in range(6):
            await rig.call_llm(run, some_call(dice))
            await rig.catch_up()
        await rig.use("llm.calls", 7)
        await rig.catch_up()
        await rig.catch_up()
        async with asyncio.timeout(30):
            while True:
                reached = [
                    event
                    for _, event in await read_topic(settings, "billing", rig.tenant)
                    if isinstance(event, BudgetReached)
                ]
                if len(reached) >= 2:
                    break
                await asyncio.sleep(0.1)
        assert [(event.percent, event.total) for event in reached] == [(50, 5), (100, 13)]
        assert reached[0].budget_id == budget


async def test_an_alert_whose_sender_died_is_sent_by_the_next(settings: Settings) -> None:
    async with usage_rig(settings) as rig:
        budget = budget_id("api.requests", "hour")
        command = SetBudget(meter="api.requests", window="hour", limit=1, alert_percents=[100])
        await rig.loops.send(rig.tenant, budget, command)
        await rig.use("api.requests", 3)
        await rig.catch_up()
        # As if it had died after the commit and before, or after, the command was posted.
        await rig.rows(f"UPDATE {ALERTS} SET sent = false RETURNING 1")
        await rig.catch_up()
        assert await rig.rows(f"SELECT 1 FROM {ALERTS} WHERE NOT sent") == []
        # The commands of one tenant are decided in order: after this one both are done.
        await rig.use("other", 1)
        events = [event for _, event in await read_topic(settings, "billing", rig.tenant)]
        assert len([event for event in events if isinstance(event, BudgetReached)]) == 1


def a_record(topic: str, offset: int, value: bytes, tenant: str) -> FakeRecord:
    type = "billing.usage_recorded.v1" if topic == "billing" else LLM_CALLS
    envelope = Envelope(f"evt_{offset}", type, tenant, "x/1", 1, NOW, SYSTEM)
    return FakeRecord(topic, 900, offset, tuple(to_headers(envelope)), value)


async def test_a_billing_record_that_cannot_be_read_halts_its_partition_only(
    settings: Settings,
) -> None:
    # These records are handed over and not on the log, where other tests would meet them.
    async with usage_rig(settings) as rig:
        meter = rig.meter()
        used = UsageRecorded(usage_id="usg_1", meter="m", quantity=3, occurred_at=NOW)
        readable = codec().encode(used)
        halting = TopicPartition("billing", 900)
        await meter.take(halting, [a_record("billing", 0, readable, rig.tenant)])
        await meter.take(halting, [a_record("billing", 1, b"from a newer release", rig.tenant)])
        assert await rig.totals() == {"m": 3}
        assert await meter.stands(halting) == 1
        assert await meter.uncounted(halting) is None, "it is known, and no reason to restart"
        await rig.use("other", 1)
        for partition in rig.partitions():
            await meter.catch_up(partition)
        assert await rig.totals() == {"m": 3, "other": 1}
        await meter.stop()


async def test_telemetry_that_cannot_be_read_is_passed_over(settings: Settings) -> None:
    async with usage_rig(settings) as rig:
        meter, place = rig.meter(), TopicPartition("telemetry", 900)
        await meter.take(place, [a_record("telemetry", 0, b"garbage", rig.tenant)])
        assert await meter.stands(place) == 1
        assert await rig.totals() == {}
        await meter.stop()


def seeded() -> random.Random:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    return random.Random(seed)
