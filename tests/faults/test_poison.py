"""What nobody can process is put aside with a reason, and the loop behind it goes on."""

import asyncio
from typing import Any

from commands.billing.budget import SetBudget, budget_id
from commands.tenancy.tenant import CreateTenant
from infra.config import Settings
from infra.ids import new_id
from infra.kafka import Log, Record, create_topics
from infra.objects import Objects
from schemas.avro_derivation import tag_of
from schemas.envelope import SYSTEM, Envelope, Headers, to_headers
from schemas.fhe.evaluation_key import EvaluationKeyDeleted
from schemas.fhe.job import JobSubmitted
from schemas.observability.run import RunCompleted
from schemas.platform.audit_chain import verify
from streams.bus import FINGERPRINT, REPLY_TO, TIMER, CommandRequest, to_record
from streams.decider import PartitionDecider
from streams.runtime import codec
from tests.faults.ledger import METER
from tests.faults.poison import bad_headers, bad_values, put_aside
from tests.faults.roles import RoleProcess
from tests.integration.analytics_rig import SIGNER, call, calls, rig_on
from tests.loops import loops, read_topic


def extra_headers(good: Headers) -> dict[str, Headers]:
    """Headers of a command that are an envelope, and nonsense besides."""
    return {
        "a fingerprint that is not UTF-8": [*good, (FINGERPRINT, b"\xff")],
        "an answer to nowhere": [*good, (REPLY_TO, b"nobody")],
        "an answer to a partition that is none": [*good, (REPLY_TO, b"api_1/x")],
        "a timer without a time": [*good, (TIMER, b"timeout")],
        "a timer with a wrong time": [*good, (TIMER, b"timeout@soon")],
        "NUL in a header": [*good[:-1], ("ce_correlationid", b"a\x00b")],
        "an unknown kind of actor": [
            (name, b"ghost" if name == "ce_actorkind" else value) for name, value in good
        ],
        "a huge number": [
            (name, b"9" * 30 if name == "ce_time" else value) for name, value in good
        ],
    }


async def test_poison_among_commands(settings: Settings, monkeypatch: Any) -> None:
    starts = 0
    own = PartitionDecider._own

    async def counted(self: PartitionDecider) -> None:
        nonlocal starts
        starts += 1
        await own(self)

    monkeypatch.setattr(PartitionDecider, "_own", counted)
    tenant = new_id("ten")
    good = to_record(
        CommandRequest(
            tenant=tenant,
            stream_id=tenant,
            command=CreateTenant("Acme"),
            actor=SYSTEM,
            command_id=new_id("cmd"),
        ),
        "tenancy.tenant",
        codec(),
        1_700_000_000_000_000,
    )
    report = RunCompleted(status="success", completed_at=1)
    poison = [
        Record(good.key, value, headers)
        for value in bad_values(codec(), CreateTenant("Acme"), report).values()
        for headers in (good.headers, [])
    ]
    headers = {**bad_headers(good.headers), **extra_headers(good.headers)}
    poison += [Record(good.key, good.value, bad) for bad in headers.values()]
    poison.append(Record(good.key, codec().encode(CreateTenant("a\x00b")), good.headers))
    async with loops(settings) as running:
        log = Log(settings.kafka_bootstrap_servers, "poison")
        await log.append("commands", poison)
        # One without a key, which must not be mistaken for anybody's.
        await log.append("commands", [Record(b"", b"", [])])
        await log.stop()
        budget = SetBudget(meter=METER, window="day", limit=1, alert_percents=[100])
        fine = await running.send(tenant, budget_id(METER, "day"), budget)
        assert fine.status == "accepted"
        reasons = await put_aside(settings, "commands.dlq", tenant.encode(), len(poison))
        assert all(reasons.values())
        audit = [record for _, record in await read_topic(settings, "audit", tenant)]
        assert verify(audit) is None
        assert {item.outcome for item in audit[:-1]} == {"failed"}
        events = await read_topic(settings, "events", tenant)
        assert [headers["ce_type"] for headers, _ in events] == ["billing.budget_set.v1"]
    assert starts == settings.partitions, "a decider has started over"


async def test_poison_among_telemetry(settings: Settings) -> None:
    async with rig_on(settings) as rig, rig.running(rig.loop()) as loop:
        run_id = SIGNER.run_id(rig.tenant)
        event = calls(call(rig.origin(), 0))
        position = await rig.report(run_id, event)
        assert await rig.clickhouse.reached(position, timeout=30)
        good = await headers_of(settings, rig.tenant)
        poison = [
            Record(run_id.encode(), value, good)
            for value in bad_values(codec(), event, CreateTenant("Acme")).values()
        ]
        poison += [
            Record(run_id.encode(), codec().encode(event), bad)
            for bad in bad_headers(good).values()
        ]
        await rig.log.append("telemetry", poison)
        position = await rig.report(run_id, calls(call(rig.origin(), 1)))
        assert await rig.clickhouse.reached(position, timeout=30)
        assert (await rig.totals())["calls"] == 2
        reasons = await put_aside(settings, "telemetry.dlq", run_id.encode(), len(poison))
        assert all(reasons.values())
        assert loop.dead_letters_written == len(poison)


async def test_poison_among_the_jobs(settings: Settings) -> None:
    await create_topics(settings.kafka_bootstrap_servers, settings.partitions)
    tenant, key_id = new_id("ten"), new_id("ek")
    job = JobSubmitted(new_id("job"), key_id, "ckks-n13", "add", [], [], [], 0, 2**57)
    envelope = Envelope(
        new_id("evt"), tag_of(JobSubmitted), tenant, f"fhe.job/{job.job_id}", 1, 0, SYSTEM
    )
    good = to_headers(envelope)
    poison = [
        Record(key_id.encode(), value, good)
        for value in bad_values(codec(), job, CreateTenant("Acme")).values()
    ]
    poison += [
        Record(key_id.encode(), codec().encode(job), bad) for bad in bad_headers(good).values()
    ]
    # What shows that the worker is still at it: it erases the object of a deleted key.
    objects, name = Objects(settings.object_store_url), f"fhe/{tenant}/keys/{key_id}"
    await objects.put(name, b"key")
    deleted = Record(key_id.encode(), codec().encode(EvaluationKeyDeleted(key_id, [name], 1)), good)
    with RoleProcess(settings, ["fhe-worker"]) as worker:
        await asyncio.to_thread(worker.wait_ready)
        log = Log(settings.kafka_bootstrap_servers, "poison")
        await log.append("fhe.jobs", [*poison, deleted])
        await log.stop()
        reasons = await put_aside(settings, "fhe.jobs.dlq", key_id.encode(), len(poison))
        assert len(reasons) == len(poison)
        assert all(reasons.values())
        async with asyncio.timeout(60):
            while await objects.exists(name):  # noqa: ASYNC110  # a store tells nobody
                await asyncio.sleep(0.05)
        assert worker.process.poll() is None


async def headers_of(settings: Settings, tenant: str) -> Headers:
    """The headers of the tenant's report."""
    ((headers, _),) = await read_topic(settings, "telemetry", tenant)
    return [(name, value.encode()) for name, value in headers.items()]
