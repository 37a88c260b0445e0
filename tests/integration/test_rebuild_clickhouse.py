"""Rebuilding a ClickHouse view while the analytics loop fills it."""

import asyncio
import subprocess
import sys
from typing import Any

from infra.config import Settings
from projections.clickhouse import ClickHouseView
from projections.observability import LLM_CALLS
from projections.observability.scores import SCORES
from schemas import EVENTS
from schemas.codec import Codec, load_schemas
from schemas.observability.run import Score, ScoresRecorded
from streams.rebuild_clickhouse import ClickHouseRebuild
from streams.rebuild_report import Report
from tests.integration.analytics_rig import Rig, call, calls, rig_on


def rebuild_of(rig: Rig, view: ClickHouseView) -> ClickHouseRebuild:
    return ClickHouseRebuild(
        rig.settings.kafka_bootstrap_servers,
        rig.clickhouse,
        view,
        Codec(EVENTS, load_schemas()),
        lambda done, total, note: None,
        person_keys=rig.person_keys,
    )


async def rebuild(rig: Rig, view: ClickHouseView = LLM_CALLS, *, switch: bool = True) -> Report:
    return await rebuild_of(rig, view).run(switch=switch)


async def record(rig: Rig, count: int = 4, **fields: Any) -> None:
    """A run with so many calls, readable when this returns."""
    run_id, origin = await rig.start_run(), rig.origin()
    event = calls(*(call(origin, index, **fields) for index in range(count)))
    position = await rig.report(run_id, event, origin=origin)
    assert await rig.clickhouse.reached(position, timeout=30)


async def mutate(rig: Rig, statement: str) -> None:
    await rig.clickhouse.command(f"ALTER TABLE {LLM_CALLS.table} {statement}")


async def tables(rig: Rig) -> set[str]:
    rows = await rig.clickhouse.query(
        "SELECT name FROM system.tables WHERE database = currentDatabase()"
    )
    return {row["name"] for row in rows}


async def test_a_rebuilt_view_is_the_live_one(settings: Settings) -> None:
    async with rig_on(settings) as rig, rig.running(rig.loop()):
        for _ in range(5):
            await record(rig)
        before, names = await rig.totals(), await tables(rig)
        report = await rebuild(rig)
        assert report.agree and not report.differences
        assert report.live.rows >= 20
        assert (report.kept, report.aside) == ("rebuilt", "")
        assert await rig.totals() == before
        assert await tables(rig) == names
        await record(rig)
        assert (await rig.totals())["calls"] == before["calls"] + 4


async def test_the_loop_goes_on_meanwhile_and_nothing_is_lost_or_doubled(
    settings: Settings,
) -> None:
    async with rig_on(settings) as rig, rig.running(rig.loop()):
        await record(rig)
        stop, recorded = asyncio.Event(), 1

        async def load() -> None:
            nonlocal recorded
            while not stop.is_set():
                await record(rig)
                recorded += 1

        loading = asyncio.create_task(load())
        reports = [await rebuild(rig) for _ in range(4)]
        stop.set()
        await loading
        assert all(report.agree for report in reports)
        assert (await rig.totals())["calls"] == 4 * recorded
        assert (await rebuild(rig)).agree
        assert (await rig.totals())["calls"] == 4 * recorded


async def test_what_is_reported_twice_counts_once_in_both(settings: Settings) -> None:
    async with rig_on(settings) as rig, rig.running(rig.loop()):
        run_id, origin = await rig.start_run(), rig.origin()
        for tokens in (10, 20, 30):
            event = calls(call(origin, 0, id="mine", tokens_in=tokens))
            position = await rig.report(run_id, event, origin=origin)
        assert await rig.clickhouse.reached(position, timeout=30)
        before = await rig.totals()
        assert before["calls"] == 1
        assert (await rebuild(rig)).agree
        assert await rig.totals() == before


async def _damage(rig: Rig) -> None:
    await record(rig, 6)
    ids = await rig.clickhouse.query(
        f"SELECT id FROM {LLM_CALLS.table} WHERE tenant = {{tenant:String}} ORDER BY id",
        {"tenant": rig.tenant},
    )
    gone, changed = ids[0]["id"], ids[1]["id"]
    await mutate(rig, f"DELETE WHERE id = '{gone}' SETTINGS mutations_sync = 2")
    await mutate(rig, f"UPDATE tokens_in = 1 WHERE id = '{changed}' SETTINGS mutations_sync = 2")
    columns = ", ".join(LLM_CALLS.stored)
    forged = columns.replace("id,", "'forged',", 2).replace("run_'forged',", "run_id,")
    await rig.clickhouse.command(
        f"INSERT INTO {LLM_CALLS.table} ({columns}) SELECT {forged} FROM {LLM_CALLS.table} "
        f"WHERE id = '{changed}'"
    )


async def test_what_differs_is_named_and_the_fold_of_the_log_is_kept(settings: Settings) -> None:
    async with rig_on(settings) as rig, rig.running(rig.loop()):
        await record(rig)
        await _damage(rig)
        checked = await rebuild(rig, switch=False)
        assert not checked.agree
        assert (checked.kept, checked.aside) == ("live", "")
        found = {(item.kind, tuple(item.columns)) for item in checked.differences}
        assert found == {
            ("only in the rebuilt table", ()),
            ("differs", ("tokens_in",)),
            ("only in the live table", ()),
        }
        assert all(item.key["tenant"] == rig.tenant for item in checked.differences)
        switched = await rebuild(rig)
        assert not switched.agree
        assert (switched.kept, switched.aside) == ("rebuilt", f"{LLM_CALLS.table}_replaced")
        assert switched.aside in await tables(rig)
        assert (await rig.totals())["calls"] == 10
        assert (await rebuild(rig)).agree
        assert switched.aside not in await tables(rig)


async def test_rows_with_nothing_in_a_column_are_compared_too(settings: Settings) -> None:
    async with rig_on(settings) as rig, rig.running(rig.loop()):
        run_id = await rig.start_run()
        score = Score(id="s1", name="quality", data_type="numeric", numeric_value=None)
        position = await rig.report(run_id, ScoresRecorded(scores=[score]))
        assert await rig.clickhouse.reached(position, timeout=30)
        assert (await rebuild(rig, SCORES)).agree
        await rig.clickhouse.command(
            f"ALTER TABLE {SCORES.table} UPDATE comment = 'changed' WHERE id = 's1' "
            "SETTINGS mutations_sync = 2"
        )
        report = await rebuild(rig, SCORES)
        assert [(item.kind, item.columns) for item in report.differences] == [
            ("differs", ["comment"])
        ]


async def _command(settings: Settings) -> "subprocess.CompletedProcess[str]":
    environment = {**settings.to_env(), "PYTHONPATH": "."}
    command = (sys.executable, "-m", "infra.cli", "rebuild", "llm_calls")
    return await asyncio.to_thread(
        subprocess.run, command, env=environment, capture_output=True, text=True, check=False
    )


async def test_the_command_needs_the_engine_inside_a_process_for_itself(
    settings: Settings,
) -> None:
    async with rig_on(settings) as rig, rig.running(rig.loop()):
        await record(rig)
        refused = await _command(settings)
        assert refused.returncode == 1
        assert "stop that one (`weir up`), then rebuild" in refused.stderr
        assert len(refused.stderr.splitlines()) == 1
        assert (await rig.totals())["calls"] == 4
    done = await _command(settings)
    assert done.returncode == 0, done.stderr
    assert "llm_calls: the rebuilt table agrees with the live one" in done.stdout
