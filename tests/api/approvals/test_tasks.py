"""Tasks over HTTP: posted by people, claimed by one agent at a time, ended by people."""

import hashlib
from typing import Any

import pytest

from commands.approvals.task_state import ReturnTask
from infra.kafka import LogUnavailable
from schemas.approvals.task import TaskClaimRenewed
from schemas.envelope import SYSTEM
from streams.bus import CommandRequest
from tests.api.approvals.client import error
from tests.api.approvals.conftest import Waitroom
from tests.api.harness import OTHER_TENANT, TENANT

MINUTE_SECONDS = 60


async def me(waitroom: Waitroom, agent: dict[str, str]) -> str:
    found = await waitroom.call("GET", "/v1/agents/me", agent)
    return str(found.json()["data"]["id"])


@pytest.mark.parametrize("by", ["slug", "id"])
async def test_a_task_is_posted_to_a_room_by_slug_or_id(waitroom: Waitroom, by: str) -> None:
    room = await waitroom.room()
    task = await waitroom.task(
        room[by], description="all of it", risk_level="low", urgency="high", context={"b": 1}
    )
    assert task["id"].startswith("task_")
    assert (task["kind"], task["status"], task["room_id"]) == ("task", "pending", room["id"])
    assert (task["risk_level"], task["urgency"], task["context"]) == ("low", "high", {"b": 1})
    assert (task["agent_id"], task["claimed"], task["claimed_at"]) == (None, False, None)
    assert (task["expires_at"], task["overdue"], task["created_by"]) == (
        None,
        False,
        room["created_by"],
    )
    text = '{"action":"reconcile March","context":{"b":1}}'
    assert task["payload_hash"] == hashlib.sha256(text.encode()).hexdigest()


async def test_what_is_left_out_has_the_documents_defaults(waitroom: Waitroom) -> None:
    await waitroom.room()
    task = await waitroom.task()
    assert (task["risk_level"], task["urgency"], task["context"]) == ("medium", "normal", {})
    assert task["description"] == ""


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"action": ""},
        {"action": "x" * 501},
        {"action": "x", "description": "x" * 5001},
        {"action": "x", "risk_level": "none"},
        {"action": "x", "urgency": "now"},
        {"action": "x", "context": {"x": "y" * 10_240}},
        {"action": "x", "context": []},
    ],
)
async def test_a_task_out_of_limits_is_refused(waitroom: Waitroom, body: Any) -> None:
    await waitroom.room()
    answer = await waitroom.person_calls("POST", "/v1/rooms/payments/tasks", body)
    assert error(answer) == (400, "VALIDATION_ERROR")


async def test_one_agent_claims_and_the_others_are_told_who(waitroom: Waitroom) -> None:
    await waitroom.room()
    robby, marvin = await waitroom.agent(), await waitroom.agent("Marvin")
    task = await waitroom.task()
    won = await waitroom.acts(robby, "claim", task["id"])
    assert won.status_code == 200
    mine = won.json()["data"]
    assert (mine["status"], mine["claimed"], mine["agent_name"]) == ("in_progress", True, "Robby")
    assert mine["agent_id"] == await me(waitroom, robby)
    assert mine["claim_expires_at"] > mine["claimed_at"]
    lost = await waitroom.acts(marvin, "claim", task["id"])
    assert error(lost) == (409, "CONFLICT")
    assert lost.json()["error"]["details"] == {
        "status": "in_progress",
        "claimed_by": mine["agent_id"],
        "claimed_by_name": "Robby",
        "claimed_at": mine["claimed_at"],
    }
    again = await waitroom.acts(robby, "claim", task["id"])
    assert again.json()["data"] == mine
    found = (await waitroom.person_calls("GET", f"/v1/check-ins/{task['id']}")).json()["data"]
    assert mine.items() <= found.items()


async def test_a_released_task_is_free_for_the_next(waitroom: Waitroom) -> None:
    await waitroom.room()
    robby, marvin = await waitroom.agent(), await waitroom.agent("Marvin")
    id = (await waitroom.task())["id"]
    assert error(await waitroom.acts(robby, "release", id)) == (409, "CONFLICT")
    await waitroom.acts(robby, "claim", id)
    assert error(await waitroom.acts(marvin, "release", id)) == (403, "FORBIDDEN")
    free = (await waitroom.acts(robby, "release", id)).json()["data"]
    assert (free["status"], free["agent_id"], free["claim_expires_at"]) == ("pending", None, None)
    assert (await waitroom.acts(robby, "release", id)).json()["data"] == free
    assert (await waitroom.acts(marvin, "claim", id)).status_code == 200


async def test_helpers_join_whoever_asked_for_help(waitroom: Waitroom) -> None:
    await waitroom.room()
    robby, marvin = await waitroom.agent(), await waitroom.agent("Marvin")
    id = (await waitroom.task())["id"]
    assert error(await waitroom.acts(robby, "help", id)) == (409, "CONFLICT")
    await waitroom.acts(robby, "claim", id)
    assert error(await waitroom.acts(marvin, "join", id)) == (409, "CONFLICT")
    assert error(await waitroom.acts(marvin, "help", id)) == (403, "FORBIDDEN")
    asked = (await waitroom.acts(robby, "help", id, {"body": "which day?"})).json()["data"]
    assert asked["help"]["body"] == "which day?"
    joined = (await waitroom.acts(marvin, "join", id)).json()["data"]
    assert [helper["agent_name"] for helper in joined["helpers"]] == ["Marvin"]
    assert (await waitroom.acts(marvin, "join", id)).json()["data"] == joined
    assert error(await waitroom.acts(robby, "join", id)) == (409, "CONFLICT")
    found = (await waitroom.call("GET", f"/v1/check-ins/{id}", robby)).json()["data"]
    assert joined.items() <= found.items()
    assert [(each["name"], each["role"]) for each in found["participants"]] == [
        ("User 1", "requester"),
        ("Robby", "claimer"),
        ("Marvin", "helper"),
    ]
    too_long = {"body": "x" * 5001}
    assert error(await waitroom.acts(robby, "help", id, too_long)) == (400, "VALIDATION_ERROR")
    assert (await waitroom.acts(robby, "help", id)).json()["data"]["help"]["body"] == ""


@pytest.mark.parametrize(
    ("verb", "body", "status"),
    [
        ("approve", {}, "approved"),
        ("reject", {"reason": "not this way"}, "rejected"),
        ("modify", {"reason": "almost", "modifications": {"month": "April"}}, "modified"),
    ],
)
async def test_a_person_ends_a_task_as_a_check_in(
    waitroom: Waitroom, verb: str, body: Any, status: str
) -> None:
    await waitroom.room()
    agent = await waitroom.agent()
    task = await waitroom.task()
    path = f"/v1/check-ins/{task['id']}"
    await waitroom.acts(agent, "claim", task["id"])
    wrong = body | {"payload_hash": "0" * 64}
    assert error(await waitroom.person_calls("POST", f"{path}/{verb}", wrong)) == (409, "CONFLICT")
    ended = (await waitroom.person_calls("POST", f"{path}/{verb}", body)).json()["data"]
    assert (ended["status"], ended["decision_source"]) == (status, "human")
    assert ended["modifications"] == body.get("modifications")
    assert (ended["agent_name"], ended["claim_expires_at"]) == ("Robby", None)
    seen = (await waitroom.call("GET", f"{path}/status", agent)).json()["data"]
    assert seen.items() <= ended.items()
    late = await waitroom.person_calls("POST", f"{path}/{verb}", body)
    assert late.json()["error"]["details"]["decided_at"] == ended["decided_at"]
    for act in ("claim", "release", "help", "join"):
        assert error(await waitroom.acts(agent, act, task["id"])) == (409, "CONFLICT")
    agent_id = await me(waitroom, agent)
    (trust,) = (await waitroom.person_calls("GET", f"/v1/agents/{agent_id}/trust")).json()["data"]
    assert trust[f"{status}_count"] == 1


async def test_a_task_that_nobody_has_is_dropped(waitroom: Waitroom) -> None:
    await waitroom.room()
    task = await waitroom.task()
    path = f"/v1/check-ins/{task['id']}/reject"
    ended = (await waitroom.person_calls("POST", path, {"reason": "not needed"})).json()["data"]
    assert (ended["status"], ended["agent_id"]) == ("rejected", None)


async def test_tasks_are_filtered_and_paged(waitroom: Waitroom) -> None:
    await waitroom.room()
    await waitroom.room("Refunds")
    robby, marvin = await waitroom.agent(), await waitroom.agent("Marvin")
    ids = []
    for number in range(6):
        ids.append((await waitroom.task(action=f"task {number}"))["id"])
        waitroom.harness.clock.advance(1)
    await waitroom.task("refunds")
    for id in ids[:3]:
        await waitroom.acts(robby, "claim", id)
    await waitroom.acts(marvin, "claim", ids[3])
    await waitroom.person_calls("POST", f"/v1/check-ins/{ids[0]}/approve")
    await waitroom.person_calls("POST", f"/v1/check-ins/{ids[5]}/reject", {"reason": "no"})

    async def listed(query: str, path: str = "/v1/rooms/payments/tasks") -> list[int]:
        found: list[int] = []
        cursor, more = "", True
        while more:
            answer = await waitroom.call("GET", f"{path}?limit=2&cursor={cursor}&{query}", robby)
            assert answer.status_code == 200, answer.text
            page = answer.json()
            found += [ids.index(task["id"]) for task in page["data"]]
            cursor, more = page["cursor"] or "", page["has_more"]
        return found

    assert await listed("") == [5, 4, 3, 2, 1, 0]
    assert await listed("claimed=true") == [3, 2, 1, 0]
    assert await listed("claimed=false") == [5, 4]
    assert await listed("status=pending") == [4]
    assert await listed("status=in_progress&claimed=true") == [3, 2, 1]
    assert await listed("status=rejected&claimed=false") == [5]
    mine = "/v1/check-ins/claimed"
    assert await listed("", mine) == [2, 1, 0]
    assert await listed("status=in_progress", mine) == [2, 1]
    assert await listed("status=approved", mine) == [0]
    await waitroom.acts(robby, "release", ids[2])
    assert await listed("", mine) == [1, 0]
    for path in ("/v1/rooms/payments/tasks", mine):
        for wrong in ("status=done", "limit=0", "limit=101", "cursor=zzz"):
            answer = await waitroom.call("GET", f"{path}?{wrong}", robby)
            assert error(answer) == (400, "VALIDATION_ERROR")
    answer = await waitroom.call("GET", "/v1/rooms/payments/tasks?claimed=perhaps", robby)
    assert error(answer) == (400, "VALIDATION_ERROR")


async def test_pending_lists_what_waits_for_a_person_and_no_task(waitroom: Waitroom) -> None:
    await waitroom.room()
    asked = await waitroom.check_in(await waitroom.agent())
    await waitroom.task()
    pending = (await waitroom.person_calls("GET", "/v1/rooms/payments/pending")).json()["data"]
    assert [(item["id"], item["kind"]) for item in pending] == [(asked["id"], "check_in")]


async def test_a_question_is_no_task(waitroom: Waitroom) -> None:
    await waitroom.room()
    agent = await waitroom.agent()
    asked = await waitroom.check_in(agent)
    for verb in ("claim", "release", "help", "join"):
        assert error(await waitroom.acts(agent, verb, asked["id"])) == (409, "CONFLICT")
    task = await waitroom.task()
    withdrawn = await waitroom.call("DELETE", f"/v1/check-ins/{task['id']}", agent)
    assert error(withdrawn) == (403, "FORBIDDEN")


async def test_another_tenants_task_is_not_there(waitroom: Waitroom) -> None:
    await waitroom.room()
    id = (await waitroom.task())["id"]
    harness = waitroom.harness
    path = f"/v1/check-ins/{id}"
    for verb in ("claim", "release", "help", "join"):
        stranger = harness.agent(OTHER_TENANT)
        assert error(await waitroom.acts(stranger, verb, id)) == (404, "NOT_FOUND")
    for method, where, body in (
        ("GET", path, None),
        ("GET", f"{path}/status", None),
        ("GET", f"{path}/messages", None),
        ("POST", f"{path}/messages", {"body": "x"}),
        ("POST", f"{path}/approve", {}),
    ):
        stranger = harness.human(OTHER_TENANT)
        assert error(await waitroom.call(method, where, stranger, body)) == (404, "NOT_FOUND")


async def test_a_look_of_the_agent_at_work_is_a_sign_of_life_once_half_is_over(
    waitroom: Waitroom,
) -> None:
    await waitroom.room(policies={"claim_minutes": 10})
    robby, marvin = await waitroom.agent(), await waitroom.agent("Marvin")
    id = (await waitroom.task())["id"]
    path = f"/v1/check-ins/{id}/status"
    bus, clock = waitroom.harness.bus, waitroom.harness.clock
    first = (await waitroom.acts(robby, "claim", id)).json()["data"]
    await waitroom.call("GET", path, robby)
    clock.advance(5 * MINUTE_SECONDS)
    for other in (marvin, waitroom.person):
        await waitroom.call("GET", path, other)
    assert bus.emitted(TaskClaimRenewed) == []
    bus.fail_with = LogUnavailable("away")
    assert (await waitroom.call("GET", path, robby)).status_code == 200
    bus.fail_with = None
    for _ in range(3):
        assert (await waitroom.call("GET", path, robby)).status_code == 200
    assert len(bus.emitted(TaskClaimRenewed)) == 1
    found = (await waitroom.call("GET", f"/v1/check-ins/{id}", robby)).json()["data"]
    assert found["claim_expires_at"] > first["claim_expires_at"]
    state = bus.state(TENANT, "approvals.task", id)
    for due_at in (state.claim.until - 1, state.claim.until):
        back = ReturnTask(state.room_id, state.agent_id, due_at)
        await bus.post(
            CommandRequest(
                tenant=TENANT,
                stream_id=id,
                command=back,
                actor=SYSTEM,
                command_id=f"cmd_{due_at}",
            )
        )
    found = (await waitroom.call("GET", path, robby)).json()["data"]
    assert found["status"] == "pending"
    assert (await waitroom.acts(marvin, "claim", id)).status_code == 200


async def test_the_audit_of_room_and_agent_names_every_step_and_refusal(waitroom: Waitroom) -> None:
    room = await waitroom.room()
    robby, marvin = await waitroom.agent(), await waitroom.agent("Marvin")
    id = (await waitroom.task())["id"]
    audit = waitroom.harness.bus._workspace.effects.audit
    before = len(audit)
    await waitroom.acts(robby, "claim", id)
    await waitroom.acts(marvin, "claim", id)
    await waitroom.acts(robby, "help", id, {"body": "which day?"})
    await waitroom.acts(marvin, "join", id)
    await waitroom.acts(marvin, "release", id)
    await waitroom.acts(robby, "release", id)
    told = audit[before:]
    assert [(record.action.removeprefix("approvals."), record.outcome) for record in told] == [
        ("claim_task", "accepted"),
        ("claim_task", "refused"),
        ("request_help", "accepted"),
        ("join_task", "accepted"),
        ("release_task", "refused"),
        ("release_task", "accepted"),
    ]
    assert all(f"approvals.room/{room['id']}" in record.related for record in told)
    assert all(f"approvals.agent/{record.actor_id}" in record.related for record in told)
    assert "which day?" not in repr(told)
