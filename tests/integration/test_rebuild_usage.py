"""Rebuilding the usage tables from the log, while the processor counts and while it does not."""

import asyncio
import random
import sys
from typing import Any

import pytest

from commands.billing.budget import budget_id
from infra.config import Settings
from infra.ids import new_id
from projections.billing.usage_windows import (
    ALERTS,
    BUDGETS,
    BY_AGENT,
    CALLS,
    OFFSETS,
    RUNS,
    UNNAMED,
    WINDOWS,
)
from schemas.billing.budget import BudgetReached
from streams.billing.usage_tables import UsageTables
from streams.rebuild import REBUILT, REPLACED
from streams.rebuild_report import CannotRebuild, Difference, Report
from streams.rebuilding import find_view, rebuild_view
from streams.runtime import codec
from tests.integration.test_rebuild import run_command
from tests.integration.test_usage_kill import a_group, alerts_are_exact, child, set_budgets
from tests.integration.usage_rig import UsageRig, usage_rig
from tests.loops import read_topic

WEIR = (sys.executable, "-m", "infra.cli")
TABLES = (WINDOWS, BUDGETS, CALLS, BY_AGENT, RUNS, UNNAMED, OFFSETS)


def seeded() -> random.Random:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    return random.Random(seed)


async def rebuild(rig: UsageRig, *, switch: bool = True) -> Report:
    return await rebuild_view(
        rig.settings, find_view("usage_windows"), lambda done, total, note: None, switch=switch
    )


async def content(rig: UsageRig, *tables: str) -> dict[str, Any]:
    return {table: await rig.rows(f"SELECT * FROM {table} ORDER BY 1, 2, 3") for table in tables}


async def relations(rig: UsageRig) -> set[tuple[str, str]]:
    """Schema and name of the tables and indexes of usage metering."""
    found = await rig.rows(
        "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE c.relname LIKE %s AND c.relkind IN ('r', 'i')",
        "usage\\_%",
    )
    return {(row["nspname"], row["relname"]) for row in found}


async def marks(rig: UsageRig) -> list[str]:
    """The ids of the commands by which alerts of the test's tenant were sent."""
    commands = await read_topic(rig.settings, "commands", rig.tenant)
    return [
        headers["ce_id"] for headers, _ in commands if "mark_budget_reached" in headers["ce_type"]
    ]


async def alerts(rig: UsageRig) -> int:
    """How many the test's tenant has had."""
    return len(await rig.rows(f"SELECT 1 FROM {ALERTS} WHERE tenant = %s", rig.tenant))


async def counted(rig: UsageRig, dice: random.Random, count: int = 120) -> None:
    """Usage of budgets beyond all their shares, counted."""
    await set_budgets(rig)
    await rig.load(dice, count)
    await rig.catch_up()
    await rig.until_counted()


async def damage(rig: UsageRig) -> list[Difference]:
    """Change, delete and add rows, as no processor would; what a rebuild should say of them."""
    rows = await rig.rows(
        f"UPDATE {WINDOWS} SET quantity = quantity - 1 WHERE tenant = %s AND meter = 'llm.calls' "
        "AND window_kind = 'month' RETURNING tenant, meter, window_kind, window_start",
        rig.tenant,
    )
    changed = Difference(rows[0], "differs", ["quantity"], WINDOWS)
    rows = await rig.rows(
        f"UPDATE {BUDGETS} SET tenant = %s WHERE tenant = %s AND meter = 'llm.calls' "
        "RETURNING tenant, budget_id",
        f"{rig.tenant}_other",
        rig.tenant,
    )
    added = Difference(rows[0], "only in the live table", [], BUDGETS)
    missed = Difference(
        {"tenant": rig.tenant, "budget_id": budget_id("llm.calls", "month")},
        "only in the rebuilt table",
        [],
        BUDGETS,
    )
    rows = await rig.rows(
        f"DELETE FROM {CALLS} WHERE ctid = (SELECT ctid FROM {CALLS} WHERE tenant = %s LIMIT 1) "
        "RETURNING tenant, run_id, record_offset",
        rig.tenant,
    )
    gone = Difference(rows[0], "only in the rebuilt table", [], CALLS)
    return [changed, missed, added, gone]


async def test_rebuilt_usage_is_the_live_one_and_no_alert_is_sent_again(settings: Settings) -> None:
    dice = seeded()
    async with usage_rig(settings) as rig:
        await counted(rig, dice)
        before, names = await content(rig, *TABLES, ALERTS), await relations(rig)
        sent = await marks(rig)
        report = await rebuild(rig)
        assert report.agree and not report.differences
        assert (report.view, report.kept, report.aside) == ("usage_windows", "rebuilt", "")
        assert report.live.rows == sum(len(before[table]) for table in TABLES)
        assert await content(rig, *TABLES, ALERTS) == before
        assert await relations(rig) == names
        # The processor goes on where it was: nothing is counted, set off or sent once more.
        # (That budgets were reached is on the log meanwhile, so the offsets move.)
        await rig.catch_up()
        after = await content(rig, WINDOWS, BUDGETS, CALLS, ALERTS)
        assert after.items() <= before.items()
        assert await marks(rig) == sent
        await rig.load(dice, 20)
        await rig.catch_up()
        await rig.until_counted()
        await alerts_are_exact(rig)


async def test_what_differs_is_named_and_the_fold_of_the_log_is_kept(settings: Settings) -> None:
    dice = seeded()
    async with usage_rig(settings) as rig:
        await counted(rig, dice)
        before, sent = await content(rig, *TABLES, ALERTS), await marks(rig)
        expected = await damage(rig)
        damaged = await content(rig, *TABLES)
        checked = await rebuild(rig, switch=False)
        assert not checked.agree
        assert list(checked.differences) == expected
        assert (checked.kept, checked.aside) == ("live", "")
        assert await content(rig, *TABLES) == damaged
        report = await rebuild(rig)
        assert list(report.differences) == expected
        assert report.kept == "rebuilt"
        assert report.aside == ", ".join(f"{REPLACED}.{table}" for table in TABLES)
        assert await content(rig, *TABLES, ALERTS) == before
        aside = await content(rig, *(f"{REPLACED}.{table}" for table in TABLES))
        assert list(aside.values()) == list(damaged.values())
        assert not {name for schema, name in await relations(rig) if schema == REBUILT}
        assert (await rebuild(rig)).agree
        await rig.catch_up()
        await rig.until_counted()
        assert await marks(rig) == sent


async def test_a_total_that_was_too_low_sets_off_what_it_has_reached_with_the_next_usage(
    settings: Settings,
) -> None:
    dice = seeded()
    async with usage_rig(settings) as rig:
        await rig.load(dice, 120)
        await rig.catch_up()
        await rig.rows(
            f"UPDATE {WINDOWS} SET quantity = 0 WHERE tenant = %s RETURNING 1", rig.tenant
        )
        await set_budgets(rig)
        await rig.catch_up()
        assert await alerts(rig) == 0
        assert not (await rebuild(rig)).agree
        assert await alerts(rig) == 0
        await rig.load(dice, 20)
        await rig.catch_up()
        await rig.until_counted()
        await alerts_are_exact(rig)


async def test_the_processors_go_on_meanwhile_and_count_exactly(settings: Settings) -> None:
    dice = seeded()
    group = a_group()
    async with (
        usage_rig(settings) as rig,
        child(settings, group) as one,
        child(settings, group) as other,
    ):
        await set_budgets(rig)
        await rig.load(dice, 20)
        await rig.until_counted()
        done = asyncio.Event()

        async def load() -> None:
            while not done.is_set():
                await rig.load(dice, 20)

        loading = asyncio.create_task(load())
        reports = [await rebuild(rig) for _ in range(4)]
        done.set()
        await loading
        assert all(report.agree for report in reports), reports
        assert reports[-1].events > reports[0].events
        await rig.load(dice, 120)
        await rig.until_counted(timeout=120)
        await alerts_are_exact(rig)
        # They were held, never stopped.
        assert (one.returncode, other.returncode) == (None, None)
        events = [event for _, event in await read_topic(settings, "billing", rig.tenant)]
        assert any(isinstance(event, BudgetReached) for event in events)


async def test_without_the_log_s_beginning_nothing_is_replaced() -> None:
    tables = UsageTables(codec())
    tables.check({("billing", 0): 0, ("telemetry", 0): 0})
    with pytest.raises(CannotRebuild, match="telemetry:1 begins at 7"):
        tables.check({("billing", 0): 0, ("telemetry", 1): 7})


async def test_tables_that_are_not_there_yet_are_told(settings: Settings) -> None:
    with pytest.raises(CannotRebuild, match="there is no table usage_windows_v"):
        await rebuild_view(settings, find_view("usage_windows"), lambda *_: None)


async def test_the_command_names_what_differs(settings: Settings) -> None:
    async with usage_rig(settings) as rig:
        await rig.use("pages", 5, new_id("usg"))
        await rig.catch_up()
        agreed = await run_command(settings, *WEIR, "rebuild", "usage_windows")
        assert agreed.returncode == 0, agreed.stderr
        assert "usage_windows: the rebuilt table agrees with the live one" in agreed.stdout
        more = f"UPDATE {WINDOWS} SET quantity = 6 WHERE tenant = %s RETURNING 1"
        await rig.rows(more, rig.tenant)
        checked = await run_command(settings, *WEIR, "rebuild", "usage_windows", "--check")
        assert checked.returncode == 1
        assert f"{WINDOWS} tenant={rig.tenant} meter=pages window_kind=day" in checked.stdout
        assert "differs quantity" in checked.stdout
