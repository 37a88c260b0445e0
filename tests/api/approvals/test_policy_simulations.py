"""Proposed policies over a room's check-ins, over HTTP."""

from typing import Any

import pytest

from api.approvals import policy_simulations
from tests.api.approvals.client import POLICIES
from tests.api.approvals.conftest import Waitroom
from tests.api.harness import OTHER_TENANT

PATH = "/v1/rooms/payments/policies/simulate"
NO_DROPS = {"name": "no drops", "action": "forbid", "when": {"action": {"prefix": "drop"}}}


async def simulate(it: Waitroom, change: dict[str, Any], **fields: Any) -> Any:
    body = {"policies": POLICIES | change, **fields}
    answer = await it.person_calls("POST", PATH, body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def ask(it: Waitroom, agent: dict[str, str], *actions: str) -> list[str]:
    ids = []
    for action in actions:
        it.harness.clock.advance(60)
        ids.append((await it.check_in(agent, action=action))["id"])
    return ids


async def test_it_tells_what_would_have_gone_otherwise_and_changes_nothing(
    waitroom: Waitroom,
) -> None:
    room = await waitroom.room()
    await waitroom.room("Other")
    agent = await waitroom.agent()
    refund, drop = await ask(waitroom, agent, "refund", "drop tables")
    await waitroom.check_in(agent, "other", action="drop everything")
    await waitroom.person_calls("POST", f"/v1/check-ins/{drop}/approve")
    before = len(waitroom.harness.bus.events)
    found = await simulate(waitroom, {"rules": [NO_DROPS]})
    data = found["data"]
    assert (data["check_in_count"], data["changed_count"], data["truncated"]) == (2, 1, False)
    assert data["before"] == {"auto_approve": 0, "require_approval": 2, "forbid": 0}
    assert data["after"] == {"auto_approve": 0, "require_approval": 1, "forbid": 1}
    (changed,) = data["changed"]
    assert (changed["check_in_id"], changed["status"]) == (drop, "approved")
    assert changed["before"]["policy"]["source"] == "default"
    after = changed["after"]["policy"]
    assert (after["action"], after["rule_index"], after["rule_name"]) == ("forbid", 0, "no drops")
    assert after["reason"] == "rules[0] (no drops) matched on action"
    assert (found["cursor"], found["has_more"]) == (None, False)
    assert len(waitroom.harness.bus.events) == before
    assert (await waitroom.person_calls("GET", "/v1/rooms/payments")).json()["data"] == room
    assert refund != drop


async def test_a_scheduled_and_trusted_check_in_is_judged_as_it_was(waitroom: Waitroom) -> None:
    await waitroom.room()
    agent = await waitroom.agent()
    early, late = await ask(waitroom, agent, "refund", "refund")
    await waitroom.person_calls("POST", f"/v1/check-ins/{early}/approve")
    (after,) = await ask(waitroom, agent, "refund")
    thresholds = {"auto_approve_low": None, "auto_approve_medium": 16}
    data = (await simulate(waitroom, {"trust_thresholds": thresholds}))["data"]
    # The approval raised the trust to 16, for what came after it only.
    assert [one["check_in_id"] for one in data["changed"]] == [after]
    assert late != after


async def test_the_changes_come_in_pages_newest_first(waitroom: Waitroom) -> None:
    await waitroom.room()
    ids = await ask(waitroom, await waitroom.agent(), *["drop it"] * 5)
    seen, cursor = [], ""
    for _ in range(3):
        found = await simulate(waitroom, {"rules": [NO_DROPS]}, limit=2, cursor=cursor)
        assert found["data"]["changed_count"] == 5
        seen += [one["check_in_id"] for one in found["data"]["changed"]]
        cursor = found["cursor"] or ""
    assert (seen, cursor) == (ids[::-1], "")


async def test_only_so_many_are_judged_and_only_of_the_last_days(
    waitroom: Waitroom, monkeypatch: pytest.MonkeyPatch
) -> None:
    await waitroom.room()
    agent = await waitroom.agent()
    await ask(waitroom, agent, "drop long ago")
    waitroom.harness.clock.advance(3 * 86_400)
    ids = await ask(waitroom, agent, *["drop it"] * 4)
    waitroom.person = waitroom.harness.human()  # the first one's token is over
    whole = (await simulate(waitroom, {"rules": [NO_DROPS]}, days=2))["data"]
    assert (whole["check_in_count"], whole["truncated"]) == (4, False)
    monkeypatch.setattr(policy_simulations, "CHECK_INS_MAX", 3)
    monkeypatch.setattr(policy_simulations, "_BATCH", 2)
    some = (await simulate(waitroom, {"rules": [NO_DROPS]}, days=2))["data"]
    assert (some["check_in_count"], some["truncated"]) == (3, True)
    assert [one["check_in_id"] for one in some["changed"]] == ids[:0:-1]
    assert some["since"] == some["changed"][-1]["created_at"]
    monkeypatch.setattr(policy_simulations, "EVALUATIONS_MAX", 2)
    fewer = (await simulate(waitroom, {"rules": [NO_DROPS] * 2}, days=2))["data"]
    assert (fewer["check_in_count"], fewer["truncated"]) == (1, True)


@pytest.mark.parametrize(
    "change",
    [
        {"timeout_minutes": 0},
        {"rules": [{"action": "forbid", "when": {}}]},
        {"rules": [{"action": "forbid", "when": {"schedule": {"timezone": "Nowhere"}}}]},
        {"escalate_after_minutes": 5, "escalate_to": ["usr_nobody"]},
        {"unknown": 1},
    ],
)
async def test_what_could_not_be_written_is_refused_likewise(
    waitroom: Waitroom, change: dict[str, Any]
) -> None:
    await waitroom.room()
    body = {"policies": POLICIES | change}
    written = await waitroom.person_calls("PUT", "/v1/rooms/payments/policies", body)
    tried = await waitroom.person_calls("POST", PATH, body)
    assert (tried.status_code, written.status_code) == (400, 400)
    assert tried.json() == written.json()


async def test_agents_and_strangers_try_nothing(waitroom: Waitroom) -> None:
    await waitroom.room()
    body = {"policies": POLICIES}
    agent = await waitroom.agent()
    assert (await waitroom.call("POST", PATH, agent, body)).status_code == 403
    stranger = waitroom.harness.human(OTHER_TENANT)
    assert (await waitroom.call("POST", PATH, stranger, body)).status_code == 404
    for fields in ({"days": 0}, {"days": 91}, {"limit": 0}, {"limit": 1001}):
        refused = await waitroom.person_calls("POST", PATH, body | fields)
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "VALIDATION_ERROR")
