"""The decider loop on real Kafka and real Postgres."""

import asyncio
import json
from typing import Any

import msgspec
import psycopg
import pytest
from psycopg.rows import dict_row

from commands import DECIDERS
from commands.tenancy.tenant import CreateTenant
from infra.clock import SYSTEM_CLOCK
from infra.config import Settings
from infra.embedded.stack import Stack
from infra.ids import new_id
from infra.kafka import Log, Record
from infra.partitioning import partition_for
from projections import VIEWS
from projections.tenancy.tenants import TENANTS
from schemas.platform.audit_chain import verify
from streams.decider import PartitionDecider
from streams.deciding import Registry
from streams.runtime import codec, registry
from streams.store import Store
from tests.loops import Loops, deciding, loops, read_topic, talking


async def rows(settings: Settings, sql: str, *params: Any) -> list[dict[str, Any]]:
    async with await psycopg.AsyncConnection.connect(
        settings.database_url, row_factory=dict_row
    ) as connection:
        return await (await connection.execute(sql.encode(), params)).fetchall()


def as_sorted(found: list[dict[str, Any]]) -> list[str]:
    return sorted(json.dumps(row, default=str, sort_keys=True) for row in found)


async def test_an_accepted_command_is_in_the_log_and_readable_when_its_answer_comes(
    settings: Settings,
) -> None:
    tenant = new_id("ten")
    async with loops(settings) as running:
        reply = await running.send(tenant, tenant, CreateTenant("Acme"))
        assert (reply.status, reply.version) == ("accepted", 1)
        stored = await rows(settings, "SELECT * FROM decider_states WHERE tenant = %s", tenant)
        assert [row["version"] for row in stored] == [1]
        events = await read_topic(settings, "events", tenant)
        assert [headers["ce_type"] for headers, _ in events] == ["tenancy.tenant_created.v1"]
        assert events[0][0]["ce_causationid"] == reply.command_id
        topic, partition, _ = reply.position.split(":")
        assert (topic, int(partition)) == ("events", partition_for(tenant, settings.partitions))


async def test_a_refusal_is_answered_and_audited_and_changes_nothing(settings: Settings) -> None:
    tenant = new_id("ten")
    async with loops(settings) as running:
        await running.send(tenant, tenant, CreateTenant("Acme"))
        reply = await running.send(tenant, tenant, CreateTenant("Other"))
        assert (reply.status, reply.code, reply.kind) == ("refused", "tenant_exists", "conflict")
        audit = [record for _, record in await read_topic(settings, "audit", tenant)]
        assert [(item.seq, item.outcome) for item in audit] == [(1, "accepted"), (2, "refused")]
        assert verify(audit) is None
        assert len(await read_topic(settings, "events", tenant)) == 1


async def test_the_same_key_at_the_same_time_and_after_a_restart_has_one_effect_and_one_answer(
    settings: Settings,
) -> None:
    tenant, id = new_id("ten"), new_id("cmd")
    command = CreateTenant("Acme")
    async with loops(settings) as running:
        together = await asyncio.gather(
            *(
                running.send(tenant, tenant, command, command_id=id, fingerprint="f")
                for _ in range(8)
            )
        )
    async with loops(settings) as running:
        later = await running.send(tenant, tenant, command, command_id=id, fingerprint="f")
        other = await running.send(tenant, tenant, command, command_id=id, fingerprint="g")
        assert (other.status, other.code) == ("refused", "idempotency_key_reused")
        assert later.replayed
        assert {(reply.status, reply.answer, reply.version) for reply in [*together, later]} == {
            ("accepted", later.answer, 1)
        }
        assert len(await read_topic(settings, "events", tenant)) == 1
        assert len(await read_topic(settings, "audit", tenant)) == 1


async def test_postgres_lost_between_the_two_transactions_is_folded_from_the_log(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant = new_id("ten")
    apply, failures = (
        Store.apply,
        [psycopg.OperationalError("cut"), psycopg.OperationalError("cut")],
    )

    async def failing(self: Store, *args: Any) -> None:
        if failures:
            raise failures.pop()
        await apply(self, *args)

    async with loops(settings) as running:
        monkeypatch.setattr(Store, "apply", failing)
        reply = await running.send(tenant, tenant, CreateTenant("Acme"))
        assert not failures
        assert reply.status == "accepted"
        assert len(await read_topic(settings, "events", tenant)) == 1
        again = await running.send(tenant, tenant, CreateTenant("Other"))
        assert again.status == "refused"


async def test_a_lost_database_comes_back_the_same_from_the_log(settings: Settings) -> None:
    tenants = [new_id("ten") for _ in range(20)]
    async with loops(settings) as running:
        await asyncio.gather(
            *(running.send(tenant, tenant, CreateTenant(tenant)) for tenant in tenants)
        )
        await running.send(
            tenants[0], tenants[0], CreateTenant("x"), command_id="cmd_kept", fingerprint="f"
        )
    tables = ("decider_states", "decider_outcomes", "decider_audit_heads", "decider_checkpoints")
    before = {table: await rows(settings, f"SELECT * FROM {table}") for table in tables}
    for table in tables:
        async with await psycopg.AsyncConnection.connect(settings.database_url) as connection:
            await connection.execute(f"TRUNCATE {table}".encode())
    async with deciding(settings):
        after = {table: await rows(settings, f"SELECT * FROM {table}") for table in tables}
    for table in tables:
        assert as_sorted(after[table]) == as_sorted(before[table]), table


async def test_new_versions_of_views_are_filled_with_the_history(settings: Settings) -> None:
    tenant = new_id("ten")
    async with loops(settings) as running:
        await running.send(tenant, tenant, CreateTenant("Acme"))
    tables = [view.table for view in VIEWS]
    before = {table: await rows(settings, f"SELECT * FROM {table}") for table in tables}
    assert tenant in {row["tenant"] for row in before[TENANTS.table]}
    async with await psycopg.AsyncConnection.connect(settings.database_url) as connection:
        await connection.execute(f"TRUNCATE view_fills, {', '.join(tables)}".encode())
    async with deciding(settings):
        after = {table: await rows(settings, f"SELECT * FROM {table}") for table in tables}
    for table in tables:
        assert as_sorted(after[table]) == as_sorted(before[table]), table
    filled = await rows(settings, "SELECT view_table, partition FROM view_fills")
    assert {(row["view_table"], row["partition"]) for row in filled} == {
        (table, partition) for table in tables for partition in range(settings.partitions)
    }


async def test_poison_is_put_aside_and_the_partition_lives_on(settings: Settings) -> None:
    tenant = new_id("ten")

    def decide(command: CreateTenant, state: Any, context: Any) -> Any:
        if command.name == "boom":
            raise RuntimeError("a bug")
        return original.decide(command, state, context)

    original = next(item for item in DECIDERS if item.stream == "tenancy.tenant")
    broken = msgspec.structs.replace(original, decide=decide)
    others = [item for item in DECIDERS if item.stream != "tenancy.tenant"]
    async with loops(settings, Registry([broken, *others])) as running:
        log = Log(settings.kafka_bootstrap_servers, "poison")
        partition = partition_for(tenant, settings.partitions)
        garbage = [b"", b"\x00\x00\x00\x00\x63abc", b"\x07garbage", None]
        await log.append(
            "commands", [Record(tenant.encode(), value, [], partition) for value in garbage]
        )
        await log.stop()
        failed = await running.send(tenant, tenant, CreateTenant("boom"))
        assert failed.status == "failed"
        assert failed.incident.startswith("inc_")
        assert "a bug" not in failed.message
        fine = await running.send(tenant, tenant, CreateTenant("Acme"))
        assert fine.status == "accepted"
        audit = [record for _, record in await read_topic(settings, "audit", tenant)]
        assert verify(audit) is None
        assert [item.outcome for item in audit][-2:] == ["failed", "accepted"]


async def test_two_deciders_fighting_for_one_partition_change_nothing(settings: Settings) -> None:
    tenants = [new_id("ten") for _ in range(5)]
    target = partition_for(tenants[0], settings.partitions)
    tenants = [t for t in tenants if partition_for(t, settings.partitions) == target]

    def fighter() -> PartitionDecider:
        return PartitionDecider(
            target,
            bootstrap=settings.kafka_bootstrap_servers,
            database=settings.database_url,
            registry=registry(),
            codec=codec(),
            clock=SYSTEM_CLOCK,
            replies=replies,
        )

    async with loops(settings):
        pass  # topics and tables
    replies = Log(settings.kafka_bootstrap_servers, "fight-replies")
    async with talking(settings) as bus:
        tasks = [asyncio.create_task(fighter().run()) for _ in range(2)]
        running = Loops(settings, bus)
        sent = await asyncio.gather(
            *(
                running.send(
                    tenant,
                    new_id("ten"),
                    CreateTenant(f"n{number}"),
                    timeout=60,
                    command_id=new_id("cmd"),
                    fingerprint="f",
                )
                for number in range(60)
                for tenant in tenants
            )
        )
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    await replies.stop()
    assert {reply.status for reply in sent} == {"accepted"}
    for tenant in tenants:
        events = await read_topic(settings, "events", tenant)
        assert len(events) == 60
        assert len({headers["ce_causationid"] for headers, _ in events}) == 60
        audit = [record for _, record in await read_topic(settings, "audit", tenant)]
        assert [item.seq for item in audit] == list(range(1, 61))
        assert verify(audit) is None


class Held:
    """`Store.apply` in a test's hands: it waits to be let go, or fails as it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.failure: Exception | None = None
        self.goes_on, self.waits = asyncio.Event(), asyncio.Event()
        apply = Store.apply

        async def held(store: Store, *batch: Any) -> None:
            self.waits.set()
            await self.goes_on.wait()
            failure, self.failure = self.failure, None
            if failure is not None:
                raise failure
            await apply(store, *batch)

        monkeypatch.setattr(Store, "apply", held)


async def test_the_next_batch_is_decided_while_postgres_writes_and_both_survive_its_failure(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant = new_id("ten")
    async with loops(settings) as running:
        held = Held(monkeypatch)
        first = asyncio.create_task(running.send(tenant, tenant, CreateTenant("Acme")))
        await held.waits.wait()
        # It sees what the first has changed, which Postgres does not know yet.
        second = asyncio.create_task(running.send(tenant, tenant, CreateTenant("Other")))
        async with asyncio.timeout(20):
            while len(await read_topic(settings, "audit", tenant)) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert not first.done() and not second.done()
        held.failure = psycopg.OperationalError("the connection is gone")
        held.goes_on.set()
        assert (await first).status == "accepted"
        assert (await second).code == "tenant_exists"
        audit = [record for _, record in await read_topic(settings, "audit", tenant)]
        assert [(item.seq, item.outcome) for item in audit] == [(1, "accepted"), (2, "refused")]
        assert verify(audit) is None
        stored = await rows(settings, "SELECT * FROM decider_states WHERE tenant = %s", tenant)
        assert [row["version"] for row in stored] == [1]


async def test_a_frozen_postgres_is_let_go_of_within_seconds(
    stack: Stack, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop gives the connection up and tries anew by itself, long before the watchdog."""
    monkeypatch.setattr("streams.store.ANSWER_SECONDS", 0.5)
    tenant = new_id("ten")
    async with loops(settings):
        pass  # topics and tables
    async with deciding(settings) as role, talking(settings) as bus, asyncio.timeout(60):
        running = Loops(settings, bus)
        loop = role.loops[partition_for(tenant, settings.partitions)]
        stack.pause("postgres")
        try:
            waiting = asyncio.create_task(running.send(tenant, tenant, CreateTenant("Acme")))
            while loop.ready:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        finally:
            stack.resume("postgres")
        assert (await waiting).status == "accepted"
