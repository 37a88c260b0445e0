"""`kill -9` of the Faust process: what was used is counted exactly, each alert is given once."""

import asyncio
import contextlib
import random
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from commands.billing.budget import SetBudget, budget_id
from infra.config import Settings
from infra.embedded.stack import Stack
from infra.ids import new_id
from schemas.billing.budget import BudgetReached
from tests.integration.usage_rig import UsageRig, usage_rig
from tests.loops import read_topic

ROOT = Path(__file__).resolve().parents[2]
POINTS = [("fold", 1), ("commit", 2), ("alert", 1)]


@contextlib.asynccontextmanager
async def child(
    settings: Settings, group: str, point: str = "never", count: int = 1
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A Faust process; killed when the block ends, if it still lives."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.integration.usage_child",
        group,
        point,
        str(count),
        cwd=ROOT,
        env={**settings.to_env(), "PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def a_group() -> str:
    return f"test.{new_id('grp')}"


async def set_budgets(rig: UsageRig) -> None:
    for meter, limit in (("llm.calls", 150), ("api.requests", 400)):
        command = SetBudget(meter=meter, window="month", limit=limit, alert_percents=[10, 50, 100])
        reply = await rig.loops.send(rig.tenant, budget_id(meter, "month"), command)
        assert reply.status == "accepted"


async def test_usage_stays_exact_under_kill_minus_nine(settings: Settings) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    async with usage_rig(settings) as rig:
        await set_budgets(rig)
        for point, count in dice.sample(POINTS, len(POINTS)):
            # A group of its own each, so that none waits for the session of the one that died.
            async with child(settings, a_group(), point, count) as process:
                dying = asyncio.create_task(process.wait())
                while not dying.done():
                    await rig.load(dice, 20)
                    if point == "alert":
                        # Each alert comes once: without a new budget there would soon be none.
                        await set_budget_again(rig)
                    await asyncio.wait([dying], timeout=0.05)
                assert process.returncode == -signal.SIGKILL
        group = a_group()
        async with child(settings, group), child(settings, group):
            await rig.load(dice, 100)
            await rig.until_counted(timeout=120)
            await alerts_are_exact(rig)


async def set_budget_again(rig: UsageRig) -> None:
    """A change of the budget that the present total has reached already."""
    rig.budgets += 1
    command = SetBudget(
        meter="api.requests", window="month", limit=rig.budgets, alert_percents=[100]
    )
    reply = await rig.loops.send(rig.tenant, budget_id("api.requests", "month"), command)
    assert reply.status == "accepted"


async def alerts_are_exact(rig: UsageRig) -> None:
    """Every share of the budgets that stand was reached once and none came twice."""
    await rig.until_sent()
    # Decided after every alert that was sent.
    await rig.use("other", 1)
    events = [event for _, event in await read_topic(rig.settings, "billing", rig.tenant)]
    reached = [event for event in events if isinstance(event, BudgetReached)]
    ids = [(event.budget_id, event.revision, event.percent) for event in reached]
    assert len(ids) == len(set(ids))
    assert {id[2] for id in ids if id[0] == budget_id("llm.calls", "month")} == {10, 50, 100}
    assert all(event.total * 100 >= event.limit * event.percent for event in reached)


async def test_another_process_takes_over_from_a_killed_one(settings: Settings) -> None:
    dice = random.Random(7)
    group = a_group()
    async with usage_rig(settings) as rig, child(settings, group) as first:
        await rig.load(dice, 30)
        await rig.until_counted()
        async with child(settings, group):
            await rig.load(dice, 30)
            first.kill()
            await rig.load(dice, 30)
            await rig.until_counted(timeout=120)


async def test_servers_that_go_and_come_cost_nothing(settings: Settings, stack: Stack) -> None:
    dice = random.Random(11)
    async with usage_rig(settings) as rig, child(settings, a_group()) as process:
        await rig.load(dice, 10)
        await rig.until_counted()
        for part in ("postgres", "kafka"):
            await asyncio.to_thread(stack.kill, part)
            await asyncio.to_thread(stack.wait_ready, part)
            await rig.load(dice, 10)
            await rig.until_counted(timeout=120)
        # Both were waited out: no supervisor had to start it again.
        assert process.returncode is None
