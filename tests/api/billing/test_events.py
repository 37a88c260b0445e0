"""Billing events over HTTP: listed, and followed as they happen."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from api.billing import ROUTES
from api.live import LiveHub
from schemas.avro_derivation import derive, tag_of
from schemas.billing import EVENTS
from schemas.billing.budget import BudgetReached, BudgetRemoved, BudgetSet
from schemas.billing.usage import UsageRecorded
from schemas.codec import Codec, SchemaVersion
from schemas.envelope import to_headers
from streams.effects import Recorded
from tests.api.approvals.client import WaitroomClient
from tests.api.fake_log import FakeLog, FakeRecord
from tests.api.harness import OTHER_TENANT, TENANT, Harness

TENANT_PATH = f"/api/v1/billing/tenants/{TENANT}"
STREAM = "/api/v1/billing/stream"
AT = 1_700_000_000_000_000
USED = UsageRecorded(
    usage_id="usg_1", meter="m", quantity=3, occurred_at=AT, period_start=AT, metadata='{"a":1}'
)
WAS_SET = BudgetSet(
    budget_id="m@day", revision=1, meter="m", window="day", limit=10, alert_percents=[80]
)
REMOVED = BudgetRemoved(budget_id="m@day", revision=1)
REACHED = BudgetReached(
    budget_id="m@day", revision=1, meter="m", window="day", window_start=AT, window_end=AT,
    percent=80, limit=10, total=9,
)  # fmt: skip
CODEC = Codec(
    EVENTS,
    [SchemaVersion(number, tag_of(e), 1, derive(e)) for number, e in enumerate(EVENTS, start=1)],
)


def row(number: int, event: msgspec.Struct) -> dict[str, Any]:
    return {
        "event_id": f"evt_{number}",
        "recorded_at": AT + number,
        "payload": msgspec.to_builtins(event),
    }


async def test_every_kind_of_event_is_listed() -> None:
    async with Harness(ROUTES) as app:
        events = [USED, WAS_SET, REMOVED, REACHED]
        app.reads.when("billing_events", [row(n, event) for n, event in enumerate(events)])
        answer = await app.client.get(f"{TENANT_PATH}/events", headers=app.key())
        assert answer.status_code == 200
        used, was_set, removed, reached = answer.json()["items"]
        assert [used["event_type"], was_set["event_type"]] == ["usage_recorded", "budget_set"]
        assert used["usage"] == [
            {
                "feature_key": "m",
                "quantity": 3,
                "period_start": "2023-11-14T22:13:20Z",
                "period_end": None,
                "amount": None,
            }
        ]
        assert used["metadata"] == {"a": 1}
        assert was_set["budget"]["limit"] == 10
        assert removed["budget"]["budget_id"] == "m@day"
        assert (reached["budget"]["percent"], reached["budget"]["total"]) == (80, 9)


async def test_pages_go_on_where_the_last_one_ended() -> None:
    async with Harness(ROUTES) as app:
        rows = [row(n, USED) for n in range(5, 0, -1)]
        asked: list[tuple[Any, ...]] = []

        def page(*params: Any) -> Any:
            asked.append(params)
            _, at, id, *_, limit = params
            return [r for r in rows if (r["recorded_at"], r["event_id"]) < (at, id)][:limit]

        app.reads.when("billing_events", page)
        found: list[str] = []
        cursor = ""
        while cursor is not None:
            answer = await app.client.get(
                f"{TENANT_PATH}/events",
                params={"limit": 2, "cursor": cursor, "event_type": "usage_recorded"},
                headers=app.key(roles=("viewer",)),
            )
            found += [item["event_id"] for item in answer.json()["items"]]
            cursor = answer.json()["next_cursor"]
        assert found == ["evt_5", "evt_4", "evt_3", "evt_2", "evt_1"]
        assert {params[0] for params in asked} == {TENANT}
        assert {params[3] for params in asked} == {"billing.usage_recorded.v1"}


async def test_what_may_not_be_listed() -> None:
    async with Harness(ROUTES) as app:
        other = TENANT_PATH.replace(TENANT, OTHER_TENANT)
        assert (await app.client.get(f"{other}/events", headers=app.key())).status_code == 404
        headers = app.key(roles=("compute",))
        assert (await app.client.get(f"{TENANT_PATH}/events", headers=headers)).status_code == 403
        for query in ("event_type=all", "limit=101", "cursor=x", "since=x"):
            answer = await app.client.get(f"{TENANT_PATH}/events?{query}", headers=app.key())
            assert answer.status_code == 422


class Live(WaitroomClient):
    """Billing with a live tail of a log in memory."""

    def __init__(self, app: Harness, hub: LiveHub, log: FakeLog) -> None:
        super().__init__(app.app, app.client, app.key(roles=("billing",)))
        self.harness, self.hub, self.log = app, hub, log

    async def use(self, meter: str, quantity: int = 1, tenant: str = TENANT) -> None:
        answer = await self.client.post(
            TENANT_PATH.replace(TENANT, tenant) + "/usage",
            json={"feature_key": meter, "quantity": quantity},
            headers=self.person if tenant == TENANT else self.harness.key(tenant=tenant),
        )
        assert answer.status_code == 201

    def place(self, offset: int) -> str:
        return f"billing:{self.hub.partition_of(TENANT, 'billing').partition}:{offset}"


@asynccontextmanager
async def live() -> AsyncIterator[Live]:
    log = FakeLog(partitions=1)
    hub = LiveHub(log.consumer, CODEC)

    async def apply(recorded: Sequence[Recorded]) -> None:
        for item in recorded:
            partition = hub.partition_of(item.envelope.tenant, "billing")
            headers = tuple(to_headers(item.envelope))
            offset = log.end[partition]
            log.records[partition].append(
                FakeRecord(*partition, offset, headers, CODEC.encode(item.event))
            )
            log.end[partition] = offset + 1
            async with log.changed:
                log.changed.notify_all()

    await hub.start()
    try:
        async with Harness(ROUTES, apply=apply) as app:
            app.services.live = hub
            yield Live(app, hub, log)
    finally:
        await hub.stop()


async def test_the_stream_tells_what_happens_to_the_callers_tenant() -> None:
    async with live() as it, it.stream(STREAM, it.person) as reader:
        await reader.until("retry:")
        await it.use("other", tenant=OTHER_TENANT)
        await it.use("m", 3)
        text = await reader.until("data:")
        block = next(part for part in text.split("\n\n") if "data:" in part)
        id, event, data = block.split("\n")
        assert id == f"id: {it.place(1)}"
        assert event == "event: usage_recorded"
        found = msgspec.json.decode(data.removeprefix("data: "))
        assert found["tenant_id"] == TENANT
        assert found["usage"][0]["quantity"] == 3
        assert text.count("data:") == 1


async def test_the_stream_resumes_by_header_or_query_and_can_be_narrowed() -> None:
    async with live() as it:
        for meter in ("m", "n", "m"):
            await it.use(meter)
        headers = it.person | {"Last-Event-ID": it.place(0)}
        async with it.stream(STREAM, headers) as reader:
            text = await reader.until(it.place(2))
            assert text.count("data:") == 2
        async with it.stream(STREAM, it.person, f"last_event_id={it.place(0)}&meter=m") as reader:
            text = await reader.until(it.place(2))
            assert text.count("data:") == 1
        query = f"last_event_id={it.place(-1)}&event_type=budget_set"
        async with it.stream(STREAM, it.person, query) as reader:
            await reader.until("retry:")
            async with asyncio.timeout(10):
                path = f"{TENANT_PATH}/budgets/m/day"
                await it.client.put(path, json={"limit": 5}, headers=it.person)
            text = await reader.until("data:")
            assert "event: budget_set" in text
            assert text.count("data:") == 1


@pytest.mark.parametrize("position", ["x", "events:0:1", "billing:7:1"])
async def test_a_position_of_another_stream_is_refused(position: str) -> None:
    async with live() as it:
        answer = await it.client.get(STREAM, headers=it.person | {"Last-Event-ID": position})
        assert answer.status_code == 400


async def test_too_many_streams_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.live.LISTENERS_PER_TENANT_MAX", 0)
    async with live() as it:
        answer = await it.client.get(STREAM, headers=it.person)
        assert answer.status_code == 429
        assert answer.headers["retry-after"]
