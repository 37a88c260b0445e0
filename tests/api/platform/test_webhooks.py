"""Webhooks over HTTP: made, shown, changed, tried, looked after and deleted."""

from collections.abc import Sequence
from typing import Any

import httpx
import pytest
from standardwebhooks import Webhook

from commands.platform.webhook_endpoint import DisableWebhookEndpoint
from commands.platform.webhook_subscription import WEBHOOKS_MAX
from infra.ids import new_id
from projections.platform import WEBHOOK_ENDPOINTS, WEBHOOK_SUBSCRIPTIONS
from schemas.envelope import SYSTEM
from schemas.platform.webhook import WebhookRedriven, WebhookRequested
from streams.bus import CommandRequest
from streams.effects import Recorded
from tests.api.fhe.world import Table
from tests.api.harness import OTHER_TENANT, TENANT, Harness

URL = "https://hooks.example/weir"
MADE = {"url": URL, "event_types": ["job.*", "key.deleted"], "description": "ours"}
PATH = "/api/v1/webhooks"


class World:
    """`async with World() as world: await world.call(…)`, the read models filled by reducers."""

    def __init__(self) -> None:
        self.subscriptions = Table(WEBHOOK_SUBSCRIPTIONS, "id")
        self.endpoints = Table(WEBHOOK_ENDPOINTS, "id")
        self.harness = Harness(apply=self._apply)
        self.harness.reads.when(f"FROM {WEBHOOK_SUBSCRIPTIONS.table}", self._rows)
        self.headers = self.harness.key()

    async def __aenter__(self) -> "World":
        await self.harness.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.harness.__aexit__()

    async def call(self, method: str, path: str = "", body: Any = None, **more: Any) -> Any:
        headers = {**more.get("headers", self.headers), **more.get("also", {})}
        return await self.harness.client.request(method, PATH + path, json=body, headers=headers)

    async def made(self, **fields: Any) -> Any:
        answer = await self.call("POST", body={**MADE, **fields})
        assert answer.status_code == 201, answer.text
        return answer.json()

    async def disable(self, webhook_id: str) -> None:
        """As the sender does when the endpoint is gone."""
        command = DisableWebhookEndpoint("410 Gone")
        request = CommandRequest(
            tenant=TENANT,
            stream_id=webhook_id,
            command=command,
            actor=SYSTEM,
            command_id=new_id("cmd"),
        )
        await self.harness.bus.send(request)

    async def _apply(self, recorded: Sequence[Recorded]) -> None:
        for item in recorded:
            self.subscriptions.apply(item)
            self.endpoints.apply(item)

    def _rows(self, *params: Any) -> list[dict[str, Any]]:
        found = self.subscriptions.answer(*params)
        open_ones = [row for row in found if row["closed_at"] is None]
        return [{**self.endpoints.rows[row["tenant"], row["id"]], **row} for row in open_ones]


def error(answer: httpx.Response, status: int) -> Any:
    assert answer.status_code == status, answer.text
    return answer.json()["error"]


async def test_a_webhook_is_made_shown_changed_and_deleted() -> None:
    async with World() as world:
        made = await world.made()
        secret = made.pop("secret")
        assert Webhook(secret)
        assert (made["status"], made["event_types"]) == ("active", ["job.*", "key.deleted"])
        one = f"/{made['webhook_id']}"
        assert (await world.call("GET", one)).json() == made
        listed = (await world.call("GET")).json()
        assert listed == {"data": [made], "next_cursor": None, "has_more": False}
        change = {"url": "https://else.example/", "event_types": ["*"]}
        changed = (await world.call("PATCH", one, change)).json()
        assert changed == {**made, **change}
        for _ in range(2):
            assert (await world.call("DELETE", one)).status_code == 204
        assert error(await world.call("GET", one), 404)["code"] == "not_found"
        for event in world.harness.bus.payloads():
            assert secret not in str(event)


async def test_a_repeat_shows_the_same_secret() -> None:
    async with World() as world:
        also = {"Idempotency-Key": "hook-1"}
        first = await world.call("POST", body=MADE, also=also)
        again = await world.call("POST", body=MADE, also=also)
        assert (again.status_code, again.json()) == (201, first.json())
        assert again.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("fields", "status", "field"),
    [
        ({"url": "ftp://hooks.example/"}, 400, "url"),
        ({"url": "http://10.0.0.1/"}, 400, "url"),
        ({"url": "http://[::1]/"}, 400, "url"),
        ({"url": "https://me:secret@hooks.example/"}, 400, "url"),
        ({"event_types": ["job.started"]}, 400, "event_types"),
        ({"event_types": []}, 422, "event_types"),
        ({"description": "x" * 201}, 422, "description"),
    ],
)
async def test_what_cannot_be_a_webhook(fields: dict[str, Any], status: int, field: str) -> None:
    async with World() as world:
        told = error(await world.call("POST", body={**MADE, **fields}), status)
        assert field in str(told)
        assert (await world.call("GET")).json()["data"] == []


async def test_a_tenant_has_so_many() -> None:
    async with World() as world:
        made = [await world.made() for _ in range(WEBHOOKS_MAX)]
        assert error(await world.call("POST", body=MADE), 409)["code"] == "conflict"
        await world.call("DELETE", f"/{made[3]['webhook_id']}")
        await world.made()
        other = world.harness.key(OTHER_TENANT)
        assert (await world.call("POST", body=MADE, headers=other)).status_code == 201


async def test_a_test_event_is_asked_for() -> None:
    async with World() as world:
        made = await world.made()
        answer = await world.call("POST", f"/{made['webhook_id']}/test")
        assert answer.status_code == 202
        (sent,) = world.harness.bus.emitted(WebhookRequested)
        assert answer.json() == {"delivery_id": sent.event_id}
        assert sent.event_type == "webhook.test"


async def test_a_disabled_webhook_is_enabled_and_a_secret_rotated() -> None:
    async with World() as world:
        made = await world.made()
        one = f"/{made['webhook_id']}"
        await world.disable(made["webhook_id"])
        disabled = (await world.call("GET", one)).json()
        assert (disabled["status"], disabled["status_reason"]) == ("disabled", "410 Gone")
        assert error(await world.call("POST", f"{one}/test"), 409)["code"] == "conflict"
        enabled = (await world.call("POST", f"{one}/enable")).json()
        assert enabled == {key: made[key] for key in enabled}
        also = {"Idempotency-Key": "rotate-1"}
        turned = await world.call("POST", f"{one}/rotate-secret", {"overlap_hours": 1}, also=also)
        again = await world.call("POST", f"{one}/rotate-secret", {"overlap_hours": 1}, also=also)
        assert turned.json() == again.json()
        assert turned.json()["secret"] != made["secret"]
        assert turned.json()["previous_valid_until"]


async def test_deliveries_are_shown_and_sent_again() -> None:
    row = {
        "event_id": "evt_1",
        "event_type": "job.completed",
        "body": '{"type":"job.completed"}',
        "status": "dead",
        "reason": "",
        "attempts": 8,
        "requested_at": 5,
        "updated_at": 6,
        "retry_at": None,
    }
    attempt = {
        "event_id": "evt_1",
        "number": 8,
        "outcome": "dead",
        "attempted_at": 6,
        "duration_ms": 3,
        "status_code": 500,
        "error": "",
        "response": "no",
    }
    async with World() as world:
        one = f"/{(await world.made())['webhook_id']}"
        reads = world.harness.reads
        reads.when("FROM webhook_deliveries_v1", [row, {**row, "event_id": "evt_0"}])
        reads.when("FROM webhook_attempts_v1", [attempt])
        page = (await world.call("GET", f"{one}/deliveries?limit=1&status=dead")).json()
        (shown,) = page["data"]
        assert (shown["delivery_id"], shown["status"]) == ("evt_1", "dead")
        assert shown["attempts"][0]["response"] == "no" and page["has_more"]
        cursor = page["next_cursor"]
        assert (await world.call("GET", f"{one}/deliveries?cursor={cursor}")).status_code == 200
        again = await world.call("POST", f"{one}/deliveries/evt_1/redeliver")
        assert (again.status_code, again.json()["delivery_id"]) == (202, "evt_1")
        assert len(world.harness.bus.emitted(WebhookRedriven)) == 1
        reads.when("FROM webhook_deliveries_v1", [{**row, "status": "waiting"}])
        waiting = await world.call("POST", f"{one}/deliveries/evt_1/redeliver")
        assert error(waiting, 409)["code"] == "conflict"


async def test_a_viewer_looks_and_a_biller_does_not() -> None:
    async with World() as world:
        viewer = world.harness.key(roles=("viewer",))
        assert (await world.call("GET", headers=viewer)).status_code == 200
        error(await world.call("POST", body=MADE, headers=viewer), 403)
        error(await world.call("GET", headers=world.harness.key(roles=("billing",))), 403)
