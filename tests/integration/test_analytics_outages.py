"""The analytics loop when what it stands on goes away, answers late, or has two owners."""

import asyncio
import contextlib
from typing import Any

import pytest
from msgspec import structs

from infra.clickhouse import AnalyticsUnavailable, ClickHouse
from infra.config import Settings
from infra.embedded.stack import Stack
from infra.ids import new_id
from infra.leases import Leases
from infra.roles import find_role
from projections import CLICKHOUSE_VIEWS
from projections.clickhouse import tables_by_topic
from projections.observability.llm_calls import LLM_CALLS
from schemas.envelope import Position
from streams.analytics import Limits, LogTruncated
from tests.integration.analytics_rig import Rig, call, calls, dead_letters, rig_on

QUICK = Limits(age_seconds=0.02)


class Unsteady(ClickHouse):
    """Fails every third insert: before it is done, or after (the answer is lost)."""

    def __init__(self, url: str) -> None:
        super().__init__(url, tables=tables_by_topic(CLICKHOUSE_VIEWS))
        self.inserts = 0

    async def insert(self, table: str, *args: Any, **named: Any) -> None:
        self.inserts += 1
        if self.inserts % 6 == 3:
            raise AnalyticsUnavailable("the connection was lost before")
        await super().insert(table, *args, **named)
        if self.inserts % 6 == 0:
            raise AnalyticsUnavailable("the connection was lost after")


async def report(rig: Rig, runs: int = 5) -> list[Position]:
    """Report runs of three calls each; the last position of each partition."""
    last: dict[int, Position] = {}
    for _ in range(runs):
        run_id, origin = await rig.start_run(), rig.origin()
        event = calls(*(call(origin, n) for n in range(3)))
        position = await rig.report(run_id, event, origin=origin)
        last[position.partition] = position
    return list(last.values())


async def physical_rows(rig: Rig) -> int:
    rows = await rig.clickhouse.query(
        f"SELECT count() AS n FROM {LLM_CALLS.table}"
        " WHERE tenant = {t:String} SETTINGS final = 0",
        {"t": rig.tenant},
    )
    return int(rows[0]["n"])


async def test_lost_connections_to_clickhouse_lose_and_double_nothing(settings: Settings) -> None:
    async with rig_on(settings) as rig:
        unsteady = Unsteady(settings.clickhouse_url)
        steady, rig.clickhouse = rig.clickhouse, unsteady
        try:
            async with rig.running(rig.loop(QUICK)):
                for _ in range(8):
                    for position in await report(rig):
                        assert await rig.clickhouse.reached(position, timeout=60)
            assert unsteady.inserts > 12
            assert (await rig.totals())["calls"] == 8 * 5 * 3
            assert await physical_rows(rig) == 8 * 5 * 3
        finally:
            rig.clickhouse = steady
            await unsteady.stop()


async def test_a_killed_broker_is_waited_for(settings: Settings, stack: Stack) -> None:
    async with rig_on(settings) as rig, rig.running(rig.loop(QUICK)) as loop:
        for position in await report(rig):
            assert await rig.clickhouse.reached(position, timeout=60)
        stack.kill("kafka")
        await asyncio.to_thread(stack.wait_ready, "kafka", 60)
        for position in await report(rig):
            assert await rig.clickhouse.reached(position, timeout=60)
        assert (await rig.totals())["calls"] == 2 * 5 * 3
        assert await physical_rows(rig) == 2 * 5 * 3
        assert loop.ready


async def test_two_processes_share_the_partitions_and_one_takes_over(settings: Settings) -> None:
    """Two loops with an engine handle each, on one engine: as two processes on one server."""
    async with rig_on(settings) as rig:
        second = ClickHouse(settings.clickhouse_url, tables=rig.clickhouse.tables)
        leases = [
            Leases(settings.database_url, "analytics", settings.partitions, new_id("test"))
            for _ in range(2)
        ]
        try:
            async with contextlib.AsyncExitStack() as running:
                for lease in leases:
                    await lease.start()
                first_loop = rig.loop(QUICK, leases=leases[0])
                steady, rig.clickhouse = rig.clickhouse, second
                second_loop = rig.loop(QUICK, leases=leases[1])
                rig.clickhouse = steady
                await running.enter_async_context(rig.running(second_loop))
                async with rig.running(first_loop):
                    for lease in leases:
                        await holds(lease, settings.partitions // 2)
                    for position in await report(rig, 12):
                        assert await rig.clickhouse.reached(position, timeout=60)
                await leases[0].stop()
                await holds(leases[1], settings.partitions)
                for position in await report(rig, 12):
                    assert await second.reached(position, timeout=60)
                assert (await rig.totals())["calls"] == 24 * 3
                assert await physical_rows(rig) == 24 * 3
        finally:
            for lease in leases:
                await lease.stop()
            await second.stop()


async def holds(lease: Leases, partitions: int) -> None:
    """Wait until it holds so many."""
    async with asyncio.timeout(60), lease.changed:
        await lease.changed.wait_for(lambda: len(lease.held) == partitions)


async def test_tables_ahead_of_the_log_are_told_not_papered_over(
    settings: Settings,
) -> None:
    """Another log, or one that lost its end: new records would be taken for old ones."""
    async with rig_on(settings) as rig:
        rows = [(view.topic, 0, view.table, 10**9) for view in CLICKHOUSE_VIEWS]
        await rig.clickhouse.insert(
            "log_positions",
            ("topic", "partition", "view", "next_offset"),
            ("LowCardinality(String)", "UInt32", "LowCardinality(String)", "UInt64"),
            list(zip(*rows, strict=True)),
            token="ahead",
        )
        loop = rig.loop(QUICK)
        with pytest.raises(LogTruncated, match="the tables are at 1000000000"):
            await loop._fill()
        assert not loop.ready


async def test_rows_that_clickhouse_never_takes_are_cut_out(settings: Settings) -> None:
    narrow = structs.replace(
        LLM_CALLS, name="narrow", columns={**LLM_CALLS.columns, "tokens_in": "Int8"}
    )
    async with rig_on(settings) as rig:
        rig.clickhouse.tables = tables_by_topic([narrow])
        run_id = await rig.start_run()
        lies: dict[int, str] = {}
        for tokens in (1, 127, 128, 5, 1000, 7):
            origin = rig.origin()
            event = calls(call(origin, 0, tokens_in=tokens))
            position = await rig.report(run_id, event, origin=origin)
            lies[tokens] = str(position)
        async with rig.running(rig.loop(QUICK, views=[narrow])):
            assert await rig.clickhouse.reached(position, timeout=60)
            rows = await rig.clickhouse.query(
                f"SELECT tokens_in FROM {narrow.table}"
                " WHERE tenant = {t:String} ORDER BY _offset",
                {"t": rig.tenant},
            )
            assert [row["tokens_in"] for row in rows] == [1, 127, 5, 7]
        letters = await dead_letters(settings)
        refused = [at for at, reason in letters.items() if reason.startswith(narrow.table)]
        assert {lies[128], lies[1000]} <= set(refused)
        assert not {lies[tokens] for tokens in (1, 127, 5, 7)} & set(refused)


async def test_a_view_that_is_new_is_filled_from_the_start(settings: Settings) -> None:
    async with rig_on(settings) as rig:
        run_id, origin = await rig.start_run(), rig.origin()
        async with rig.running(rig.loop(QUICK)):
            position = await rig.report(run_id, calls(call(origin, 0)), origin=origin)
            assert await rig.clickhouse.reached(position, timeout=60)
        newer = structs.replace(LLM_CALLS, version=99)
        views = [*CLICKHOUSE_VIEWS, newer]
        rig.clickhouse.tables = tables_by_topic(views)
        async with rig.running(rig.loop(QUICK, views=views)):
            assert await rig.clickhouse.reached(position, timeout=60)
            rows = await rig.clickhouse.query(
                f"SELECT count() AS n FROM {newer.table} WHERE tenant = {{t:String}}",
                {"t": rig.tenant},
            )
            assert rows == [{"n": 1}]
        assert await physical_rows(rig) == 1


async def test_the_role_serves_and_stops(settings: Settings) -> None:
    async with rig_on(settings) as rig:
        stop, ready = asyncio.Event(), asyncio.Event()
        serve = find_role("analytics")
        role = asyncio.ensure_future(serve(settings, stop, ready.set))
        async with asyncio.timeout(60):
            await ready.wait()
        for position in await report(rig):
            assert await rig.clickhouse.reached(position, timeout=60)
        stop.set()
        async with asyncio.timeout(30):
            await role
        assert (await rig.totals())["calls"] == 15
