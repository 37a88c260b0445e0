"""Every role but the deciding decider, dead at each place where it has touched one store of two.

Each death is a real one (SIGKILL at a failpoint, in a process of its own); then another process
goes on, clients repeat what they had no answer to, and what the stores hold is compared with the
raw log, read by the chaos oracle. `test_failpoints.py` has the decider's batches.
"""

import asyncio
import dataclasses
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from psycopg.rows import dict_row

from api.provision import connected, provision_tenant
from commands.identity.email import ReserveEmail
from infra.clickhouse import ClickHouse
from infra.clock import ManualClock
from infra.config import Settings
from infra.embedded.ports import free_port
from infra.embedded.stack import Stack
from infra.ids import new_id
from infra.kafka import Log, create_topics
from projections.observability.llm_calls import LLM_CALLS
from schemas.envelope import Position
from tests.chaos import oracle
from tests.faults.departed import end_leases
from tests.faults.ledger import Ledger, judge
from tests.faults.roles import RoleProcess
from tests.integration.analytics_rig import SIGNER, Rig, call, calls, rig_on, started
from tests.integration.usage_rig import UsageRig
from tests.loops import Loops, deciding, read_topic, talking
from tests.stack import fresh_stores

DEATH_SECONDS = 90


async def death(role: RoleProcess) -> None:
    """Wait until the role has died of its failpoint."""
    code = await asyncio.to_thread(role.process.wait, DEATH_SECONDS)
    assert code == -signal.SIGKILL, role.said()


async def rows(settings: Settings, sql: str, *params: Any) -> list[dict[str, Any]]:
    async with await psycopg.AsyncConnection.connect(
        settings.database_url, row_factory=dict_row
    ) as connection:
        return await (await connection.execute(sql.encode(), params)).fetchall()


async def read_log(settings: Settings, tenant: str, *topics: str) -> dict[str, list[oracle.Entry]]:
    """The tenant's records."""
    return await asyncio.to_thread(
        oracle.read_log, settings.kafka_bootstrap_servers, topics, tenant
    )


# The decider's way back.

FOLDED = {
    "decider_states": "tenant, stream, id, version, state",
    "decider_audit_heads": "tenant, seq, hash",
    "decider_outcomes": "tenant, command_id, at, outcome",
}


async def folded(settings: Settings, tenants: Sequence[str]) -> Mapping[str, Any]:
    """What the deciders know of these tenants."""
    return {
        table: await rows(
            settings,
            f"SELECT {columns} FROM {table} WHERE tenant = ANY(%s) ORDER BY {columns}",
            tenants,
        )
        for table, columns in FOLDED.items()
    }


async def test_a_decider_that_dies_while_it_folds_the_log_goes_on_where_it_was(
    settings: Settings, stack: Stack, tmp_path: Path
) -> None:
    await create_topics(settings.kafka_bootstrap_servers, settings.partitions)
    (tmp_path / "lost").mkdir()
    empty = fresh_stores(stack, tmp_path / "lost")
    async with talking(settings) as bus:
        ledgers = [Ledger(settings, bus, number) for number in range(settings.partitions)]
        tenants = [ledger.tenant for ledger in ledgers]
        async with deciding(settings):
            await asyncio.gather(*(ledger.commands(5) for ledger in ledgers))
        before = await folded(settings, tenants)
        assert all(before.values())
        # The log is on, the database is not: three topics of each partition are to be folded.
        for point in ("recovery.folded:1", "recovery.folded:2"):
            with RoleProcess(empty, ["decider"], point) as dying:
                await death(dying)
            await end_leases(empty)
        async with deciding(empty):
            assert await folded(empty, tenants) == before
            await asyncio.gather(*(ledger.commands(5) for ledger in ledgers))
    await judge(settings, ledgers)


# Analytics.


@pytest.mark.parametrize("point", ["analytics.inserted", "analytics.positioned"])
async def test_an_analytics_role_that_dies_here_inserts_the_rest_and_nothing_twice(
    settings: Settings, point: str
) -> None:
    await create_topics(settings.kafka_bootstrap_servers, settings.partitions)
    log = Log(settings.kafka_bootstrap_servers, "test")
    await log.start()
    # No engine here yet: it is the roles', one after the other.
    rig = Rig(settings, ClickHouse(settings.clickhouse_url), log)
    last: dict[int, Position] = {}

    async def report() -> None:
        origin, run_id = rig.origin(), SIGNER.run_id(rig.tenant)
        items = [call(origin, number, cost=0.25) for number in range(3)]
        position = await rig.report(run_id, started(), calls(*items), origin=origin)
        last[position.partition] = position

    for passes in (1, 2):
        with RoleProcess(settings, ["analytics"], f"{point}:{passes}") as dying:
            dead = asyncio.create_task(death(dying))
            while not dead.done():
                # Until there was enough for it to come to the point so often.
                await report()
                await asyncio.wait([dead], timeout=0.2)
            await dead
    await log.stop()
    runs = oracle.runs((await read_log(settings, rig.tenant, "telemetry"))["telemetry"])
    async with rig_on(settings) as final, final.running(final.loop()):
        final.tenant = rig.tenant
        for position in last.values():
            assert await final.clickhouse.reached(position, timeout=60)
        assert await final.totals() == {
            "calls": sum(len(run.calls) for run in runs.values()),
            "tokens": sum(run.tokens for run in runs.values()),
            "cost_pico": int(sum(run.cost for run in runs.values()) * 10**12),
        }
        physical = await final.clickhouse.query(
            f"SELECT count() AS n, uniqExact(id) AS ids FROM {LLM_CALLS.table}"
            " WHERE tenant = {t:String} SETTINGS final = 0",
            {"t": rig.tenant},
        )
        assert physical[0]["n"] == physical[0]["ids"]


# The API.


@pytest.mark.parametrize("keyed", [True, False], ids=["with a key", "without a key"])
async def test_a_report_whose_api_died_before_its_answer_is_repeated_and_counts_once(
    settings: Settings, keyed: bool
) -> None:
    own = dataclasses.replace(settings, port=free_port(), public_url="")
    await create_topics(own.kafka_bootstrap_servers, own.partitions)
    body = {
        "calls": [{"id": f"c{n}", "model": "m", "tokens_in": 10, "tokens_out": 1} for n in (1, 2)]
        + [{"model": "m", "tokens_in": 10, "tokens_out": 1}]
    }
    async with deciding(own), talking(own) as bus:
        # A tenant of its own: others provision on this log, too.
        async with connected(own) as installation:
            made = await provision_tenant(
                installation, name="Test", email=f"{new_id('usr')}@weir.test"
            )

        async def post(path: str, key: str, body: object) -> httpx.Response:
            headers = {"X-Wax-Key": made.api_key, **({"Idempotency-Key": key} if keyed else {})}
            async with httpx.AsyncClient(base_url=own.public_url, timeout=30) as client:
                return await client.post(f"/api/v1/observe/runs/{path}", json=body, headers=headers)

        async def start() -> httpx.Response:
            return await post("start/", "the run", {"agent_name": "bot"})

        with RoleProcess(own, ["api"], "telemetry.appended:1") as dying:
            await asyncio.to_thread(dying.wait_ready)
            with pytest.raises(httpx.TransportError):
                await start()
            await death(dying)
        with RoleProcess(own, ["api"], "telemetry.appended:2") as dying:
            await asyncio.to_thread(dying.wait_ready)
            run_id = (await start()).raise_for_status().json()["run_id"]
            with pytest.raises(httpx.TransportError):
                await post(f"{run_id}/llm-calls/", "the calls", body)
            await death(dying)
        with RoleProcess(own, ["api"]) as api:
            await asyncio.to_thread(api.wait_ready)
            answer = await post(f"{run_id}/llm-calls/", "the calls", body)
            assert answer.is_success, answer.text
        entries = (await read_log(own, made.tenant_id, "telemetry"))["telemetry"]
        # Both requests are on the log twice, about one run and with the same ids.
        assert len(entries) == 4
        (run,) = oracle.runs(entries).values()
        assert (len(run.calls), run.tokens) == (3, 33)
        async with rig_on(own) as rig, rig.running(rig.loop()):
            rig.tenant = made.tenant_id
            for entry in entries:
                position = Position(entry.topic, entry.partition, entry.offset)
                assert await rig.clickhouse.reached(position, timeout=60)
            assert await rig.totals() == {"calls": 3, "tokens": 33, "cost_pico": 0}
            usage = UsageRig(own, Loops(own, bus), rig.log)
            usage.tenant = made.tenant_id
            await usage.catch_up()
            used = {"llm.calls": 3, "llm.tokens_in": 30, "llm.tokens_out": 3}
            assert await usage.totals() == used


# The scheduler.


async def until_posted(settings: Settings, tenant: str, count: int) -> None:
    """Wait until so many commands of the tenant are on the log."""
    async with asyncio.timeout(60):
        # Another process writes them: there is nothing to await but the log.
        while len(await read_topic(settings, "commands", tenant)) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_a_timer_whose_scheduler_died_after_sending_it_fires_once(
    settings: Settings,
) -> None:
    await create_topics(settings.kafka_bootstrap_servers, settings.partitions)
    tenant, count = new_id("ten"), 5
    async with talking(settings) as bus:
        running = Loops(settings, bus)
        # A clock that is years behind: what it makes is overdue at once.
        async with deciding(settings, clock=ManualClock()):
            for number in range(count):
                reserve = ReserveEmail(user_id=f"usr_{number}", user_tenant=tenant)
                reply = await running.send(tenant, f"email_{number}", reserve)
                assert reply.status == "accepted"
        with RoleProcess(settings, ["scheduler"], "scheduler.posted") as dying:
            await death(dying)
        await until_posted(settings, tenant, 2 * count)
        await end_leases(settings)
        with RoleProcess(settings, ["scheduler"]):
            await until_posted(settings, tenant, 3 * count)
            async with deciding(settings), asyncio.timeout(60):
                of_tenant = "SELECT 1 FROM timers WHERE tenant = %s"
                while await rows(settings, of_tenant, tenant):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
                # Decided after every command of a timer that was there before it.
                reserve = ReserveEmail(user_id="usr_late", user_tenant=tenant)
                assert (await running.send(tenant, "email_0", reserve)).version == 3
    ours = await read_log(settings, tenant, "events", "audit", "outcomes")
    oracle.check_versions(ours["events"])
    oracle.check_ids(ours["events"])
    oracle.check_outcomes(ours["outcomes"], ours["audit"])
    kinds = [entry.type for entry in ours["events"]]
    assert kinds.count("identity.email_reserved") == count + 1
    assert kinds.count("identity.email_reservation_expired") == count
    assert oracle.check_audit(ours["audit"]) == {tenant: 2 * count + 1}
