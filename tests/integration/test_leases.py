"""Who takes a lease over, and when: at once when its holder has died, in time when it is frozen."""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator

import psycopg
import pytest

from bench.timeouts import SettableClock, ask, firing
from infra.config import Settings
from infra.ids import new_id
from infra.leases import Leases
from schemas.approvals.check_in import CheckInExpired
from tests.faults.roles import RoleProcess
from tests.loops import loops, read_topic

FOR_EVER = 600.0
PATIENCE_SECONDS = 60.0
COUNT = 200
HOLDER = """
import asyncio, sys
from infra.leases import Leases

async def hold():
    leases = Leases(sys.argv[1], sys.argv[2], 1, "holder", ttl=600.0)
    await leases.start()
    async with leases.changed:
        await leases.changed.wait_for(lambda: leases.held)
    print("held", flush=True)
    await asyncio.Event().wait()

asyncio.run(hold())
"""


@contextlib.asynccontextmanager
async def taking(settings: Settings, loop: str) -> AsyncIterator[Leases]:
    """Somebody who has looked once whether the one partition of a loop is free."""
    leases = Leases(settings.database_url, loop, 1, "heir", ttl=FOR_EVER)
    await leases.start()
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not leases.settled:  # noqa: ASYNC110  # it tells of changes only
                await asyncio.sleep(0.01)
        yield leases
    finally:
        await leases.stop()


async def holds(leases: Leases) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS), leases.changed:
        await leases.changed.wait_for(lambda: leases.held == {0})


async def test_a_lease_is_free_when_its_holder_is_killed(settings: Settings) -> None:
    loop = new_id("loop")
    holder = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", HOLDER, settings.database_url, loop), stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout is not None
        assert await holder.stdout.readline() == b"held\n"
        async with taking(settings, loop) as heir:
            assert heir.held == set()
            holder.kill()
            # The ten minutes for which it was taken are not waited for.
            await holds(heir)
    finally:
        with contextlib.suppress(ProcessLookupError):
            holder.kill()
        await holder.wait()


ALIVE = "pg_backend_pid()"
BEGAN = "(SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid())"


@pytest.mark.parametrize(
    ("pid", "began", "seconds", "free"),
    [
        (ALIVE, BEGAN, 60, False),
        (ALIVE, BEGAN, -1, True),
        ("0", "now()", 60, True),
        (ALIVE, f"{BEGAN} - interval '1 ms'", 60, True),
        ("0", "pg_postmaster_start_time() - interval '1 s'", 60, False),
        ("NULL", "NULL", 60, False),
        ("NULL", "NULL", -1, True),
    ],
    ids=[
        "alive",
        "frozen",
        "dead",
        "dead, its pid is another's",
        "Postgres was restarted",
        "of an older version",
        "of an older version, dead",
    ],
)
async def test_a_session_says_whether_its_process_lives(
    settings: Settings, pid: str, began: str, seconds: int, free: bool
) -> None:
    loop = new_id("loop")
    async with taking(settings, "any"):  # the tables are there
        pass
    async with await psycopg.AsyncConnection.connect(
        settings.database_url, autocommit=True
    ) as session:
        until = f"now() + interval '{seconds} s'"
        for sql in (
            f"INSERT INTO leases VALUES ('{loop}', 0, 'holder', {until})",
            "INSERT INTO lease_members (loop, owner, session_pid, session_began, expires_at) "
            f"VALUES ('{loop}', 'holder', {pid}, {began}, {until})",
        ):
            await session.execute(sql.encode())
        async with taking(settings, loop) as heir:
            assert heir.held == ({0} if free else set())


async def test_who_loses_a_session_and_not_its_life_goes_on(settings: Settings) -> None:
    loop = new_id("loop")
    async with taking(settings, loop) as heir:
        await holds(heir)
        async with await psycopg.AsyncConnection.connect(
            settings.database_url, autocommit=True
        ) as other:
            await other.execute(
                "SELECT pg_terminate_backend(session_pid) FROM lease_members WHERE loop = %s",
                (loop,),
            )
        held = "SELECT expires_at FROM leases WHERE loop = %s"
        async with asyncio.timeout(PATIENCE_SECONDS):
            async with await psycopg.AsyncConnection.connect(settings.database_url) as looking:
                before = await (await looking.execute(held, (loop,))).fetchone()
                while await (await looking.execute(held, (loop,))).fetchone() == before:
                    await looking.rollback()
                    await asyncio.sleep(0.05)
        assert heir.held == {0}


async def test_check_ins_that_fall_due_while_the_scheduler_is_killed_expire_once(
    settings: Settings,
) -> None:
    """The killed one goes by the machine's clock, by which nothing is due yet."""
    clock, tenant = SettableClock(), new_id("ten")
    async with loops(settings, clock=clock) as running:
        with RoleProcess(settings, ["scheduler"]) as holder:
            await _held(settings)
            async with firing(settings, running, clock):
                clock.go_on_from(await ask(running, clock, tenant, COUNT, 0.0, steps=1))
                assert await _timers(settings) == COUNT
                holder.process.kill()
                async with asyncio.timeout(PATIENCE_SECONDS):
                    while await _timers(settings):  # noqa: ASYNC110  # Postgres tells nobody
                        await asyncio.sleep(0.05)
    events = [event for _, event in await read_topic(settings, "events", tenant)]
    assert sum(isinstance(event, CheckInExpired) for event in events) == COUNT


async def _held(settings: Settings) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        leased = "leases WHERE loop = 'scheduler'"
        while not await _count(settings, leased):  # noqa: ASYNC110  # Postgres tells nobody
            await asyncio.sleep(0.02)


async def _timers(settings: Settings) -> int:
    return await _count(settings, "timers WHERE stream LIKE 'approvals.check_in/%'")


async def _count(settings: Settings, where: str) -> int:
    async with await psycopg.AsyncConnection.connect(settings.database_url) as looking:
        cursor = await looking.execute(f"SELECT count(*) FROM {where}".encode())
        row = await cursor.fetchone()
    assert row is not None
    return int(row[0])
