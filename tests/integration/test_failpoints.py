"""A decider that dies at every place where it touches Kafka or Postgres, at the first passes of it.

Each death is a real one (SIGKILL at a failpoint, in a process of its own); then another process
takes over, every client repeats what it had no answer to, and the log is judged by the oracle.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator

import pytest

from commands.tenancy.tenant import CreateTenant
from infra.config import Settings
from infra.ids import new_id
from infra.kafka import create_topics
from streams.bus import OutcomeUnknown, Reply
from tests.chaos import oracle
from tests.faults.departed import end_leases
from tests.loops import Loops, deciding, read_topic, talking

DECIDER = ["decider.read", "decider.sent", "decider.committed", "decider.applied"]


@contextlib.asynccontextmanager
async def dying_decider(settings: Settings, failpoint: str) -> AsyncIterator[asyncio.Event]:
    """A decider process that dies at a failpoint; the event is set when it has."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "infra.cli", "run", "decider"),
        env={**os.environ, **settings.to_env(), "WEIR_FAILPOINT": failpoint},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    died = asyncio.Event()

    async def watch() -> None:
        assert await process.wait() == -signal.SIGKILL
        died.set()

    watching = asyncio.create_task(watch())
    try:
        yield died
        async with asyncio.timeout(60):
            await watching
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def answered(running: Loops, tenant: str, number: int, id: str) -> Reply:
    """Repeat the command with the same id until there is an answer."""
    while True:
        try:
            return await running.send(
                tenant,
                f"ten_{number}",
                CreateTenant(f"n{number}"),
                command_id=id,
                fingerprint="f",
                timeout=3,
            )
        except OutcomeUnknown:
            continue


@pytest.mark.parametrize(
    ("point", "passes"), [*((name, 1) for name in DECIDER), ("decider.committed", 3)]
)
async def test_a_decider_that_dies_here_loses_and_doubles_nothing(
    settings: Settings, point: str, passes: int
) -> None:
    await create_topics(settings.kafka_bootstrap_servers, settings.partitions)
    tenant = new_id("ten")
    async with talking(settings) as bus:
        running = Loops(settings, bus)
        waiting = []
        async with dying_decider(settings, f"{point}:{passes}") as died:
            number = 0
            while not died.is_set():
                # One at a time, so that each is a batch, until the process has died of one.
                ask = asyncio.create_task(answered(running, tenant, number, new_id("cmd")))
                waiting.append(ask)
                gone = asyncio.create_task(died.wait())
                await asyncio.wait({ask, gone}, return_when=asyncio.FIRST_COMPLETED)
                gone.cancel()
                number += 1
        await end_leases(settings)
        async with deciding(settings):
            replies = await asyncio.gather(*waiting)
    assert {reply.status for reply in replies} == {"accepted"}
    assert {reply.version for reply in replies} == {1}
    events = await read_topic(settings, "events", tenant)
    assert len(events) == len(replies)
    log = await asyncio.to_thread(
        oracle.read_log, settings.kafka_bootstrap_servers, ("audit", "outcomes", "events")
    )
    ours = {name: [e for e in entries if e.tenant == tenant] for name, entries in log.items()}
    oracle.check_versions(ours["events"])
    oracle.check_ids(ours["events"])
    oracle.check_outcomes(ours["outcomes"], ours["audit"])
    assert oracle.check_audit(ours["audit"]) == {tenant: len(replies)}
