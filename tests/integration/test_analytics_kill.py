"""`kill -9` of the process with the loop and the engine in it: counts and sums stay exact."""

import asyncio
import random
import sys
from pathlib import Path

from infra.clickhouse import ClickHouse
from infra.config import Settings
from infra.kafka import Log, create_topics
from projections.observability.llm_calls import LLM_CALLS
from schemas.envelope import Position
from tests.integration.analytics_rig import SIGNER, Rig, call, calls, rig_on, started

ROOT = Path(__file__).resolve().parents[2]
# The first insert is the warm-up; a flush then makes three (starts, calls, positions). So these are
# deaths around every insert of the first flush and of a later one.
POINTS = [
    ("before", 2),
    ("after", 2),
    ("during", 3),
    ("after", 3),
    ("before", 4),
    ("during", 7),
    ("before", 8),
]


async def test_counts_and_sums_survive_a_kill_at_any_insert(settings: Settings) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    dice = random.Random(seed)
    await create_topics(settings.kafka_bootstrap_servers, settings.partitions)
    log = Log(settings.kafka_bootstrap_servers, "test")
    await log.start()
    # No engine here yet: it is the children's, one after the other.
    rig = Rig(settings, ClickHouse(settings.clickhouse_url), log)
    expected = {"calls": 0, "tokens": 0, "cost_pico": 0}
    last: dict[int, Position] = {}
    points = list(POINTS)
    dice.shuffle(points)
    for point, count in points:
        child = asyncio.create_task(run_child(settings, point, count))
        while not child.done():
            for position in await report(rig, dice, expected):
                last[position.partition] = position
            await asyncio.wait([child], timeout=0.2)
        died = await child
        assert died == -9, f"the child should die {point} insert {count}"
    await log.stop()
    async with rig_on(settings) as final, final.running(final.loop()):
        final.tenant = rig.tenant
        for position in last.values():
            assert await final.clickhouse.reached(position, timeout=60)
        assert await final.totals() == expected
        physical = await final.clickhouse.query(
            f"SELECT count() AS n, uniqExact(id) AS ids FROM {LLM_CALLS.table}"
            " WHERE tenant = {t:String} SETTINGS final = 0",
            {"t": rig.tenant},
        )
        assert physical == [{"n": expected["calls"], "ids": expected["calls"]}]


async def report(rig: Rig, dice: random.Random, expected: dict[str, int]) -> list[Position]:
    """Report runs and calls, and count what they add up to without the product's help."""
    positions = []
    for _ in range(20):
        run_id = SIGNER.run_id(rig.tenant)
        origin = rig.origin()
        micros = [dice.randrange(10**6) for _ in range(dice.randrange(1, 6))]
        items = [call(origin, n, cost=cost / 10**6) for n, cost in enumerate(micros)]
        positions.append(await rig.report(run_id, started(), calls(*items), origin=origin))
        expected["calls"] += len(items)
        expected["tokens"] += 120 * len(items)
        expected["cost_pico"] += sum(micros) * 10**6
    return positions


async def run_child(settings: Settings, point: str, count: int) -> int:
    """Run the loop until it kills itself; its exit code."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.integration.analytics_child",
        point,
        str(count),
        cwd=ROOT,
        env={**settings.to_env(), "PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    )
    try:
        async with asyncio.timeout(60):
            return await child.wait()
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
