"""Check-ins that take several people, over HTTP, and those that are put to others."""

import hashlib
from typing import Any

import pytest

from commands.approvals.check_in_state import EscalateCheckIn
from commands.identity.user import RegisterUser
from tests.api.approvals.client import POLICIES
from tests.api.approvals.conftest import Waitroom, as_system

CRITICAL = {"risk_levels": ["critical"]}


async def known(it: Waitroom, user_id: str) -> None:
    """Somebody whom the organisation knows."""
    email = hashlib.sha256(user_id.encode()).hexdigest()
    await as_system(
        it, user_id, RegisterUser(f"{user_id}@x.example", email, user_id, ["admin"], "x")
    )


async def test_each_yes_is_shown_until_there_are_enough(waitroom: Waitroom) -> None:
    await waitroom.room(policies={"approvals_required": 2})
    agent = await waitroom.agent()
    asked = await waitroom.check_in(agent)
    assert asked["approvals"] == {
        "required": 2,
        "votes": [],
        "payload_hash": asked["payload_hash"],
        "proposed_modifications": None,
    }
    path = f"/v1/check-ins/{asked['id']}"
    first = await waitroom.person_calls("POST", f"{path}/approve", {"reason": "fine"})
    assert first.status_code == 200
    item = first.json()["data"]
    (vote,) = item["approvals"]["votes"]
    assert (item["status"], item["decision_id"]) == ("pending", None)
    assert (vote["reason"], vote["payload_hash"]) == ("fine", asked["payload_hash"])
    assert (await waitroom.call("GET", path, agent)).json()["data"]["approvals"] == (
        item["approvals"]
    )
    twice = await waitroom.person_calls("POST", f"{path}/approve")
    assert (twice.status_code, twice.json()["error"]["code"]) == (409, "CONFLICT")
    assert twice.json()["error"]["details"]["approvals"] == 1
    second = await waitroom.call("POST", f"{path}/approve", waitroom.harness.human())
    decided = second.json()["data"]
    assert (decided["status"], len(decided["approvals"]["votes"])) == ("approved", 2)
    participants = (await waitroom.call("GET", path, agent)).json()["data"]["participants"]
    assert [one["role"] for one in participants] == ["requester", "decider", "decider"]


async def test_a_proposed_change_is_approved_by_the_hash_that_was_shown(
    waitroom: Waitroom,
) -> None:
    await waitroom.room(policies={"approvals_required": 2})
    agent, second = await waitroom.agent(), waitroom.harness.human()
    asked = await waitroom.check_in(agent, context={"amount": 120})
    path = f"/v1/check-ins/{asked['id']}"
    await waitroom.person_calls("POST", f"{path}/approve")
    change = {"reason": "half", "modifications": {"amount": 60}}
    proposed = (await waitroom.call("POST", f"{path}/modify", second, change)).json()["data"]
    text = b'{"action":"refund an order","context":{"amount":120},"modifications":{"amount":60}}'
    shown = proposed["approvals"]
    assert shown["payload_hash"] == hashlib.sha256(text).hexdigest()
    assert (shown["proposed_modifications"], len(shown["votes"])) == ({"amount": 60}, 1)
    assert proposed["modifications"] is None
    for body in ({}, {"payload_hash": asked["payload_hash"]}):
        unseen = await waitroom.person_calls("POST", f"{path}/approve", body)
        assert unseen.status_code == 409
        assert unseen.json()["error"]["details"] == {"payload_hash": shown["payload_hash"]}
    body = {"payload_hash": shown["payload_hash"]}
    decided = (await waitroom.person_calls("POST", f"{path}/approve", body)).json()["data"]
    assert (decided["status"], decided["modifications"]) == ("modified", {"amount": 60})
    assert decided["payload_hash"] == asked["payload_hash"]


async def test_a_rule_may_ask_for_more_people(waitroom: Waitroom) -> None:
    rule = {"action": "require_approval", "when": CRITICAL, "approvals_required": 3}
    room = await waitroom.room(policies={"rules": [rule]})
    assert room["policies"]["rules"][0]["approvals_required"] == 3
    agent = await waitroom.agent()
    assert (await waitroom.check_in(agent))["approvals"] is None
    asked = await waitroom.check_in(agent, risk_level="critical")
    assert asked["approvals"]["required"] == 3


async def test_what_nobody_answers_is_escalated_and_can_be_listed(waitroom: Waitroom) -> None:
    await known(waitroom, "usr_ada")
    policies = {"escalate_after_minutes": 5, "escalate_to": ["usr_ada"]}
    room = await waitroom.room(policies=policies)
    agent = await waitroom.agent()
    asked, other = await waitroom.check_in(agent), await waitroom.check_in(agent)
    assert (asked["escalated_at"], asked["escalated_to"]) == (None, [])
    (row,) = waitroom.tables.where("check_ins", "id")(asked["id"])
    command = EscalateCheckIn(room["id"], asked["agent_id"], row["escalate_at"], ["usr_ada"])
    await as_system(waitroom, asked["id"], command)
    found = (await waitroom.call("GET", f"/v1/check-ins/{asked['id']}", agent)).json()["data"]
    assert (found["status"], found["escalated_to"]) == ("pending", ["usr_ada"])
    assert found["escalated_at"]
    assert found["escalates_at"]
    path = "/v1/rooms/payments/pending?escalated="
    for wanted, id in (("true", asked["id"]), ("false", other["id"])):
        listed = (await waitroom.person_calls("GET", path + wanted)).json()["data"]
        assert [item["id"] for item in listed] == [id]


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"approvals_required": 0}, "policies.approvals_required"),
        ({"approvals_required": 21}, "policies.approvals_required"),
        ({"escalate_after_minutes": 5}, "policies.escalate_to"),
        (
            {"escalate_after_minutes": 5, "escalate_to": ["usr_nobody"]},
            "policies.escalate_to[0]",
        ),
        (
            {"rules": [{"action": "forbid", "when": CRITICAL, "approvals_required": 2}]},
            "policies.rules[0].approvals_required",
        ),
    ],
)
async def test_what_cannot_be_meant_is_refused_with_its_place(
    waitroom: Waitroom, change: dict[str, Any], place: str
) -> None:
    await waitroom.room()
    body = {"policies": POLICIES | change}
    answer = await waitroom.person_calls("PUT", "/v1/rooms/payments/policies", body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "VALIDATION_ERROR")
    assert place in str(answer.json()["error"])
