"""Rebuilding a Postgres view under load: the same content, nothing lost, differences named."""

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from commands.tenancy.tenant import CreateTenant
from infra.config import Settings
from infra.ids import new_id
from projections import VIEWS
from projections.statements import View
from streams.rebuild import REBUILD_LOCK, REPLACED, CannotRebuild, Difference, Rebuild, Report
from streams.rebuild_view import ViewTables
from streams.runtime import codec
from tests.loops import Loops, loops

TENANTS: View = next(view for view in VIEWS if view.name == "tenants")


class World:
    """Running deciders, and tenants made through them."""

    def __init__(self, running: Loops) -> None:
        self.running, self.settings = running, running.settings
        self.made: list[str] = []

    async def make(self, count: int = 1) -> None:
        async def one() -> None:
            tenant = new_id("ten")
            reply = await self.running.send(tenant, tenant, CreateTenant(f"Acme {tenant}"))
            assert reply.status == "accepted"
            self.made.append(tenant)

        await asyncio.gather(*(one() for _ in range(count)))

    async def rebuild(self, *, switch: bool = True) -> Report:
        return await self.work().run(switch=switch)

    def work(self) -> Rebuild:
        return Rebuild(
            self.settings.kafka_bootstrap_servers,
            self.settings.database_url,
            ViewTables(TENANTS, codec()),
            lambda done, total, note: None,
        )

    async def sql(self, text: str, *params: Any) -> list[dict[str, Any]]:
        async with await psycopg.AsyncConnection.connect(
            self.settings.database_url, row_factory=dict_row, autocommit=True
        ) as connection:
            cursor = await connection.execute(text.encode(), params)
            return await cursor.fetchall() if cursor.description else []

    async def rows(self) -> dict[str, dict[str, Any]]:
        """The live rows of this test's tenants."""
        found = await self.sql(f"SELECT * FROM {TENANTS.table} WHERE tenant = ANY(%s)", self.made)
        return {row["tenant"]: row for row in found}

    async def names(self) -> set[tuple[str, str]]:
        """Schema and name of the view's tables and indexes."""
        rows = await self.sql(
            "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n "
            "ON n.oid = c.relnamespace WHERE c.relname LIKE %s AND c.relkind IN ('r', 'i')",
            f"{TENANTS.table}%",
        )
        return {(row["nspname"], row["relname"]) for row in rows}


@pytest.fixture
async def world(settings: Settings) -> AsyncIterator[World]:
    async with loops(settings) as running:
        yield World(running)


async def test_a_rebuilt_view_is_the_live_one(world: World) -> None:
    await world.make(20)
    before, names = await world.rows(), await world.names()
    report = await world.rebuild()
    assert report.agree and not report.differences
    assert (report.kept, report.aside) == ("rebuilt", "")
    assert report.live.rows == report.rebuilt.rows >= 20
    assert report.events >= 20
    assert await world.rows() == before
    # Its indexes too are named as the deciders will look for them, and nothing is left behind.
    assert await world.names() == names


async def test_the_deciders_go_on_meanwhile_and_nothing_is_lost(world: World) -> None:
    await world.make(10)
    stop = asyncio.Event()

    async def load() -> None:
        while not stop.is_set():
            await world.make(5)

    loading = asyncio.create_task(load())
    reports = [await world.rebuild() for _ in range(4)]
    stop.set()
    await loading
    assert all(report.agree for report in reports)
    counts = [report.live.rows for report in reports]
    assert counts == sorted(counts) and counts[-1] > counts[0]
    await world.make(5)
    assert set(await world.rows()) == set(world.made)
    assert (await world.rebuild()).agree


async def _damage(world: World) -> list[str]:
    """Delete a row, change one and add one, as no decider would; the tenants in this order."""
    await world.make(5)
    gone, changed = sorted(world.made)[:2]
    table = TENANTS.table
    await world.sql(f"DELETE FROM {table} WHERE tenant = %s", gone)
    await world.sql(f"UPDATE {table} SET name = 'Evil' WHERE tenant = %s", changed)
    added = "ten_zzz"
    await world.sql(
        f'INSERT INTO {table} SELECT (jsonb_populate_record(t, \'{{"tenant": "{added}"}}\')).* '
        f"FROM {table} t WHERE tenant = %s",
        changed,
    )
    return [gone, changed, added]


async def test_what_differs_is_named_and_the_fold_of_the_log_is_kept(world: World) -> None:
    gone, changed, added = await _damage(world)
    report = await world.rebuild()
    assert not report.agree
    assert list(report.differences) == [
        Difference({"tenant": gone}, "only in the rebuilt table", []),
        Difference({"tenant": changed}, "differs", ["name"]),
        Difference({"tenant": added}, "only in the live table", []),
    ]
    assert (report.kept, report.aside) == ("rebuilt", f"{REPLACED}.{TENANTS.table}")
    rows = await world.rows()
    assert set(rows) == set(world.made)
    assert rows[changed]["name"] == f"Acme {changed}"
    aside = await world.sql(f"SELECT tenant FROM {report.aside} WHERE tenant = %s", added)
    assert len(aside) == 1
    assert (await world.rebuild()).agree


async def test_a_check_changes_nothing(world: World) -> None:
    _, changed, _ = await _damage(world)
    names = await world.names()
    report = await world.rebuild(switch=False)
    assert not report.agree and len(report.differences) == 3
    assert (report.kept, report.aside) == ("live", "")
    assert (await world.rows())[changed]["name"] == "Evil"
    assert await world.names() == names


async def test_two_rebuilds_at_once_are_refused(world: World) -> None:
    await world.make(2)
    async with await psycopg.AsyncConnection.connect(
        world.settings.database_url, autocommit=True
    ) as other:
        await other.execute("SELECT pg_advisory_lock(%s)", (REBUILD_LOCK,))
        with pytest.raises(CannotRebuild, match="another rebuild"):
            await world.rebuild()
    assert (await world.rebuild()).agree


async def test_a_table_that_is_not_there_yet_is_told(settings: Settings) -> None:
    tables = ViewTables(TENANTS, codec())
    work = Rebuild(settings.kafka_bootstrap_servers, settings.database_url, tables, print)
    with pytest.raises(CannotRebuild, match="there is no table tenants_v"):
        await work.run()


async def test_a_long_reader_delays_the_switch_and_no_one_else(world: World) -> None:
    await world.make(3)
    async with await psycopg.AsyncConnection.connect(world.settings.database_url) as reader:
        await reader.execute(f"SELECT * FROM {TENANTS.table}".encode())
        rebuilding = asyncio.create_task(world.rebuild())
        # The switch runs into the reader's lock; meanwhile commands are decided as ever.
        await _until_it_waits(world)
        await world.make(3)
        assert not rebuilding.done()
        await reader.commit()
        report = await rebuilding
    assert report.agree
    assert set(await world.rows()) == set(world.made)


async def _until_it_waits(world: World) -> None:
    waiting = "SELECT 1 FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'"
    while True:
        if await world.sql(waiting):
            return
        await asyncio.sleep(0.01)


DIE_HALFWAY = """
import asyncio, os, signal, sys
from infra.config import load_settings
from projections import VIEWS
from streams.rebuild import Rebuild
from streams.rebuild_view import ViewTables
from streams.runtime import codec

settings = load_settings()
view = next(view for view in VIEWS if view.name == "tenants")
work = Rebuild(
    settings.kafka_bootstrap_servers, settings.database_url, ViewTables(view, codec()),
    lambda *_: os.kill(os.getpid(), signal.SIGKILL),
)
asyncio.run(work.run())
"""


async def run_command(settings: Settings, *command: str) -> "subprocess.CompletedProcess[str]":
    environment = {**settings.to_env(), "PYTHONPATH": "."}
    return await asyncio.to_thread(
        subprocess.run, command, env=environment, capture_output=True, text=True, check=False
    )


async def test_a_killed_rebuild_leaves_the_live_table_and_runs_again(world: World) -> None:
    await world.make(5)
    before = await world.rows()
    killed = await run_command(world.settings, sys.executable, "-c", DIE_HALFWAY)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert await world.rows() == before
    async with asyncio.timeout(30):
        while True:  # the server notices that the killed one's connection is gone
            with contextlib.suppress(CannotRebuild):
                report = await world.rebuild()
                break
    assert report.agree


async def test_the_command_tells_what_it_did(world: World) -> None:
    await world.make(3)
    command = (sys.executable, "-m", "infra.cli", "rebuild", "tenants")
    done = await run_command(world.settings, *command)
    assert done.returncode == 0, done.stderr
    assert "tenants: the rebuilt table agrees with the live one" in done.stdout
    await _damage(world)
    checked = await run_command(world.settings, *command, "--check")
    assert checked.returncode == 1
    assert "3 differences" in checked.stdout and "the live table was kept" in checked.stdout
    switched = await run_command(world.settings, *command)
    assert switched.returncode == 1
    assert "the rebuilt table is live now" in switched.stdout
    assert f"{REPLACED}.{TENANTS.table}" in switched.stdout
    again = await run_command(world.settings, *command)
    assert again.returncode == 0
    unknown = await run_command(world.settings, *command[:-1], "nothing")
    assert unknown.returncode == 2
    assert "there is no view 'nothing'" in unknown.stderr
