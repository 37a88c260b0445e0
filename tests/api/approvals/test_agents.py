"""Agents over HTTP."""

from typing import Any

import pytest

from api.approvals import agents
from commands.approvals.trust import WEIGHTS
from tests.api.approvals.conftest import Waitroom
from tests.api.harness import OTHER_TENANT


async def test_an_agents_key_is_shown_once(waitroom: Waitroom) -> None:
    body = {"name": "Robby", "description": "helps", "platform": "langchain"}
    made = (await waitroom.person_calls("POST", "/v1/agents/register", body)).json()["data"]
    assert made["api_key"].startswith("wr_")
    assert made["api_key"].startswith(made["key_prefix"])
    assert made["agent"]["is_active"] is True
    path = f"/v1/agents/{made['agent']['id']}"
    again = await waitroom.person_calls("GET", path)
    assert again.json()["data"] == made["agent"]
    assert made["api_key"] not in again.text


async def test_the_key_is_in_no_command_and_no_event(waitroom: Waitroom) -> None:
    answer = await waitroom.person_calls("POST", "/v1/agents/register", {"name": "Robby"})
    secret = answer.json()["data"]["api_key"]
    bus = waitroom.harness.bus
    assert secret not in repr(bus.requests)
    assert secret not in repr(bus.events)
    assert answer.headers["cache-control"] == "no-store"


async def test_a_repeat_with_the_same_idempotency_key_shows_the_same_key(
    waitroom: Waitroom,
) -> None:
    headers = waitroom.person | {"Idempotency-Key": "k-1"}
    answers = [
        await waitroom.call("POST", "/v1/agents/register", headers, {"name": "Robby"})
        for _ in range(2)
    ]
    assert answers[0].json() == answers[1].json()
    assert len(waitroom.harness.bus.events) == 1


async def test_an_agent_sees_itself(waitroom: Waitroom) -> None:
    agent = await waitroom.agent("Robby", platform="crewai")
    me = (await waitroom.call("GET", "/v1/agents/me", agent)).json()["data"]
    assert (me["name"], me["platform"], me["claimed"]) == ("Robby", "crewai", True)


async def test_scopes_are_given_by_id_or_slug_and_must_exist(waitroom: Waitroom) -> None:
    payments, refunds = await waitroom.room(), await waitroom.room("Refunds")
    scopes = ["payments", refunds["id"], payments["id"]]
    agent = await waitroom.agent(room_scopes=scopes)
    me = (await waitroom.call("GET", "/v1/agents/me", agent)).json()["data"]
    assert me["room_scopes"] == [payments["id"], refunds["id"]]
    for unknown in ("nowhere", "room_nowhere"):
        body = {"name": "x", "room_scopes": ["payments", unknown]}
        answer = await waitroom.person_calls("POST", "/v1/agents/register", body)
        assert answer.status_code == 400
        assert "room_scopes[1]: " in answer.json()["error"]["message"]


async def test_agents_are_listed_newest_first(waitroom: Waitroom) -> None:
    for name in ("One", "Two", "Three"):
        await waitroom.agent(name)
        waitroom.harness.clock.advance(1)
    first = (await waitroom.person_calls("GET", "/v1/agents?limit=2")).json()
    assert [agent["name"] for agent in first["data"]] == ["Three", "Two"]
    path = f"/v1/agents?limit=2&cursor={first['cursor']}"
    second = (await waitroom.person_calls("GET", path)).json()
    assert [agent["name"] for agent in second["data"]] == ["One"]
    assert (first["has_more"], second["has_more"], second["cursor"]) == (True, False, None)


async def test_a_deactivated_agent_is_out(waitroom: Waitroom) -> None:
    agent = await waitroom.agent()
    me = (await waitroom.call("GET", "/v1/agents/me", agent)).json()["data"]
    path = f"/v1/agents/{me['id']}"
    gone = await waitroom.person_calls("DELETE", path)
    assert (gone.status_code, gone.json()["data"]["is_active"]) == (200, False)
    assert (await waitroom.person_calls("DELETE", path)).json() == gone.json()
    secret = agent["Authorization"].removeprefix("Bearer ")
    waitroom.know(secret, gone.json()["data"])
    answer = await waitroom.call("GET", "/v1/agents/me", agent)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "UNAUTHORIZED")


async def test_trust_shows_what_moved_it(waitroom: Waitroom) -> None:
    room, agent = await waitroom.room(), await waitroom.agent()
    me = (await waitroom.call("GET", "/v1/agents/me", agent)).json()["data"]
    path = f"/v1/agents/{me['id']}/trust"
    assert (await waitroom.person_calls("GET", path)).json() == {"data": []}
    for verb, body in (("approve", {}), ("reject", {"reason": "no"})):
        check_in = await waitroom.check_in(agent)
        await waitroom.person_calls("POST", f"/v1/check-ins/{check_in['id']}/{verb}", body)
    (trust,) = (await waitroom.person_calls("GET", path)).json()["data"]
    assert (trust["room_id"], trust["score"], trust["total_check_ins"]) == (room["id"], 15.7, 2)
    assert (trust["approved_count"], trust["rejected_count"]) == (1, 1)
    told = [(move["outcome"], move["change"], move["score"]) for move in trust["moves"]]
    assert told == [("rejected", -0.3, 15.7), ("approved", 1.0, 16.0)]
    assert trust["moves"][0]["check_in_id"] == check_in["id"]


async def test_trust_is_what_the_formula_of_today_makes_of_what_happened(
    waitroom: Waitroom, monkeypatch: pytest.MonkeyPatch
) -> None:
    await waitroom.room()
    agent = await waitroom.agent()
    me = (await waitroom.call("GET", "/v1/agents/me", agent)).json()["data"]
    for _ in range(2):
        check_in = await waitroom.check_in(agent)
        await waitroom.person_calls("POST", f"/v1/check-ins/{check_in['id']}/approve")
    monkeypatch.setitem(WEIGHTS, "approved", 5.0)
    monkeypatch.setattr(agents, "FORMULA", 2)
    path = f"/v1/agents/{me['id']}/trust"
    (trust,) = (await waitroom.person_calls("GET", path)).json()["data"]
    assert trust["score"] == 25.0
    assert [move["score"] for move in trust["moves"]] == [17.0, 16.0]  # as it was then


async def test_another_tenants_agent_is_not_there(waitroom: Waitroom) -> None:
    agent = await waitroom.agent()
    id = (await waitroom.call("GET", "/v1/agents/me", agent)).json()["data"]["id"]
    stranger = waitroom.harness.human(OTHER_TENANT)
    for method, path in (
        ("GET", f"/v1/agents/{id}"),
        ("GET", f"/v1/agents/{id}/trust"),
        ("DELETE", f"/v1/agents/{id}"),
    ):
        answer = await waitroom.call(method, path, stranger)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "NOT_FOUND")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": ""},
        {"name": "x" * 201},
        {"name": "x", "description": "x" * 2001},
        {"name": "x", "platform": "x" * 101},
        {"name": "x", "room_scopes": "room_1"},
    ],
)
async def test_an_agent_out_of_limits_is_refused(waitroom: Waitroom, body: Any) -> None:
    answer = await waitroom.person_calls("POST", "/v1/agents/register", body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "VALIDATION_ERROR")
