"""Check-ins over HTTP: asked, judged, decided once."""

import hashlib
from typing import Any

import pytest

from commands.approvals.check_in_state import ExpireCheckIn
from schemas.envelope import SYSTEM
from streams.bus import CommandRequest
from tests.api.approvals.client import sha256
from tests.api.approvals.conftest import Waitroom
from tests.api.harness import OTHER_TENANT, TENANT

RULES = [
    {"name": "no drops", "action": "forbid", "when": {"action": {"prefix": "drop"}}},
    {"name": "reads", "action": "auto_approve", "when": {"action": {"glob": "read *"}}},
]


async def test_a_check_in_is_asked_and_approved(waitroom: Waitroom) -> None:
    room, agent = await waitroom.room(), await waitroom.agent()
    asked = await waitroom.check_in(agent, context={"b": 1.0, "a": [True, None]})
    assert (asked["status"], asked["room_id"]) == ("pending", room["id"])
    assert (asked["risk_level"], asked["urgency"]) == ("medium", "normal")
    assert (asked["timeout_minutes"], asked["timeout_action"]) == (60, "cancel")
    assert asked["policy"]["source"] == "default"
    text = '{"action":"refund an order","context":{"a":[true,null],"b":1}}'
    assert asked["payload_hash"] == hashlib.sha256(text.encode()).hexdigest()
    path = f"/v1/check-ins/{asked['id']}"
    body = {"reason": "fine", "payload_hash": asked["payload_hash"]}
    approved = await waitroom.person_calls("POST", f"{path}/approve", body)
    assert approved.status_code == 200
    decided = approved.json()["data"]
    assert (decided["status"], decided["decision_reason"]) == ("approved", "fine")
    assert (decided["decision_source"], decided["modifications"]) == ("human", None)
    status = (await waitroom.call("GET", f"{path}/status", agent)).json()["data"]
    assert status.items() <= decided.items()
    found = (await waitroom.call("GET", path, agent)).json()["data"]
    assert decided.items() <= found.items()
    assert found["messages"] == []
    assert [(each["type"], each["role"]) for each in found["participants"]] == [
        ("agent", "requester"),
        ("user", "decider"),
    ]


async def test_deciding_what_this_process_created_asks_no_database(waitroom: Waitroom) -> None:
    await waitroom.room()
    asked = await waitroom.check_in(await waitroom.agent())
    before = len(waitroom.harness.reads.asked)
    await waitroom.person_calls("POST", f"/v1/check-ins/{asked['id']}/approve")
    assert len(waitroom.harness.reads.asked) == before


async def test_a_rejection_and_a_modification_reach_the_agent(waitroom: Waitroom) -> None:
    await waitroom.room()
    agent = await waitroom.agent()
    for verb, body, status in (
        ("reject", {"reason": "no"}, "rejected"),
        ("modify", {"reason": "half", "modifications": {"amount": 60}}, "modified"),
    ):
        asked = await waitroom.check_in(agent)
        path = f"/v1/check-ins/{asked['id']}"
        assert (await waitroom.person_calls("POST", f"{path}/{verb}", body)).status_code == 200
        found = (await waitroom.call("GET", f"{path}/status", agent)).json()["data"]
        assert (found["status"], found["decision_reason"]) == (status, body["reason"])
        assert found["modifications"] == body.get("modifications")


async def test_a_modification_keeps_both_payloads_and_the_agent_is_told_what_to_run(
    waitroom: Waitroom,
) -> None:
    await waitroom.room()
    agent = await waitroom.agent()
    asked = await waitroom.check_in(agent, context={"amount": 120, "to": "a", "note": "?"})
    path = f"/v1/check-ins/{asked['id']}"
    changes = {"amount": 60, "note": None}
    body = {"reason": "half", "modifications": changes}
    await waitroom.person_calls("POST", f"{path}/modify", body)
    kept = (await waitroom.person_calls("GET", path)).json()["data"]
    assert (kept["context"], kept["modifications"]) == (asked["context"], changes)
    told = (await waitroom.call("GET", f"{path}/status", agent)).json()["data"]
    assert (told["status"], told["modifications"]) == ("modified", changes)
    assert told["payload_hash"] == asked["payload_hash"]
    assert told["approved_hash"] == sha256("refund an order", {"amount": 60, "to": "a"})
    assert "context" not in told
    shown = (await waitroom.call("GET", path, agent)).json()["data"]
    assert (shown["context"], shown["modifications"]) == ({"amount": 60, "to": "a"}, changes)
    assert sha256(shown["action"], shown["context"]) == shown["approved_hash"]
    done = await waitroom.call("POST", f"{path}/outcome", agent, {"status": "succeeded"})
    assert done.json()["data"]["context"] == {"amount": 60, "to": "a"}


@pytest.mark.parametrize("verb", ["approve", "reject"])
async def test_what_is_run_unchanged_is_what_was_asked(waitroom: Waitroom, verb: str) -> None:
    await waitroom.room()
    agent = await waitroom.agent()
    asked = await waitroom.check_in(agent, context={"amount": 120})
    assert asked["approved_hash"] is None
    path = f"/v1/check-ins/{asked['id']}"
    await waitroom.person_calls("POST", f"{path}/{verb}", {"reason": "so"})
    shown = (await waitroom.call("GET", path, agent)).json()["data"]
    assert shown["context"] == {"amount": 120}
    assert shown["approved_hash"] == (asked["payload_hash"] if verb == "approve" else None)


async def test_the_second_decision_is_told_about_the_first(waitroom: Waitroom) -> None:
    await waitroom.room()
    path = f"/v1/check-ins/{(await waitroom.check_in(await waitroom.agent()))['id']}"
    first = (await waitroom.person_calls("POST", f"{path}/approve")).json()["data"]
    for verb, body in (("approve", {}), ("reject", {"reason": "no"})):
        answer = await waitroom.person_calls("POST", f"{path}/{verb}", body)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["statusCode"]) == (409, "CONFLICT", 409)
        for name in ("decision_id", "decided_by", "decided_at", "status"):
            assert error["details"][name] == first[name]


async def test_the_same_idempotency_key_decides_once_with_one_answer(waitroom: Waitroom) -> None:
    await waitroom.room()
    path = f"/v1/check-ins/{(await waitroom.check_in(await waitroom.agent()))['id']}/approve"
    headers = waitroom.person | {"Idempotency-Key": "yes"}
    answers = [await waitroom.call("POST", path, headers, {}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json() == answers[1].json()


async def test_a_decision_about_something_else_is_a_conflict(waitroom: Waitroom) -> None:
    await waitroom.room()
    asked = await waitroom.check_in(await waitroom.agent())
    path = f"/v1/check-ins/{asked['id']}/approve"
    answer = await waitroom.person_calls("POST", path, {"payload_hash": "0" * 64})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "CONFLICT")


async def test_rules_answer_at_once_and_say_which(waitroom: Waitroom) -> None:
    await waitroom.room(policies={"rules": RULES})
    agent = await waitroom.agent()
    read = await waitroom.check_in(agent, action="Read the ledger")
    assert (read["status"], read["decision_source"]) == ("approved", "policy")
    assert (read["policy"]["rule_index"], read["policy"]["rule_name"]) == (1, "reads")
    assert read["expires_at"] is None
    body = {"action": "drop tables"}
    answer = await waitroom.call("POST", "/v1/rooms/payments/check-in", agent, body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (403, "POLICY_FORBIDS")
    assert error["details"]["rule_name"] == "no drops"


async def test_an_agent_withdraws_its_own_question_only(waitroom: Waitroom) -> None:
    await waitroom.room()
    agent, other = await waitroom.agent(), await waitroom.agent("Marvin")
    path = f"/v1/check-ins/{(await waitroom.check_in(agent))['id']}"
    refused = await waitroom.call("DELETE", path, other)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "FORBIDDEN")
    gone = await waitroom.call("DELETE", path, agent)
    assert (gone.status_code, gone.json()["data"]["status"]) == (200, "withdrawn")
    again = await waitroom.call("DELETE", path, agent)
    assert (again.status_code, again.json()["error"]["code"]) == (409, "CONFLICT")


@pytest.mark.parametrize(
    ("timeout_action", "status", "overdue"),
    [("cancel", "expired", False), ("auto_approve", "approved", False), ("hold", "pending", True)],
)
async def test_a_timeout_settles_or_holds(
    waitroom: Waitroom, timeout_action: str, status: str, overdue: bool
) -> None:
    await waitroom.room()
    asked = await waitroom.check_in(
        await waitroom.agent(), timeout_minutes=1, timeout_action=timeout_action
    )
    state = waitroom.harness.bus.state(TENANT, "approvals.check_in", asked["id"])
    expire = ExpireCheckIn(state.room_id, state.agent_id, state.due_at)
    request = CommandRequest(
        tenant=TENANT, stream_id=asked["id"], command=expire, actor=SYSTEM, command_id="cmd_t"
    )
    await waitroom.harness.bus.post(request)
    path = f"/v1/check-ins/{asked['id']}/status"
    found = (await waitroom.person_calls("GET", path)).json()["data"]
    assert (found["status"], found["overdue"]) == (status, overdue)


async def test_pending_is_filtered_and_paged(waitroom: Waitroom) -> None:
    await waitroom.room()
    agents = [await waitroom.agent(name) for name in ("One", "Two")]
    asked = []
    for number in range(6):
        fields = {
            "risk_level": ["low", "high"][number % 2],
            "urgency": ["low", "urgent"][number // 3],
        }
        asked.append(await waitroom.check_in(agents[number % 2], **fields))
        waitroom.harness.clock.advance(1)
    await waitroom.person_calls("POST", f"/v1/check-ins/{asked[0]['id']}/approve")

    async def ids(query: str) -> list[str]:
        answer = await waitroom.person_calls("GET", f"/v1/rooms/payments/pending?{query}")
        return [check_in["id"] for check_in in answer.json()["data"]]

    order = [check_in["id"] for check_in in asked][::-1]
    assert await ids("") == order[:5]
    assert await ids("status=approved") == order[5:]
    assert await ids("risk_level=high") == order[0::2]
    assert await ids("urgency=urgent") == order[:3]
    assert await ids(f"agent_id={asked[2]['agent_id']}&urgency=urgent") == [order[1]]
    first = (await waitroom.person_calls("GET", "/v1/rooms/payments/pending?limit=3")).json()
    assert first["has_more"] is True
    rest = await ids(f"limit=3&cursor={first['cursor']}")
    assert [check_in["id"] for check_in in first["data"]] + rest == order[:5]


@pytest.mark.parametrize(
    "query", ["status=claimed", "risk_level=x", "urgency=x", "limit=0", "limit=101", "cursor=*"]
)
async def test_a_filter_that_is_none_is_refused(waitroom: Waitroom, query: str) -> None:
    await waitroom.room()
    answer = await waitroom.person_calls("GET", f"/v1/rooms/payments/pending?{query}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "VALIDATION_ERROR")


@pytest.mark.parametrize(
    "change",
    [
        {"action": ""},
        {"action": "x" * 501},
        {"description": "x" * 5001},
        {"risk_level": "extreme"},
        {"urgency": "soon"},
        {"context": []},
        {"context": {"x": "y" * 10_240}},
        {"context": {"x": "\x00"}},
        {"timeout_minutes": 0},
        {"timeout_minutes": 10_081},
        {"timeout_minutes": 1.5},
        {"timeout_action": "explode"},
    ],
)
async def test_a_check_in_out_of_limits_is_refused(
    waitroom: Waitroom, change: dict[str, Any]
) -> None:
    await waitroom.room()
    body = {"action": "refund"} | change
    path = "/v1/rooms/payments/check-in"
    answer = await waitroom.call("POST", path, await waitroom.agent(), body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "VALIDATION_ERROR")
    assert next(iter(change)) in answer.json()["error"]["message"]


async def test_the_limits_themselves_are_allowed(waitroom: Waitroom) -> None:
    await waitroom.room()
    context = {"x": "y" * (10_240 - len('{"x":""}'))}
    asked = await waitroom.check_in(
        await waitroom.agent(),
        action="💥" * 500,
        description="💥" * 5000,
        context=context,
        timeout_minutes=10_080,
    )
    assert (asked["context"], asked["action"]) == (context, "💥" * 500)


@pytest.mark.parametrize(
    ("verb", "body"),
    [
        ("approve", {"reason": "x" * 2001}),
        ("approve", {"payload_hash": "x"}),
        ("reject", {}),
        ("reject", {"reason": ""}),
        ("reject", {"reason": "x" * 2001}),
        ("modify", {"reason": "x"}),
        ("modify", {"reason": "", "modifications": {}}),
        ("modify", {"reason": "x", "modifications": {"x": "y" * 10_240}}),
        ("modify", {"reason": "x", "modifications": []}),
    ],
)
async def test_a_decision_out_of_limits_is_refused(
    waitroom: Waitroom, verb: str, body: dict[str, Any]
) -> None:
    await waitroom.room()
    asked = await waitroom.check_in(await waitroom.agent())
    answer = await waitroom.person_calls("POST", f"/v1/check-ins/{asked['id']}/{verb}", body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "VALIDATION_ERROR")


async def test_a_room_out_of_scope_is_not_there(waitroom: Waitroom) -> None:
    payments = await waitroom.room()
    await waitroom.room("Refunds")
    wide, narrow = await waitroom.agent(), await waitroom.agent(room_scopes=[payments["id"]])
    elsewhere = await waitroom.check_in(wide, room="refunds")
    body = {"action": "refund"}
    for method, path in (
        ("POST", "/v1/rooms/refunds/check-in"),
        ("POST", f"/v1/rooms/{elsewhere['room_id']}/check-in"),
        ("GET", f"/v1/check-ins/{elsewhere['id']}"),
        ("GET", f"/v1/check-ins/{elsewhere['id']}/status"),
        ("DELETE", f"/v1/check-ins/{elsewhere['id']}"),
    ):
        answer = await waitroom.call(method, path, narrow, body if method == "POST" else None)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "NOT_FOUND"), path


async def test_another_tenants_check_in_is_not_there(waitroom: Waitroom) -> None:
    room = await waitroom.room()
    asked = await waitroom.check_in(await waitroom.agent())
    stranger = waitroom.harness.human(OTHER_TENANT)
    their_agent = waitroom.harness.agent(OTHER_TENANT)
    path = f"/v1/check-ins/{asked['id']}"
    for method, at, headers, body in (
        ("GET", path, stranger, None),
        ("GET", f"{path}/status", stranger, None),
        ("POST", f"{path}/approve", stranger, {}),
        ("POST", f"{path}/reject", stranger, {"reason": "x"}),
        ("POST", f"{path}/modify", stranger, {"reason": "x", "modifications": {}}),
        ("DELETE", path, their_agent, None),
        ("POST", "/v1/rooms/payments/check-in", their_agent, {"action": "x"}),
    ):
        answer = await waitroom.call(method, at, headers, body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "NOT_FOUND"), at
    at = f"/v1/rooms/{room['id']}/check-in"
    assert (await waitroom.call("POST", at, their_agent, {"action": "x"})).status_code == 404
    assert (await waitroom.person_calls("GET", path)).json()["data"]["status"] == "pending"
