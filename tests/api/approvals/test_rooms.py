"""Rooms over HTTP."""

from typing import Any

import pytest

from tests.api.approvals.client import POLICIES
from tests.api.approvals.conftest import Waitroom
from tests.api.harness import OTHER_TENANT

LEFT_OUT = {
    "trust_thresholds": None,
    "timeout_override": True,
    "claim_minutes": 60,
    "approvals_required": 1,
    "escalate_after_minutes": None,
    "escalate_to": [],
}
RULE = {
    "name": "small refunds",
    "action": "auto_approve",
    "when": {
        "action": {"prefix": "refund"},
        "context": [{"path": "$.amount", "operator": "lte", "value": 50}],
    },
}


async def test_a_room_gets_a_slug_defaults_and_an_owner(waitroom: Waitroom) -> None:
    room = await waitroom.room("Vendor Payments")
    assert room["slug"] == "vendor-payments"
    assert room["policies"] == POLICIES | LEFT_OUT
    assert room["members"] == [{"user_id": room["created_by"], "role": "owner"}]
    assert room["created_at"].endswith("Z")


async def test_a_room_takes_partial_policies(waitroom: Waitroom) -> None:
    room = await waitroom.room(policies={"timeout_minutes": 5, "rules": [RULE]})
    assert room["policies"]["timeout_minutes"] == 5
    assert room["policies"]["default_action"] == "require_approval"
    (rule,) = room["policies"]["rules"]
    assert rule["when"]["context"] == RULE["when"]["context"]  # type: ignore[index]


async def test_a_room_is_found_by_slug_and_by_id(waitroom: Waitroom) -> None:
    room = await waitroom.room()
    for name in ("payments", room["id"]):
        answer = await waitroom.person_calls("GET", f"/v1/rooms/{name}")
        assert (answer.status_code, answer.json()["data"]) == (200, room)


async def test_a_taken_slug_is_a_conflict(waitroom: Waitroom) -> None:
    await waitroom.room(slug="pay")
    answer = await waitroom.person_calls("POST", "/v1/rooms", {"name": "x", "slug": "pay"})
    assert answer.status_code == 409
    assert answer.json()["error"] == {
        "code": "CONFLICT",
        "message": "the slug 'pay' is taken",
        "statusCode": 409,
        "details": {"field": "slug"},
    }


async def test_rooms_are_listed_in_pages_newest_first(waitroom: Waitroom) -> None:
    names = [f"Room {number}" for number in range(5)]
    for name in names:
        await waitroom.room(name)
        waitroom.harness.clock.advance(1)
    seen: list[str] = []
    cursor, more = "", True
    while more:
        path = f"/v1/rooms?limit=2&cursor={cursor}"
        answer = (await waitroom.person_calls("GET", path)).json()
        seen += [room["name"] for room in answer["data"]]
        cursor, more = answer["cursor"], answer["has_more"]
    assert seen == names[::-1]
    assert cursor is None


async def test_policies_are_replaced_as_a_whole(waitroom: Waitroom) -> None:
    await waitroom.room(policies={"rules": [RULE], "trust_thresholds": {"auto_approve_low": 30}})
    policies = POLICIES | {"default_action": "forbid"}
    answer = await waitroom.person_calls(
        "PUT", "/v1/rooms/payments/policies", {"policies": policies}
    )
    assert answer.status_code == 200
    expected = policies | LEFT_OUT
    assert answer.json()["data"]["policies"] == expected
    assert (await waitroom.person_calls("GET", "/v1/rooms/payments")).json() == answer.json()


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"timeout_minutes": 0}, "policies.timeout_minutes"),
        ({"timeout_minutes": 10_081}, "policies.timeout_minutes"),
        ({"claim_minutes": 0}, "policies.claim_minutes"),
        ({"claim_minutes": 10_081}, "policies.claim_minutes"),
        ({"timeout_action": "explode"}, "policies.timeout_action"),
        ({"rules": [{"action": "forbid", "when": {}}]}, "policies.rules[0].when"),
        ({"rules": [{"action": "forbid", "when": {"risk": ["low"]}}]}, "policies.rules[0].when"),
        ({"rules": [{"action": "forbid", "if": {}, "when": {}}]}, "policies.rules[0]"),
        (
            {"rules": [RULE, {"action": "forbid", "when": {"context": [{"path": "$..a"}]}}]},
            "policies.rules[1].when.context[0].operator",
        ),
        (
            {"rules": [{"action": "forbid", "when": {"schedule": {"timezone": "Nowhere"}}}]},
            "policies.rules[0].when.schedule.timezone",
        ),
        ({"trust_thresholds": {"auto_approve_high": 3}}, "policies.trust_thresholds"),
        *(
            ({"rules": [{"action": "forbid", "when": when}]}, f"policies.rules[0].when.{place}")
            for when, place in (
                ({"risk_levels": ["extreme"]}, "risk_levels[0]"),
                ({"urgencies": ["low", "soon"]}, "urgencies[1]"),
                ({"agent_ids": [7]}, "agent_ids[0]"),
                ({"platforms": [""]}, "platforms[0]"),
                ({"action": {}}, "action"),
                ({"action": {"regex": "x"}}, "action"),
                ({"trust": {"min": 101}}, "trust.min"),
                ({"schedule": {"weekdays": ["mon", "someday"]}}, "schedule.weekdays[1]"),
                ({"schedule": {"from_time": "25:00"}}, "schedule.from_time"),
                (
                    {"context": [{"path": "$.a", "operator": "gt", "value": None}]},
                    "context[0].value",
                ),
            )
        ),
    ],
)
async def test_faulty_policies_are_refused_with_their_place(
    waitroom: Waitroom, change: dict[str, Any], place: str
) -> None:
    await waitroom.room()
    body = {"policies": POLICIES | change}
    answer = await waitroom.person_calls("PUT", "/v1/rooms/payments/policies", body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["code"], error["statusCode"]) == ("VALIDATION_ERROR", 400)
    assert error["message"].startswith(f"{place}: ")


@pytest.mark.parametrize(
    "missing", ["default_action", "timeout_minutes", "timeout_action", "rules"]
)
async def test_replacing_needs_every_field_that_the_document_requires(
    waitroom: Waitroom, missing: str
) -> None:
    await waitroom.room()
    policies = {name: value for name, value in POLICIES.items() if name != missing}
    body = {"policies": policies}
    answer = await waitroom.person_calls("PUT", "/v1/rooms/payments/policies", body)
    assert answer.status_code == 400
    assert missing in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": ""},
        {"name": "x" * 201},
        {"name": "x", "slug": "Upper"},
        {"name": "x", "slug": "a_b"},
        {"name": "x", "slug": ""},
        {"name": "x", "slug": "x" * 101},
        {"name": "x", "description": "x" * 2001},
        {"name": "nul \x00"},
        {"name": 7},
    ],
)
async def test_a_room_out_of_limits_is_refused(waitroom: Waitroom, body: Any) -> None:
    answer = await waitroom.person_calls("POST", "/v1/rooms", body)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "VALIDATION_ERROR"


async def test_the_limits_themselves_are_allowed(waitroom: Waitroom) -> None:
    room = await waitroom.room("x" * 200, slug="y" * 100, description="z" * 2000)
    assert room["slug"] == "y" * 100


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "cursor=!!!", "cursor=YQ"])
async def test_a_page_out_of_limits_is_refused(waitroom: Waitroom, query: str) -> None:
    answer = await waitroom.person_calls("GET", f"/v1/rooms?{query}")
    assert answer.status_code == 400


async def test_an_agent_with_scopes_sees_those_rooms_only(waitroom: Waitroom) -> None:
    payments, _ = await waitroom.room(), await waitroom.room("Refunds")
    agent = await waitroom.agent(room_scopes=[payments["id"]])
    listed = (await waitroom.call("GET", "/v1/rooms", agent)).json()["data"]
    assert [room["slug"] for room in listed] == ["payments"]
    assert (await waitroom.call("GET", "/v1/rooms/payments", agent)).status_code == 200
    assert (await waitroom.call("GET", "/v1/rooms/refunds", agent)).status_code == 404


async def test_another_tenants_room_is_not_there(waitroom: Waitroom) -> None:
    room = await waitroom.room()
    stranger = waitroom.harness.human(OTHER_TENANT)
    for name in ("payments", room["id"]):
        for method, path, body in (
            ("GET", f"/v1/rooms/{name}", None),
            ("GET", f"/v1/rooms/{name}/pending", None),
            ("PUT", f"/v1/rooms/{name}/policies", {"policies": POLICIES}),
        ):
            answer = await waitroom.call(method, path, stranger, body)
            assert answer.status_code == 404, path
            assert answer.json()["error"]["code"] == "NOT_FOUND"
    assert (await waitroom.call("GET", "/v1/rooms", stranger)).json()["data"] == []


async def test_the_same_idempotency_key_makes_one_room(waitroom: Waitroom) -> None:
    headers = waitroom.person | {"Idempotency-Key": "k-1"}
    answers = [
        await waitroom.call("POST", "/v1/rooms", headers, {"name": "Payments"}) for _ in range(2)
    ]
    assert answers[0].json() == answers[1].json()
    assert len(waitroom.harness.bus.events) == 1
    other = await waitroom.call("POST", "/v1/rooms", headers, {"name": "Other"})
    assert other.status_code == 409


@pytest.mark.parametrize("role", ["viewer", "billing", "compute"])
async def test_who_may_not_write_opens_no_room(waitroom: Waitroom, role: str) -> None:
    person = waitroom.harness.human(roles=[role])
    answer = await waitroom.call("POST", "/v1/rooms", person, {"name": "x"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "FORBIDDEN")
