"""Watchers: made and removed by agents, seen by people, their secrets shown once."""

import asyncio
import base64
from typing import Any

import pytest
from standardwebhooks import Webhook

from commands.approvals import watcher
from commands.approvals.watcher import TriggerWatcher
from commands.platform.webhook_endpoint import DisableWebhookEndpoint
from schemas.platform.webhook import WebhookRedriven
from tests.api.approvals.conftest import Waitroom, as_system
from tests.api.approvals.streaming import live_waitroom
from tests.api.approvals.test_room_events import PATH, frames
from tests.api.harness import OTHER_TENANT, TENANT

WATCH = "/v1/rooms/payments/watch"
URL = "https://agents.example/hooks"
BODY: dict[str, Any] = {"event_types": ["check_in.decided", "signal.broadcast"]}


async def watch(it: Waitroom, agent: dict[str, str], **fields: Any) -> dict[str, Any]:
    answer = await it.call("POST", WATCH, agent, BODY | fields)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()["data"]
    return found


async def trigger(it: Waitroom, watcher: dict[str, Any]) -> None:
    """What the fan-out sends."""
    command = TriggerWatcher(
        room_id=watcher["room_id"],
        agent_id=watcher["agent_id"],
        event_id="evt_1",
        event_type="signal.broadcast",
        body='{"type":"signal.broadcast"}',
        partition=0,
        offset=7,
    )
    await as_system(it, watcher["id"], command)


async def test_an_agent_watches_a_room(waitroom: Waitroom) -> None:
    room, agent = await waitroom.room(), await waitroom.agent()
    made = await watch(waitroom, agent, filter={"status": ["approved", "modified"]})
    me = (await waitroom.call("GET", "/v1/agents/me", agent)).json()["data"]
    assert made["id"].startswith("wat_")
    assert (made["room_id"], made["agent_id"]) == (room["id"], me["id"])
    assert made["event_types"] == BODY["event_types"]
    assert made["filter"] == {"status": ["approved", "modified"]}
    assert (made["webhook_url"], made["webhook_secret"], made["status"]) == (None, None, "active")
    found = await waitroom.call("GET", f"/v1/watchers/{made['id']}", agent)
    del made["webhook_secret"]
    assert found.json()["data"] == made


async def test_a_webhooks_secret_is_shown_once_and_by_the_repeat_of_the_request(
    waitroom: Waitroom,
) -> None:
    await waitroom.room()
    agent = await waitroom.agent() | {"Idempotency-Key": "hook"}
    body = BODY | {"webhook_url": URL}
    first, again = [await waitroom.call("POST", WATCH, agent, body) for _ in range(2)]
    assert first.json() == again.json()
    assert first.headers["cache-control"] == "no-store"
    secret = first.json()["data"]["webhook_secret"]
    assert secret.startswith("whsec_")
    assert len(base64.b64decode(secret.removeprefix("whsec_"))) == 32
    assert Webhook(secret)
    found = await waitroom.call("GET", f"/v1/watchers/{first.json()['data']['id']}", agent)
    assert secret not in found.text
    kept = [repr(item) for item in waitroom.harness.bus.events]
    assert not any(secret.removeprefix("whsec_") in text for text in kept)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"event_types": []}, "event_types"),
        ({"event_types": ["check_in.decidet"]}, "event_types"),
        ({"event_types": ["watcher.triggered"]}, "event_types"),
        ({"filter": {"a": {"like": 1}}}, "filter.a"),
        ({"filter": {"a": "x" * 10_240}}, "filter"),
        ({"webhook_url": "ftp://agents.example"}, "webhook_url"),
        ({"webhook_url": "https://"}, "webhook_url"),
        ({"webhook_url": "https://ada:secret@agents.example"}, "webhook_url"),
        ({"webhook_url": "https://agents.example:99999/"}, "webhook_url"),
        ({"webhook_url": "http://127.0.0.1/hooks"}, "webhook_url"),
        ({"webhook_url": "http://[::ffff:10.0.0.1]/"}, "webhook_url"),
        ({"webhook_url": "http://169.254.169.254/latest/meta-data"}, "webhook_url"),
    ],
)
async def test_what_cannot_be_watched_is_refused(
    waitroom: Waitroom, fields: dict[str, Any], field: str
) -> None:
    await waitroom.room()
    answer = await waitroom.call("POST", WATCH, await waitroom.agent(), BODY | fields)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "VALIDATION_ERROR")
    assert field in str(error)
    assert "ada:secret" not in answer.text


async def test_an_own_network_may_be_allowed(waitroom: Waitroom) -> None:
    await waitroom.room()
    services = waitroom.harness.services
    changed = {"egress_allow": ("10.0.0.0/8",)}
    services.settings = type(services.settings)(**(vars(services.settings) | changed))
    await watch(waitroom, await waitroom.agent(), webhook_url="http://10.1.2.3/hooks")


async def test_people_do_not_watch_and_agents_only_where_their_keys_reach(
    waitroom: Waitroom,
) -> None:
    await waitroom.room()
    other = await waitroom.room("Refunds")
    narrow = await waitroom.agent(room_scopes=[other["id"]])
    assert (await waitroom.person_calls("POST", WATCH, BODY)).status_code == 403
    assert (await waitroom.call("POST", WATCH, narrow, BODY)).status_code == 404


async def test_only_the_agent_that_watches_removes_its_watcher(waitroom: Waitroom) -> None:
    await waitroom.room()
    agent, other = await waitroom.agent(), await waitroom.agent("Other")
    path = f"/v1/watchers/{(await watch(waitroom, agent, webhook_url=URL))['id']}"
    answer = await waitroom.call("DELETE", path, other)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "FORBIDDEN")
    assert (await waitroom.person_calls("DELETE", path)).status_code == 403
    removed = await waitroom.call("DELETE", path, agent)
    assert (removed.status_code, removed.json()["data"]["status"]) == (200, "removed")
    for method in ("GET", "DELETE"):
        assert (await waitroom.call(method, path, agent)).status_code == 404


async def test_people_see_every_watcher_and_an_agent_its_own(waitroom: Waitroom) -> None:
    await waitroom.room()
    agent, other = await waitroom.agent(), await waitroom.agent("Other")
    ids = []
    for headers in (agent, other, agent):
        waitroom.harness.clock.advance(1)
        ids.append((await watch(waitroom, headers))["id"])
    path = "/v1/rooms/payments/watchers"
    first = (await waitroom.person_calls("GET", f"{path}?limit=2")).json()
    assert [item["id"] for item in first["data"]] == [ids[2], ids[1]]
    cursor = first["cursor"]
    rest = (await waitroom.person_calls("GET", f"{path}?limit=2&cursor={cursor}")).json()
    assert ([item["id"] for item in rest["data"]], rest["has_more"]) == ([ids[0]], False)
    own = (await waitroom.call("GET", path, other)).json()["data"]
    assert [item["id"] for item in own] == [ids[1]]
    assert (await waitroom.call("GET", f"/v1/watchers/{ids[0]}", other)).status_code == 404
    assert (await waitroom.person_calls("GET", f"/v1/watchers/{ids[0]}")).status_code == 200
    stranger = waitroom.harness.human(OTHER_TENANT)
    assert (await waitroom.call("GET", f"/v1/watchers/{ids[0]}", stranger)).status_code == 404


async def test_a_room_has_a_bounded_number_of_watchers(
    waitroom: Waitroom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher, "WATCHERS_OF_ROOM_MAX", 1)
    await waitroom.room()
    agent = await waitroom.agent()
    keyed = agent | {"Idempotency-Key": "the one"}
    made = await watch(waitroom, keyed)
    assert await watch(waitroom, keyed) == made  # a repeat is none more
    answer = await waitroom.call("POST", WATCH, agent, BODY)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "CONFLICT")
    await waitroom.call("DELETE", f"/v1/watchers/{made['id']}", agent)
    at_once = [waitroom.call("POST", WATCH, agent, BODY) for _ in range(5)]
    codes = [answer.status_code for answer in await asyncio.gather(*at_once)]
    assert sorted(codes) == [201, 409, 409, 409, 409]


async def test_a_trigger_is_told_on_the_rooms_stream() -> None:
    async with live_waitroom() as it:
        await it.room()
        agent = await it.agent()
        watcher = await watch(it, agent)
        async with it.stream(PATH, agent) as reader:
            await reader.until("retry:")
            await trigger(it, watcher)
            text = await reader.until("watcher.triggered")
        ((_, event, told),) = frames(text)
        assert event == "watcher.triggered"
        assert (told["watcher_id"], told["event_id"]) == (watcher["id"], "evt_1")
        found = (await it.call("GET", f"/v1/watchers/{watcher['id']}", agent)).json()["data"]
        assert found["last_event_id"] == "evt_1"
        assert found["last_triggered_at"]


def delivery(it: Waitroom, watcher: dict[str, Any], **fields: Any) -> None:
    """A row of the sender's."""
    row = {
        "tenant": TENANT,
        "endpoint_id": watcher["id"],
        "event_id": "evt_1",
        "event_type": "signal.broadcast",
        "body": '{"type":"signal.broadcast"}',
        "status": "dead",
        "reason": "the endpoint answered 500",
        "attempts": 1,
        "requested_at": 1_700_000_000_000_000,
        "updated_at": 1_700_000_001_000_000,
        "retry_at": None,
        **fields,
    }
    it.tables.deliveries.append(row)


async def test_deliveries_are_listed_with_their_attempts(waitroom: Waitroom) -> None:
    await waitroom.room()
    agent = await waitroom.agent()
    watcher = await watch(waitroom, agent, webhook_url=URL)
    delivery(waitroom, watcher)
    delivery(waitroom, watcher, event_id="evt_2", status="delivered", reason="")
    attempt = {
        "event_id": "evt_1",
        "number": 1,
        "outcome": "dead",
        "attempted_at": 1_700_000_001_000_000,
        "duration_ms": 12,
        "status_code": 500,
        "error": "",
        "response": "broken",
    }
    waitroom.tables.attempts.append(attempt)
    path = f"/v1/watchers/{watcher['id']}/deliveries"
    found = (await waitroom.call("GET", f"{path}?status=dead", agent)).json()
    (item,) = found["data"]
    assert (item["event_id"], item["status"], item["attempt_count"]) == ("evt_1", "dead", 1)
    assert item["body"] == {"type": "signal.broadcast"}
    (tried,) = item["attempts"]
    assert (tried["status_code"], tried["response"]) == (500, "broken")
    every = (await waitroom.person_calls("GET", f"{path}?limit=1")).json()
    assert ([one["event_id"] for one in every["data"]], every["has_more"]) == (["evt_2"], True)
    rest = (await waitroom.person_calls("GET", f"{path}?cursor={every['cursor']}")).json()
    assert [one["event_id"] for one in rest["data"]] == ["evt_1"]
    other = await waitroom.agent("Other")
    assert (await waitroom.call("GET", path, other)).status_code == 404


async def test_a_person_has_a_settled_webhook_sent_again(waitroom: Waitroom) -> None:
    await waitroom.room()
    agent = await waitroom.agent()
    watcher = await watch(waitroom, agent, webhook_url=URL)
    delivery(waitroom, watcher)
    delivery(waitroom, watcher, event_id="evt_2", status="waiting")
    path = f"/v1/watchers/{watcher['id']}/deliveries"
    answer = await waitroom.person_calls("POST", f"{path}/evt_1/redeliver")
    assert (answer.status_code, answer.json()["data"]["event_id"]) == (202, "evt_1")
    (redriven,) = waitroom.harness.bus.emitted(WebhookRedriven)
    assert (redriven.endpoint_id, redriven.event_id) == (watcher["id"], "evt_1")
    waits = await waitroom.person_calls("POST", f"{path}/evt_2/redeliver")
    assert (waits.status_code, waits.json()["error"]["code"]) == (409, "CONFLICT")
    unknown = await waitroom.person_calls("POST", f"{path}/evt_3/redeliver")
    assert unknown.status_code == 404
    assert (await waitroom.call("POST", f"{path}/evt_1/redeliver", agent)).status_code == 403


async def test_a_disabled_watcher_is_enabled_by_its_agent_or_a_person(waitroom: Waitroom) -> None:
    await waitroom.room()
    agent, other = await waitroom.agent(), await waitroom.agent("Other")
    made = await watch(waitroom, agent, webhook_url=URL)
    path = f"/v1/watchers/{made['id']}"
    for headers in (agent, waitroom.person):
        await as_system(waitroom, made["id"], DisableWebhookEndpoint("it answered 410 Gone"))
        found = (await waitroom.call("GET", path, headers)).json()["data"]
        assert (found["status"], found["status_reason"]) == ("disabled", "it answered 410 Gone")
        assert (await waitroom.call("POST", f"{path}/enable", other)).status_code == 404
        enabled = await waitroom.call("POST", f"{path}/enable", headers)
        assert (enabled.status_code, enabled.json()["data"]["status"]) == (200, "active")
        assert (await waitroom.call("GET", path, headers)).json() == enabled.json()
    plain = await watch(waitroom, agent)
    without = await waitroom.call("POST", f"/v1/watchers/{plain['id']}/enable", agent)
    assert without.status_code == 404


async def test_a_rotated_secret_is_shown_once_and_by_the_repeat_of_the_request(
    waitroom: Waitroom,
) -> None:
    await waitroom.room()
    agent = await waitroom.agent()
    made = await watch(waitroom, agent, webhook_url=URL)
    path = f"/v1/watchers/{made['id']}/rotate-secret"
    keyed = agent | {"Idempotency-Key": "rotate"}
    first, again = [
        await waitroom.call("POST", path, keyed, {"overlap_hours": 2}) for _ in range(2)
    ]
    assert first.status_code == 200, first.text
    assert first.json() == again.json()
    assert first.headers["cache-control"] == "no-store"
    rotated = first.json()["data"]
    secret = rotated["webhook_secret"]
    assert secret not in ("", made["webhook_secret"])
    assert Webhook(secret)
    assert rotated["previous_valid_until"]
    assert all(secret not in repr(item) for item in waitroom.harness.bus.events)
    leaked = (await waitroom.person_calls("POST", path, {"overlap_hours": 0})).json()["data"]
    assert leaked["previous_valid_until"] is None
    assert len({made["webhook_secret"], secret, leaked["webhook_secret"]}) == 3
    refused = await waitroom.call("POST", path, agent, {"overlap_hours": 169})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "VALIDATION_ERROR")
    assert (await waitroom.call("POST", path, await waitroom.agent("Other"))).status_code == 404
