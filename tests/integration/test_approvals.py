"""Waitroom on real Kafka, Postgres and ClickHouse: one decision, in time, seen by everybody."""

import asyncio
import contextlib
import dataclasses
import os
from collections.abc import AsyncIterator
from typing import Any

import httpx
from aiokafka import TopicPartition

from api.__main__ import services_on
from api.app import build_app
from api.provision import Installation, provision_tenant
from api.services import Services
from infra.clock import SYSTEM_CLOCK, Clock
from infra.config import Settings
from infra.ids import new_id
from infra.kafka import bounds, consumer, stop_consumer
from projections import CLICKHOUSE_VIEWS
from projections.approvals import VIEWS
from projections.approvals.registrations import REGISTRATIONS
from projections.runner import fold, reduce_all
from schemas.envelope import Position, from_headers
from schemas.topics import topics
from streams.analytics import AnalyticsLoop
from streams.runtime import codec
from streams.scheduler import Scheduler
from tests.api.approvals.client import WaitroomClient
from tests.loops import loops, read_topic

PATIENCE = 60.0


class LaterClock:
    """The machine's clock, so many seconds ahead."""

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds

    def now(self) -> int:
        return SYSTEM_CLOCK.now() + self.seconds * 1_000_000


class RealWaitroom(WaitroomClient):
    """The client over real servers, for a tenant of its own."""

    def __init__(
        self, services: Services, client: httpx.AsyncClient, app: Any, tenant: str, token: str
    ) -> None:
        super().__init__(app, client, {"Authorization": f"Bearer {token}"})
        self.services, self.tenant = services, tenant

    async def status(self, id: str, wait: int = 0) -> dict[str, Any]:
        """What became of a check-in."""
        answer = await self.person_calls("GET", f"/v1/check-ins/{id}/status?wait={wait}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()["data"]
        return found


@contextlib.asynccontextmanager
async def real_waitroom(
    settings: Settings, clock: Clock = SYSTEM_CLOCK
) -> AsyncIterator[RealWaitroom]:
    """The API and a decider role (by this clock) in this process, with a tenant and its admin."""
    settings = dataclasses.replace(settings, secret_key=os.urandom(32), rate_limit_per_minute=0)
    async with loops(settings, clock=clock), services_on(settings, asyncio.Event()) as services:
        installation = Installation(settings, services.bus, services.reads, services.signer)
        found = await provision_tenant(
            installation, name="Acme", email=f"{new_id('root')}@acme.example"
        )
        app = build_app(services)
        transport = httpx.ASGITransport(app=app, client=("192.0.2.1", 4711))
        async with httpx.AsyncClient(transport=transport, base_url="http://weir.test") as client:
            yield RealWaitroom(services, client, app, found.tenant_id, found.admin_token)


@contextlib.asynccontextmanager
async def timers_fire(it: RealWaitroom, seconds_ahead: int) -> AsyncIterator[None]:
    """A scheduler runs, so far ahead of the machine's clock."""
    scheduler = Scheduler(
        database=it.services.settings.database_url,
        bus=it.services.bus,  # type: ignore[arg-type]  # the real one, here
        codec=codec(),
        clock=LaterClock(seconds_ahead),
        owner=new_id("test"),
    )
    firing = asyncio.create_task(scheduler.run())
    try:
        yield
    finally:
        firing.cancel()
        await asyncio.gather(firing, return_exceptions=True)


async def test_many_decide_at_once_and_one_wins(settings: Settings) -> None:
    async with real_waitroom(settings) as it:
        await it.room()
        agent = await it.agent()
        for _ in range(3):
            id = (await it.check_in(agent))["id"]
            verbs = [("approve", {}), ("reject", {"reason": "no"})] * 8
            answers = await asyncio.gather(
                *(
                    it.person_calls("POST", f"/v1/check-ins/{id}/{verb}", body)
                    for verb, body in verbs
                )
            )
            won = [answer.json()["data"] for answer in answers if answer.status_code == 200]
            lost = [answer.json()["error"] for answer in answers if answer.status_code == 409]
            assert (len(won), len(lost)) == (1, 15)
            assert {error["details"]["decision_id"] for error in lost} == {won[0]["decision_id"]}
            assert (await it.status(id)).items() <= won[0].items()


async def test_the_same_key_at_the_same_time_has_one_effect_and_one_answer(
    settings: Settings,
) -> None:
    async with real_waitroom(settings) as it:
        await it.room()
        agent = await it.agent() | {"Idempotency-Key": "once"}
        path, body = "/v1/rooms/payments/check-in", {"action": "refund"}
        answers = await asyncio.gather(*(it.call("POST", path, agent, body) for _ in range(10)))
        assert {answer.status_code for answer in answers} == {201}
        assert len({answer.text for answer in answers}) == 1
        pending = (await it.person_calls("GET", "/v1/rooms/payments/pending")).json()["data"]
        assert [check_in["id"] for check_in in pending] == [answers[0].json()["data"]["id"]]


async def test_timers_settle_what_nobody_decides(settings: Settings) -> None:
    async with real_waitroom(settings) as it:
        await it.room()
        agent = await it.agent()
        ids = {
            action: (await it.check_in(agent, timeout_minutes=1, timeout_action=action))["id"]
            for action in ("cancel", "auto_approve", "hold")
        }
        decided = (await it.check_in(agent, timeout_minutes=1))["id"]
        await it.person_calls("POST", f"/v1/check-ins/{decided}/approve")
        async with timers_fire(it, 120), asyncio.timeout(PATIENCE):
            cancelled = await it.status(ids["cancel"], wait=60)
            approved = await it.status(ids["auto_approve"], wait=60)
            held = await it.status(ids["hold"], wait=0)
            while not held["overdue"]:
                held = await it.status(ids["hold"], wait=1)
        assert (cancelled["status"], cancelled["decision_source"]) == ("expired", "timeout")
        assert (approved["status"], approved["decision_source"]) == ("approved", "timeout")
        assert held["status"] == "pending"
        assert (await it.status(decided))["decision_source"] == "human"
        for verb, id in (("approve", ids["hold"]), ("approve", ids["cancel"])):
            answer = await it.person_calls("POST", f"/v1/check-ins/{id}/{verb}")
            assert answer.status_code == (200 if id == ids["hold"] else 409)


async def test_a_room_is_followed_and_resumed_on_the_real_log(settings: Settings) -> None:
    async with real_waitroom(settings) as it:
        await it.room()
        agent = await it.agent()
        path = "/v1/rooms/payments/events"
        async with it.stream(path, it.person) as reader:
            await reader.until("retry:")
            first = await it.check_in(agent)
            text = await reader.until(first["id"])
        seen = next(
            block.split("id: ")[1].split("\n")[0]
            for block in text.split("\n\n")
            if first["id"] in block
        )
        missed = [(await it.check_in(agent))["id"] for _ in range(3)]
        async with it.stream(path, agent | {"Last-Event-ID": seen}) as reader:
            text = await reader.until(missed[-1])
            assert first["id"] not in text
            assert text.count("event: check_in.created") == 3
            live = await it.check_in(agent)
            await reader.until(live["id"])


async def test_the_read_models_are_the_fold_of_the_log(settings: Settings) -> None:
    async with real_waitroom(settings) as it:
        await it.room(policies={"trust_thresholds": {"auto_approve_low": 16}})
        agent = await it.agent()
        bodies = {
            "approve": {},
            "reject": {"reason": "x"},
            "modify": {"reason": "x", "modifications": {}},
        }
        for verb, body in bodies.items():
            id = (await it.check_in(agent, context={"amount": 1.5}))["id"]
            await it.person_calls("POST", f"/v1/check-ins/{id}/{verb}", body)
        trusted = await it.check_in(agent, risk_level="low")
        assert trusted["policy"]["source"] == "trust"
        await it.call("DELETE", f"/v1/check-ins/{(await it.check_in(agent))['id']}", agent)
        task = (await it.task())["id"]
        for act in ("claim", "help", "release", "claim"):
            assert (await it.acts(agent, act, task)).status_code == 200
        for number in range(3):
            await it.acts(agent, "messages", task, {"body": f"message {number}"})
        watch = {"event_types": ["check_in.decided"]}
        watcher = await it.call("POST", "/v1/rooms/payments/watch", agent, watch)
        assert watcher.status_code == 201, watcher.text
        log = await read_topic(it.services.settings, "events", it.tenant)
        events = [
            (from_headers([(k, v.encode()) for k, v in headers.items()]), event)
            for headers, event in log
        ]
        for view in VIEWS:
            if view is REGISTRATIONS:
                continue  # they are nobody's: of the tenant `_directory`
            statements = [made for _, made in reduce_all([view], events)]
            (batch,) = fold(view, statements)
            rows = await it.services.reads.all(
                f"SELECT count(*) AS n FROM {view.table} WHERE tenant = %s", it.tenant
            )
            assert rows[0]["n"] == len(batch) > 0


async def test_a_rooms_audit_trail_names_decisions_and_refusals(settings: Settings) -> None:
    async with real_waitroom(settings) as it:
        rule = {"action": "forbid", "when": {"action": {"prefix": "drop"}}}
        await it.room(policies={"rules": [rule]})
        await it.room("Other")
        agent = await it.agent()
        id = (await it.check_in(agent))["id"]
        await it.check_in(agent, room="other")
        await it.person_calls("POST", f"/v1/check-ins/{id}/approve", {"reason": "fine"})
        path = "/v1/rooms/payments/check-in"
        refused = await it.call("POST", path, agent, {"action": "drop tables"})
        assert refused.status_code == 403
        analytics: Any = it.services.analytics
        loop = AnalyticsLoop(
            bootstrap=it.services.settings.kafka_bootstrap_servers,
            clickhouse=analytics,
            views=CLICKHOUSE_VIEWS,
            codec=codec(),
            dead_letters=it.services.log,
            person_keys=it.services.person_keys,
        )
        running = asyncio.create_task(loop.run())
        try:
            for position in await ends(it.services.settings, "audit"):
                assert await analytics.reached(position, timeout=PATIENCE)
            trail = (await it.person_calls("GET", "/v1/rooms/payments/audit")).json()["data"]
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        assert [(item["event_type"], item["outcome"]) for item in trail] == [
            ("approvals.create_check_in", "refused"),
            ("approvals.approve_check_in", "accepted"),
            ("approvals.create_check_in", "accepted"),
            ("approvals.create_room", "accepted"),
        ]
        assert (trail[0]["code"], trail[1]["details"]["reason"]) == ("policy_forbids", "fine")


async def test_a_deactivated_agents_key_stops_as_soon_as_the_log_tells(settings: Settings) -> None:
    async with real_waitroom(settings) as it:
        agent = await it.agent()
        me = await it.call("GET", "/v1/agents/me", agent)
        told = asyncio.Event()
        it.services.live.on_event(
            lambda event: told.set() if event.type == "approvals.agent_deactivated.v1" else None
        )
        await it.person_calls("DELETE", f"/v1/agents/{me.json()['data']['id']}")
        async with asyncio.timeout(PATIENCE):
            await told.wait()
        assert (await it.call("GET", "/v1/agents/me", agent)).status_code == 401


async def ends(settings: Settings, topic: str) -> list[Position]:
    """The last record of each partition that holds something; a commit marker lies behind it."""
    reader = consumer(settings.kafka_bootstrap_servers, new_id("test"))
    await reader.start()
    found = []
    try:
        for number in range(topics()[topic].partition_count(settings.partitions)):
            partition = TopicPartition(topic, number)
            reader.assign([partition])
            first, end = await bounds(reader, partition)
            if end > first:
                found.append(Position(topic, number, end - 2))
    finally:
        await stop_consumer(reader)
    return found
