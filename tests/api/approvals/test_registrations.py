"""Agents that register themselves, and the people who claim them."""

from typing import Any

import pytest

from api.approvals import ROUTES
from api.approvals.registrations import REGISTRATIONS_AT_ONCE
from api.credentials import DIRECTORY, AgentKey, lookup_prefix
from api.routing import Route, Who
from commands.approvals.registration import CLAIM_MICROS
from infra.ids import secret_hash
from tests.api.approvals.client import error
from tests.api.approvals.conftest import Waitroom
from tests.api.approvals.test_room_scopes import BODIES
from tests.api.harness import OTHER_TENANT, TENANT

SELF_REGISTER, CLAIM, ME = "/v1/agents/self-register", "/v1/agents/claim", "/v1/agents/me"


async def self_registered(waitroom: Waitroom, **fields: Any) -> tuple[dict[str, Any], Any]:
    """What an agent is told that registers itself, and the headers of its key."""
    answer = await waitroom.call("POST", SELF_REGISTER, {}, {"name": "Robby", **fields})
    assert answer.status_code == 201, answer.text
    assert answer.headers["cache-control"] == "no-store"
    made = answer.json()["data"]
    secret = made["api_key"]
    waitroom.harness.credentials.agents[lookup_prefix(secret)] = AgentKey(
        made["agent"]["id"], DIRECTORY, secret_hash(secret), name="Robby", claimed=False
    )
    return made, {"Authorization": f"Bearer {secret}"}


async def claim(waitroom: Waitroom, token: str, who: Any = None) -> Any:
    return await waitroom.call("POST", CLAIM, who or waitroom.person, {"claim_token": token})


async def test_an_agent_registers_itself_and_sees_itself(waitroom: Waitroom) -> None:
    made, agent = await self_registered(waitroom, description="helps", platform="crewai")
    assert made["api_key"].startswith("wr_")
    assert made["claim_token"].startswith("wct_")
    assert (made["agent"]["claimed"], made["agent"]["platform"]) == (False, "crewai")
    seen = await waitroom.call("GET", ME, agent)
    assert seen.status_code == 200
    expected = made["agent"] | {
        "claim_token": made["claim_token"],
        "claim_expires_at": made["claim_expires_at"],
    }
    assert seen.json()["data"] == expected
    assert made["api_key"] not in seen.text


async def test_no_secret_is_in_a_command_an_event_or_an_answer_that_is_kept(
    waitroom: Waitroom,
) -> None:
    made, _ = await self_registered(waitroom)
    await claim(waitroom, made["claim_token"])
    bus = waitroom.harness.bus
    effects = bus._workspace.effects
    kept = repr((bus.requests, effects.events, effects.audit, effects.outcomes, effects.states))
    assert made["agent"]["id"] in kept
    assert made["api_key"] not in kept
    assert made["claim_token"] not in kept


async def test_an_unclaimed_agent_may_do_nothing_else(waitroom: Waitroom) -> None:
    await waitroom.room()
    _, agent = await self_registered(waitroom)
    for method, path, body in (
        ("GET", "/v1/rooms", None),
        ("POST", "/v1/rooms/payments/check-in", {"action": "x"}),
        ("GET", "/v1/check-ins/claimed", None),
    ):
        assert error(await waitroom.call(method, path, agent, body)) == (403, "FORBIDDEN")


OWN = {"/v1/agents/me"}
OPEN_TO_AGENTS = [one for one in ROUTES if Who.AGENT in one.who and one.path not in OWN]


@pytest.mark.parametrize("route", OPEN_TO_AGENTS, ids=lambda one: f"{one.method} {one.path}")
async def test_of_what_agents_may_do_an_unclaimed_one_may_nothing(
    waitroom: Waitroom, route: Route
) -> None:
    room = await waitroom.room()
    asked = await waitroom.check_in(await waitroom.agent())
    _, agent = await self_registered(waitroom)
    path = route.path.replace("{room}", room["id"]).replace("{id}", asked["id"])
    path = path.replace("{event}", "evt_1")
    body = BODIES.get(route.path, {}) if route.body is not None else None
    assert error(await waitroom.call(route.method, path, agent, body)) == (403, "FORBIDDEN")


async def test_a_person_claims_an_agent_into_their_tenant(waitroom: Waitroom) -> None:
    made, agent = await self_registered(waitroom, description="helps")
    answer = await claim(waitroom, made["claim_token"])
    assert answer.status_code == 200
    mine = answer.json()["data"]
    assert (mine["id"], mine["claimed"], mine["room_scopes"]) == (made["agent"]["id"], True, [])
    assert (mine["name"], mine["description"]) == ("Robby", "helps")
    waitroom.know(made["api_key"], mine)
    seen = (await waitroom.call("GET", ME, agent)).json()["data"]
    assert seen == mine | {"claim_token": None, "claim_expires_at": None}
    listed = (await waitroom.person_calls("GET", "/v1/agents")).json()["data"]
    assert listed == [mine]
    await waitroom.room()
    assert (await waitroom.check_in(agent))["agent_name"] == "Robby"


async def test_a_token_is_good_once(waitroom: Waitroom) -> None:
    made, _ = await self_registered(waitroom)
    assert (await claim(waitroom, made["claim_token"])).status_code == 200
    for who in (waitroom.person, waitroom.harness.human(OTHER_TENANT)):
        late = await claim(waitroom, made["claim_token"], who)
        assert error(late) == (409, "CONFLICT")
        assert "details" not in late.json()["error"]


async def test_the_same_request_again_has_the_same_answer(waitroom: Waitroom) -> None:
    made, _ = await self_registered(waitroom)
    who = waitroom.person | {"Idempotency-Key": "mine"}
    answers = [await claim(waitroom, made["claim_token"], who) for _ in range(2)]
    assert answers[0].status_code == 200
    assert answers[0].json() == answers[1].json()
    actions = [record.action for record in waitroom.harness.bus._workspace.effects.audit]
    assert actions.count("approvals.adopt_agent") == 1


async def test_the_same_key_registers_the_same_agent(waitroom: Waitroom) -> None:
    headers = {"Idempotency-Key": "0" * 32}
    body = {"name": "Robby"}
    answers = [await waitroom.call("POST", SELF_REGISTER, headers, body) for _ in range(2)]
    assert answers[0].json() == answers[1].json()
    short = await waitroom.call("POST", SELF_REGISTER, {"Idempotency-Key": "k"}, body)
    assert error(short) == (400, "VALIDATION_ERROR")


async def test_a_token_is_good_for_seven_days(waitroom: Waitroom) -> None:
    made, _ = await self_registered(waitroom)
    in_time, _ = await self_registered(waitroom)
    clock: Any = waitroom.harness.clock
    clock.advance(CLAIM_MICROS // 1_000_000 - 1)
    # Somebody who logs in now: an access token does not last that long.
    person = waitroom.harness.human()
    assert (await claim(waitroom, in_time["claim_token"], person)).status_code == 200
    clock.advance(1)
    late = await claim(waitroom, made["claim_token"], person)
    assert error(late) == (404, "NOT_FOUND")
    assert "expired" in late.json()["error"]["message"]


async def test_a_token_that_is_none_finds_nothing(waitroom: Waitroom) -> None:
    made, _ = await self_registered(waitroom)
    token = made["claim_token"]
    last = "1" if token[-1] == "0" else "0"
    for wrong in ("x", token[:-1] + last, token.upper(), made["api_key"]):
        assert error(await claim(waitroom, wrong)) == (404, "NOT_FOUND")
    for body in ({}, {"claim_token": ""}, {"claim_token": "x" * 201}):
        answer = await waitroom.person_calls("POST", CLAIM, body)
        assert error(answer) == (400, "VALIDATION_ERROR")
    assert (await claim(waitroom, token)).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": ""},
        {"name": "x" * 201},
        {"name": "x", "description": "x" * 2001},
        {"name": "x", "platform": "x" * 101},
    ],
)
async def test_an_agent_out_of_limits_is_refused(waitroom: Waitroom, body: Any) -> None:
    assert error(await waitroom.call("POST", SELF_REGISTER, {}, body)) == (400, "VALIDATION_ERROR")


async def test_an_address_registers_a_few_agents_at_once(waitroom: Waitroom) -> None:
    for _ in range(REGISTRATIONS_AT_ONCE):
        await self_registered(waitroom)
    answer = await waitroom.call("POST", SELF_REGISTER, {}, {"name": "Robby"})
    assert error(answer) == (429, "RATE_LIMITED")
    told = answer.json()
    assert told["retryAfter"] == told["error"]["retryAfter"] == int(answer.headers["retry-after"])
    assert 0 < told["retryAfter"] <= 60


async def test_an_agents_key_claims_nothing(waitroom: Waitroom) -> None:
    made, agent = await self_registered(waitroom)
    for who in (agent, await waitroom.agent(), waitroom.harness.key()):
        assert error(await claim(waitroom, made["claim_token"], who)) == (403, "FORBIDDEN")


async def test_the_adopted_agent_is_that_of_the_tenant_that_won(waitroom: Waitroom) -> None:
    made, _ = await self_registered(waitroom)
    await claim(waitroom, made["claim_token"], waitroom.harness.human(OTHER_TENANT))
    id = made["agent"]["id"]
    bus = waitroom.harness.bus
    assert bus.state(OTHER_TENANT, "approvals.agent", id).active
    assert not bus.state(TENANT, "approvals.agent", id).active
    assert error(await waitroom.person_calls("GET", f"/v1/agents/{id}")) == (404, "NOT_FOUND")
