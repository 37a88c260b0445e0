"""Audit trails over HTTP. What the filters mean in ClickHouse is shown in tests/integration."""

from typing import Any

import msgspec

from projections.platform.audit_records import AUDIT_RECORDS
from schemas.platform.audit import AuditRecorded
from tests.api.approvals.client import sha256
from tests.api.approvals.conftest import Waitroom
from tests.api.harness import OTHER_TENANT, TENANT


def row(seq: int) -> dict[str, Any]:
    """A row of the table, as the query gives it."""
    record = AuditRecorded(
        tenant=TENANT,
        seq=seq,
        at=1_700_000_000_000_000,
        actor_kind="user",
        actor_id="usr_1",
        action="approvals.approve_check_in",
        resource_type="approvals.check_in",
        resource_id="ci_1",
        outcome="accepted",
        command_id=f"cmd_{seq}",
        details='{"room_id":"room_1"}',
        events=["approvals.check_in_approved.v1"],
        hash="ab",
    )
    fields: dict[str, Any] = msgspec.structs.asdict(record)
    return fields | {"at_micros": fields.pop("at")}


def conditions(waitroom: Waitroom) -> dict[str, Any]:
    """The parameters of the newest query."""
    sql, parameters = waitroom.harness.analytics.asked[-1]
    assert AUDIT_RECORDS.table in sql
    return dict(parameters)


async def test_a_rooms_trail_asks_for_all_that_touched_the_room(waitroom: Waitroom) -> None:
    room = await waitroom.room()
    waitroom.harness.analytics.when(AUDIT_RECORDS.table, [row(7)])
    answer = await waitroom.person_calls("GET", "/v1/rooms/payments/audit")
    (item,) = answer.json()["data"]
    assert (item["seq"], item["event_type"]) == (7, "approvals.approve_check_in")
    assert item["details"] == {"room_id": "room_1"}
    assert item["created_at"] == "2023-11-14T22:13:20Z"
    asked = conditions(waitroom)
    assert (asked["tenant"], asked["about"]) == (TENANT, [f"approvals.room/{room['id']}"])
    assert asked["limit"] == 51


async def test_an_agents_trail_asks_for_its_deeds_too(waitroom: Waitroom) -> None:
    agent = await waitroom.agent()
    id = (await waitroom.call("GET", "/v1/agents/me", agent)).json()["data"]["id"]
    assert (await waitroom.person_calls("GET", f"/v1/agents/{id}/audit")).json()["data"] == []
    asked = conditions(waitroom)
    assert (asked["by"], asked["about"]) == (id, [f"approvals.agent/{id}"])
    assert asked["limit"] == 21


async def test_of_a_modification_both_payloads_are_shown(waitroom: Waitroom) -> None:
    await waitroom.room()
    agent = await waitroom.agent()
    asked = await waitroom.check_in(agent, context={"amount": 120})
    task = await waitroom.task(context={"month": 3})
    body = {"reason": "half", "modifications": {"amount": 60}}
    rows = []
    for id, kind, event in (
        (asked["id"], "approvals.check_in", "approvals.check_in_modified.v1"),
        (task["id"], "approvals.task", "approvals.task_decided.v1"),
    ):
        answer = await waitroom.person_calls("POST", f"/v1/check-ins/{id}/modify", body)
        assert answer.status_code == 200, answer.text
        rows.append(row(9) | {"resource_type": kind, "resource_id": id, "events": [event]})
    waitroom.harness.analytics.when(AUDIT_RECORDS.table, [*rows, row(7)])
    items = (await waitroom.person_calls("GET", "/v1/rooms/payments/audit")).json()["data"]
    assert [item["payload"] for item in items] == [
        {
            "action": what["action"],
            "context": what["context"],
            "payload_hash": what["payload_hash"],
            "modifications": {"amount": 60},
            "approved_context": what["context"] | {"amount": 60},
            "approved_hash": sha256(what["action"], what["context"] | {"amount": 60}),
        }
        for what in (asked, task)
    ] + [None]


async def test_pages_follow_the_records_numbers(waitroom: Waitroom) -> None:
    waitroom.harness.analytics.when(AUDIT_RECORDS.table, [row(seq) for seq in (9, 8, 7)])
    first = (await waitroom.person_calls("GET", "/v1/audit?limit=2")).json()
    assert [item["seq"] for item in first["data"]] == [9, 8]
    assert first["has_more"] is True
    await waitroom.person_calls("GET", f"/v1/audit?limit=2&cursor={first['cursor']}")
    assert conditions(waitroom)["before"] == 8


async def test_a_filter_names_an_event_or_an_action(waitroom: Waitroom) -> None:
    await waitroom.person_calls("GET", "/v1/audit?event_type=approvals.check_in_approved.v1")
    assert conditions(waitroom)["event"] == "approvals.check_in_approved.v1"
    await waitroom.person_calls("GET", "/v1/audit?event_type=approve_check_in")
    assert conditions(waitroom)["action"] == "approve_check_in"


async def test_another_tenants_trails_are_not_there(waitroom: Waitroom) -> None:
    await waitroom.room()
    agent = await waitroom.agent()
    id = (await waitroom.call("GET", "/v1/agents/me", agent)).json()["data"]["id"]
    stranger = waitroom.harness.human(OTHER_TENANT)
    for path in ("/v1/rooms/payments/audit", f"/v1/agents/{id}/audit"):
        answer = await waitroom.call("GET", path, stranger)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "NOT_FOUND")
    assert not waitroom.harness.analytics.asked
    await waitroom.call("GET", "/v1/audit", stranger)
    assert conditions(waitroom)["tenant"] == OTHER_TENANT
