"""Everything is killed at random under load, and nothing acknowledged is lost or counted twice.

A minute in the ordinary run; `make chaos MINUTES= SEED=` for longer. The seed and the schedule are
printed: the same seed chooses the same kills (their moments meet the load as they happen to).
"""

import asyncio
import dataclasses
import json
import os
import random
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from infra.bootstrap import find_provision, prepare
from infra.config import Settings
from infra.embedded.stack import DEFAULT_ROLES, Stack
from projections.approvals.check_ins import CHECK_INS
from projections.approvals.tasks import TASKS
from projections.approvals.watchers import WATCHERS
from projections.prompts.prompt_labels import PROMPT_LABELS
from projections.prompts.prompt_versions import PROMPT_VERSIONS
from projections.statements import View
from tests.chaos import oracle
from tests.chaos.clients import Told
from tests.chaos.kills import Kills
from tests.chaos.load import Load
from tests.chaos.rare import UNKEYED
from tests.integration.webhook_rig import OUR_NETWORK, Receiver
from tests.loops import deciding

TOPICS = ("events", "audit", "billing", "outcomes", "telemetry")
MINUTES = float(os.environ.get("CHAOS_MINUTES", "1"))
# Longer than the watchdog of the processor gives a group that lost its member unawares.
METERED_SECONDS = 240.0
SEED = int(os.environ.get("CHAOS_SEED") or random.SystemRandom().randrange(2**31))


async def load_under_kills(stack: Stack, seed: int, receiver: Receiver) -> tuple[Told, Any]:
    """Load and kills until the time is up, then until every client has its answer."""
    credentials = await find_provision()(stack.settings, None)
    told = Told(secret=f"zqx-{seed}-told-of-persons")
    load = Load(credentials, seed, told, receiver)
    await load.prepare()
    kills = Kills(stack, seed, MINUTES * 60)
    working = asyncio.create_task(load.run())
    kills.start()
    try:
        await asyncio.to_thread(kills.join)
        load.stop()
        await working
    finally:
        print(f"chaos: seed {seed}; killed {'; '.join(kills.schedule)}")
        kills.finish()
        working.cancel()
    for name in stack.names:
        await asyncio.to_thread(stack.wait_ready, name)
    return told, credentials


def clickhouse(folder: Path) -> dict[str, list[list[str]]]:
    """What the ClickHouse folder holds; nobody else may have it open."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos.clickhouse_child", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def fill_clickhouse(stack: Stack, settings: Settings, log: dict[str, list[oracle.Entry]]) -> None:
    """Run the analytics loop on these settings to the log's last records."""
    lasts = {
        (entry.topic, entry.partition): f"{entry.topic}:{entry.partition}:{entry.offset}"
        for topic in ("telemetry", "audit")
        for entry in log[topic]
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos.clickhouse_child", "--fill", *lasts.values()],
        env={**stack.env(), **settings.to_env()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def postgres(url: str) -> dict[str, list[str]]:
    """Every table that a decider fills, as sorted text; those of the processors are their own."""
    with psycopg.connect(url) as connection:
        names = [
            row[0]
            for row in connection.execute(
                "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND "
                "(tablename ~ '_v[0-9]+$' OR tablename LIKE 'decider\\_%') "
                "AND tablename !~ '^(usage|webhook_(deliveries|attempts|offsets|queues))_'"
            )
        ]
        return {
            name: sorted(
                str(row[0])
                for row in connection.execute(f'SELECT to_jsonb(t) FROM "{name}" t'.encode())
            )
            for name in names
        }


async def metered(stack: Stack, log: dict[str, list[oracle.Entry]]) -> None:
    """Wait until the usage processor has the log's last records."""
    lasts = {(e.topic, e.partition): e.offset for t in ("billing", "telemetry") for e in log[t]}
    try:
        async with (
            asyncio.timeout(METERED_SECONDS),
            await psycopg.AsyncConnection.connect(
                stack.settings.database_url, autocommit=True
            ) as connection,
        ):
            while lasts:
                cursor = await connection.execute(
                    "SELECT topic, partition, next_offset FROM usage_offsets_v1"
                )
                for topic, partition, next_offset in await cursor.fetchall():
                    if next_offset > lasts.get((topic, partition), next_offset):
                        del lasts[topic, partition]
                await asyncio.sleep(0.1)
    except TimeoutError:
        said = stack.log("streams").read_text(errors="replace")[-20_000:]
        pytest.fail(f"the usage processor never counted up to {lasts}; it said:\n{said}")


def check_log(log: dict[str, list[oracle.Entry]]) -> None:
    """What must hold of the log by itself."""
    # A report that a client repeats is on `telemetry` twice, with the same ids; it counts once.
    for topic in ("events", "audit", "billing"):
        oracle.check_ids(log[topic])
    oracle.check_versions(log["events"])
    oracle.check_audit(log["audit"])
    oracle.check_outcomes(log["outcomes"], log["audit"])
    oracle.check_copies(log["events"], log["billing"], "billing.")


def check_told_rarely(told: Told, log: dict[str, list[oracle.Entry]]) -> None:
    """The same of tasks, watchers, prompts, erasures and reports without a key."""
    assert oracle.tasks(log["events"]) == told.tasks
    watchers = oracle.watchers(log["events"])
    assert {id: "removed" if w.removed else "watching" for id, w in watchers.items()} == (
        told.watchers
    )
    for watcher in watchers.values():
        # Each once and in their order; who has left may have missed the last.
        assert watcher.told == watcher.wanted[: len(watcher.told)]
        assert watcher.removed or watcher.told == watcher.wanted
    # At least once, and in their order when they came first.
    assert list(dict.fromkeys(told.received)) == watchers[told.webhooks].told
    prompts = oracle.prompts(log["events"])
    assert {id: (p.versions, p.labels) for id, p in prompts.items()} == {
        id: (p.versions, p.labels) for id, p in told.prompts.items()
    }
    assert oracle.erasures(log["events"]) == dict.fromkeys(told.erasures, "completed")
    assert oracle.runs_of(log["telemetry"], UNKEYED) == told.unkeyed
    assert {len(runs) for runs in told.unkeyed.values()} == {2}
    for topic in TOPICS:
        oracle.check_silence(log[topic], told.secret)


def check_told(told: Told, log: dict[str, list[oracle.Entry]], tenant: str) -> None:
    """What clients were told is in the log, exactly."""
    runs = oracle.runs(log["telemetry"])
    for run, calls in told.calls.items():
        assert runs[run].calls == calls
        assert runs[run].tokens == told.tokens[run]
        assert runs[run].cost == told.cost[run]
        assert runs[run].started
    for run in told.completed:
        assert runs[run].completed
        assert runs[run].steps == {"s0", "s1"}
    assert oracle.check_ins(log["events"]) == told.check_ins
    used = {meter: n for (of, meter), n in oracle.usage(log["billing"]).items() if of == tenant}
    # Each computation is paid for once; what it cost in time is the worker's word.
    assert used.pop("fhe.operations", 0) == len(told.jobs)
    assert used.pop("fhe.price_nanodollars", 0) == oracle.prices(log["events"])
    assert (used.pop("fhe.cpu_microseconds", 0) > 0) == bool(told.jobs)
    assert used == told.usage
    assert oracle.jobs(log["events"]) == dict.fromkeys(told.jobs, "succeeded")


def check_rare_read_models(told: Told, url: str, views: dict[str, list[list[str]]]) -> None:
    """Postgres and ClickHouse hold what clients were told, and nothing of who was erased."""
    with psycopg.connect(url) as connection:

        def rows(view: View, columns: str) -> list[tuple[Any, ...]]:
            sql = f"SELECT {columns} FROM {view.table} ORDER BY {columns}"
            return connection.execute(sql.encode()).fetchall()

        assert dict(rows(TASKS, "id, status")) == told.tasks
        assert rows(PROMPT_VERSIONS, "prompt_id, version, content_hash") == sorted(
            (id, number, content)
            for id, prompt in told.prompts.items()
            for number, content in enumerate(prompt.versions, 1)
        )
        assert rows(PROMPT_LABELS, "prompt_id, label, version") == sorted(
            (id, label, version)
            for id, prompt in told.prompts.items()
            for label, version in prompt.labels.items()
        )
        assert {id for id, removed in rows(WATCHERS, "id, removed_at") if removed is None} == {
            id for id, status in told.watchers.items() if status == "watching"
        }
    inputs = json.dumps({"told": told.secret}, separators=(",", ":"))
    assert views["persons"] == sorted(
        [run, user, inputs if user else "{}"] for run, user in told.persons.items()
    )
    assert views["previews"] == sorted(
        [run, told.secret if user else ""] for run, user in told.persons.items()
    )


def check_read_models(
    log: dict[str, list[oracle.Entry]], url: str, views: dict[str, list[list[str]]]
) -> None:
    """Postgres and ClickHouse hold what the log says."""
    with psycopg.connect(url) as connection:
        rows = connection.execute(f"SELECT id, status FROM {CHECK_INS.table}".encode()).fetchall()
        assert dict(rows) == oracle.check_ins(log["events"])
        counted = connection.execute(
            "SELECT tenant, meter, sum(quantity)::bigint FROM usage_windows_v1 "
            "WHERE window_kind = 'day' AND meter NOT LIKE 'llm.%' GROUP BY tenant, meter"
        ).fetchall()
        assert {(t, m): n for t, m, n in counted} == oracle.usage(log["billing"])
    runs = oracle.runs(log["telemetry"])
    pico = Decimal(10**12)
    assert views["calls"] == sorted(
        [id, str(len(run.calls)), str(run.tokens), str(int(run.cost * pico))]
        for id, run in runs.items()
        if run.calls
    )
    assert views["steps"] == sorted([i, str(len(r.steps))] for i, r in runs.items() if r.steps)
    assert [row[0] for row in views["started"]] == sorted(i for i, r in runs.items() if r.started)
    done = sorted(i for i, r in runs.items() if r.completed)
    assert [row[0] for row in views["completed"]] == done
    lengths = oracle.check_audit(log["audit"])
    assert [row[:3] for row in views["audit"]] == sorted(
        [tenant, str(length), str(length)] for tenant, length in lengths.items()
    )


@pytest.mark.timeout(MINUTES * 60 + 600)
async def test_nothing_acknowledged_is_lost_or_counted_twice(tmp_path: Path) -> None:
    stack = Stack(
        tmp_path / "data",
        DEFAULT_ROLES,
        extra={"WEIR_EGRESS_ALLOW": ",".join(OUR_NETWORK)},
        after_servers=lambda settings: asyncio.run(prepare(settings)) and None,
    )
    await asyncio.to_thread(stack.start)
    try:
        async with Receiver() as receiver:
            told, credentials = await load_under_kills(stack, SEED, receiver)
        settings = stack.settings
        log = await asyncio.to_thread(oracle.read_log, settings.kafka_bootstrap_servers, TOPICS)
        check_log(log)
        check_told(told, log, credentials.tenant_id)
        check_told_rarely(told, log)
        await metered(stack, log)
        for group in DEFAULT_ROLES:
            await asyncio.to_thread(stack.halt, "+".join(group))
        await check_live_and_rebuilt(stack, log, told, tmp_path)
    finally:
        await asyncio.to_thread(stack.stop)
    print(
        f"chaos: {told.requests} requests, {told.retries} of them repeats; {len(log['events'])} "
        f"events, {len(log['telemetry'])} telemetry records, {len(log['audit'])} audit records; "
        f"{len(told.tasks)} tasks, {len(told.received)} webhooks, {len(told.prompts)} prompts, "
        f"{len(told.erasures)} persons erased"
    )


async def check_live_and_rebuilt(
    stack: Stack, log: dict[str, list[oracle.Entry]], told: Told, folder: Path
) -> None:
    """The live read models equal the oracle's fold, and those rebuilt from zero equal the live."""
    settings = stack.settings
    # What the loops had not written yet when they were halted, they write when they come back.
    async with deciding(settings):
        pass
    await asyncio.to_thread(fill_clickhouse, stack, settings, log)
    live_folder = Path(settings.clickhouse_url.removeprefix("chdb://"))
    views = await asyncio.to_thread(clickhouse, live_folder)
    check_read_models(log, settings.database_url, views)
    check_rare_read_models(told, settings.database_url, views)
    with psycopg.connect(settings.database_url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE rebuilt")
    (folder / "rebuilt").mkdir()
    fresh = dataclasses.replace(
        settings,
        database_url=f"{settings.database_url.rpartition('/')[0]}/rebuilt",
        clickhouse_url=f"chdb://{folder / 'rebuilt'}",
    )
    async with deciding(fresh):
        pass
    live, rebuilt = postgres(settings.database_url), postgres(fresh.database_url)
    assert live.keys() == rebuilt.keys()
    for table, rows in live.items():
        assert rebuilt[table] == rows, f"{table} differs after a rebuild"
    await asyncio.to_thread(fill_clickhouse, stack, fresh, log)
    again = await asyncio.to_thread(clickhouse, folder / "rebuilt")
    assert {k: v for k, v in again.items() if k != "rows"} == {
        k: v for k, v in views.items() if k != "rows"
    }
