"""A decider that is frozen in mid-batch, replaced, and comes back believing that it still decides.

Nothing here waits for a lease to run out: the test ends it in Postgres, as six seconds would.
"""

import asyncio
import signal

import pytest

from infra.config import Settings
from infra.kafka import create_topics
from tests.faults.departed import end_leases
from tests.faults.ledger import Ledger, judge
from tests.faults.roles import RoleProcess
from tests.loops import deciding, talking


# Where it stands still: its transaction open; committed, but not in Postgres; nobody answered yet.
@pytest.mark.parametrize("point", ["decider.sent", "decider.committed", "decider.applied"])
async def test_a_zombie_changes_nothing(settings: Settings, point: str) -> None:
    await create_topics(settings.kafka_bootstrap_servers, settings.partitions)
    async with talking(settings) as bus:
        ledger = Ledger(settings, bus)
        with RoleProcess(settings, ["decider"], f"{point}:3:SIGSTOP") as zombie:
            await asyncio.to_thread(zombie.wait_ready)
            stuck = asyncio.create_task(ledger.commands(1))
            asking = [stuck]
            while not zombie.is_frozen():
                # One after the other, so that each is a batch, until it stands still in one.
                await asyncio.wait({asking[-1]}, timeout=0.1)
                if asking[-1].done():
                    asking.append(asyncio.create_task(ledger.commands(1)))
            await end_leases(settings)
            async with deciding(settings):
                await asyncio.gather(*asking)
                await ledger.commands(5)
                zombie.signal(signal.SIGCONT)
                # It takes its share of the partitions back while commands keep coming.
                for _ in range(30):
                    await ledger.command()
            # Alone again: it decides everything, from what the other has left.
            await ledger.commands(5)
            assert zombie.process.poll() is None
    await judge(settings, [ledger])
