"""From an acknowledged report to exact counts in ClickHouse, whatever happens in between."""

import asyncio

from infra.config import Settings
from infra.kafka import Record
from projections.observability.llm_calls import LLM_CALLS
from schemas.envelope import Envelope, Position, to_headers
from streams.analytics import Limits
from tests.integration.analytics_rig import (
    KEY,
    SIGNER,
    Rig,
    call,
    calls,
    completed,
    dead_letters,
    rig_on,
    started,
)


async def record_calls(rig: Rig, run_id: str, count: int = 4) -> Position:
    origin = rig.origin()
    return await rig.report(run_id, calls(*(call(origin, i) for i in range(count))), origin=origin)


async def test_reports_become_rows_once_their_position_is_reached(settings: Settings) -> None:
    async with rig_on(settings) as rig, rig.running(rig.loop()):
        run_id = await rig.start_run("support-bot")
        position = await record_calls(rig, run_id)
        assert await rig.clickhouse.reached(position, timeout=30)
        assert await rig.totals() == {"calls": 4, "tokens": 480, "cost_pico": 4 * 1_175_000_000}


async def test_a_position_beyond_the_log_is_not_reached(settings: Settings) -> None:
    async with rig_on(settings) as rig, rig.running(rig.loop()):
        position = await record_calls(rig, await rig.start_run())
        later = Position(position.topic, position.partition, position.offset + 1_000_000)
        assert not await rig.clickhouse.reached(later, timeout=0.2)


async def test_a_process_without_the_loop_asks_the_table_of_positions(settings: Settings) -> None:
    async with rig_on(settings) as rig:
        async with rig.running(rig.loop()):
            position = await record_calls(rig, await rig.start_run())
            assert await rig.clickhouse.reached(position, timeout=30)
        rig.clickhouse.advance({(position.topic, position.partition): 0})
        assert await rig.clickhouse.reached(position, timeout=5)


async def test_a_repeated_report_counts_once(settings: Settings) -> None:
    async with rig_on(settings) as rig, rig.running(rig.loop()):
        run_id = await rig.start_run()
        origin = rig.origin()
        event = calls(call(origin, 0), call(origin, 1, id="mine"))
        for _ in range(3):
            position = await rig.report(run_id, event, origin=origin)
        assert await rig.clickhouse.reached(position, timeout=30)
        assert await rig.totals() == {"calls": 2, "tokens": 240, "cost_pico": 2 * 1_175_000_000}


async def test_a_restarted_loop_goes_on_where_the_tables_are(settings: Settings) -> None:
    async with rig_on(settings) as rig:
        run_id = await rig.start_run()
        for _ in range(3):
            async with rig.running(rig.loop()):
                position = await record_calls(rig, run_id)
                assert await rig.clickhouse.reached(position, timeout=30)
        stored = await rig.clickhouse.query(
            f"SELECT count() AS n, uniqExact(_offset, _index) AS places FROM {LLM_CALLS.table}"
            " WHERE tenant = {t:String} SETTINGS final = 0",
            {"t": rig.tenant},
        )
        assert stored == [{"n": 12, "places": 12}]


async def test_rows_without_a_stored_position_are_not_inserted_again(settings: Settings) -> None:
    """As after a crash between the tables and their positions."""
    async with rig_on(settings) as rig:
        async with rig.running(rig.loop()):
            position = await record_calls(rig, await rig.start_run())
            assert await rig.clickhouse.reached(position, timeout=30)
        await rig.clickhouse.command("TRUNCATE TABLE log_positions")
        async with rig.running(rig.loop()):
            position = await record_calls(rig, await rig.start_run())
            assert await rig.clickhouse.reached(position, timeout=30)
        stored = await rig.clickhouse.query(
            f"SELECT count() AS n FROM {LLM_CALLS.table}"
            " WHERE tenant = {t:String} SETTINGS final = 0",
            {"t": rig.tenant},
        )
        assert stored == [{"n": 8}]


async def test_a_record_nobody_can_read_is_put_aside_and_the_loop_lives_on(
    settings: Settings,
) -> None:
    async with rig_on(settings) as rig, rig.running(rig.loop()) as loop:
        run_id = SIGNER.run_id(rig.tenant)
        envelope = Envelope(
            id="evt_1",
            type="observability.llm_calls_recorded.v1",
            tenant=rig.tenant,
            stream=f"observability.run/{run_id}",
            version=0,
            time=1,
            actor=KEY,
        )
        poison = [
            Record(run_id.encode(), b"\x00\x00\x00\xff\xff garbage", to_headers(envelope)),
            Record(run_id.encode(), None, to_headers(envelope)),
            Record(run_id.encode(), b"no headers", []),
        ]
        written = await rig.log.append("telemetry", poison)
        position = await record_calls(rig, run_id)
        assert await rig.clickhouse.reached(position, timeout=30)
        assert (await rig.totals())["calls"] == 4
        assert loop.flusher.dead_letters_written >= 3
        letters = await dead_letters(settings)
        assert {str(place) for place in written} <= set(letters)
        assert all(letters.values())


async def test_many_small_flushes_add_up(settings: Settings) -> None:
    async with rig_on(settings) as rig:
        small = Limits(age_seconds=0.01, rows=7, bytes=1000, pending_bytes=2000)
        runs = [await rig.start_run(f"agent-{n % 3}") for n in range(10)]
        async with rig.running(rig.loop(small)) as loop:
            for _ in range(4):
                positions = await asyncio.gather(*(record_calls(rig, run, 5) for run in runs))
                for position in positions:
                    assert await rig.clickhouse.reached(position, timeout=30)
            assert loop.flusher.flushes >= 4
        assert (await rig.totals())["calls"] == 200


async def test_start_and_completion_come_in_any_order(settings: Settings) -> None:
    async with rig_on(settings) as rig, rig.running(rig.loop()):
        early, late = SIGNER.run_id(rig.tenant), SIGNER.run_id(rig.tenant)
        await rig.report(early, completed("error"))
        await rig.report(early, started("a"))
        await rig.report(late, started("b"))
        position = await rig.report(late, completed("error"))
        other = await rig.report(early, completed("success"))
        for place in (position, other):
            assert await rig.clickhouse.reached(place, timeout=30)
        rows = await rig.clickhouse.query(
            "SELECT agent_name, status FROM run_starts_v4 JOIN run_completions_v4"
            " USING (tenant, run_id) WHERE tenant = {t:String} ORDER BY agent_name",
            {"t": rig.tenant},
        )
        assert rows == [
            {"agent_name": "a", "status": "error"},
            {"agent_name": "b", "status": "error"},
        ]
