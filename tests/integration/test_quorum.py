"""Several people decide, on real Kafka and Postgres: escalated in time, each yes on the log."""

import asyncio
import dataclasses
import time

from joserfc import jwt
from joserfc.jwk import OctKey

from api.identity.email import email_hash
from commands.identity.email import DIRECTORY, ConfirmEmail, ReserveEmail
from commands.identity.user import RegisterUser
from infra.clock import SYSTEM_CLOCK
from infra.config import Settings
from infra.ids import new_id
from schemas.approvals.check_in import CheckInEscalated, CheckInOutcomeReported, CheckInVoted
from schemas.envelope import SYSTEM
from schemas.instants import parse_iso
from streams.bus import CommandRequest
from tests.integration.test_approvals import (
    PATIENCE,
    LaterClock,
    RealWaitroom,
    real_waitroom,
    timers_fire,
)
from tests.loops import read_topic

SHARED = "as Supabase shares it, long enough to be a secret"


async def second_person(it: RealWaitroom) -> tuple[str, dict[str, str]]:
    """Another person of the tenant, who signs in elsewhere: their id and headers."""
    id, email = new_id("usr"), f"{new_id('ada')}@acme.example"
    digest = email_hash(email)
    for tenant, stream, command in (
        (DIRECTORY, digest, ReserveEmail(id, it.tenant)),
        (it.tenant, id, RegisterUser(email, digest, "Ada", ["developer"], "none")),
        (DIRECTORY, digest, ConfirmEmail(id, it.tenant)),
    ):
        request = CommandRequest(
            tenant=tenant,
            stream_id=stream,
            command=command,
            actor=SYSTEM,
            command_id=new_id("cmd"),
        )
        assert (await it.services.bus.send(request)).status == "accepted"
    claims = {"sub": "elsewhere", "email": email, "exp": int(time.time()) + 600}
    token = jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(SHARED), algorithms=["HS256"])
    return id, {"Authorization": f"Bearer {token}"}


async def test_a_timeout_and_an_escalation_come_within_two_seconds_of_their_time(
    settings: Settings,
) -> None:
    # The decider's clock is behind, so that a minute is over in a moment; the scheduler's is right.
    async with real_waitroom(settings, LaterClock(-57)) as it, timers_fire(it, 0):
        ada = (await it.room())["created_by"]
        policies = {"escalate_after_minutes": 1, "escalate_to": [ada], "timeout_minutes": 600}
        await it.room("Slow", policies=policies)
        agent = await it.agent()
        async with it.stream("/v1/rooms/slow/events", it.person) as reader:
            await reader.until("retry:")
            asked = await it.check_in(agent, timeout_minutes=1)
            slow = await it.check_in(agent, "slow")
            assert (await it.status(asked["id"], wait=60))["status"] == "expired"
            late = [SYSTEM_CLOCK.now() - parse_iso(asked["expires_at"])]
            await reader.until("event: check_in.escalated")
            late.append(SYSTEM_CLOCK.now() - parse_iso(slow["escalates_at"]))
        assert all(0 <= each < 2_000_000 for each in late), late


async def test_what_nobody_answers_is_escalated_and_two_people_approve_the_same(
    settings: Settings,
) -> None:
    settings = dataclasses.replace(settings, jwt_hs256_secret=SHARED)
    async with real_waitroom(settings) as it:
        ada, headers = await second_person(it)
        policies = {
            "approvals_required": 2,
            "escalate_after_minutes": 1,
            "escalate_to": [ada],
            "timeout_minutes": 600,
        }
        await it.room(policies=policies)
        agent = await it.agent()
        async with it.stream("/v1/rooms/payments/events", headers) as reader:
            await reader.until("retry:")
            id = (await it.check_in(agent, context={"amount": 120}))["id"]
            path = f"/v1/check-ins/{id}"
            waiting = asyncio.create_task(it.status(id, wait=60))
            async with timers_fire(it, 120):
                told = await reader.until("event: check_in.escalated")
            assert f'"escalated_to":["{ada}"]' in told
            escalated = "/v1/rooms/payments/pending?escalated=true"
            (item,) = (await it.call("GET", escalated, headers)).json()["data"]
            assert (item["id"], item["escalated_to"]) == (id, [ada])
            change = {"reason": "half", "modifications": {"amount": 60}}
            voted = await it.call("POST", f"{path}/modify", headers, change)
            shown = voted.json()["data"]["approvals"]["payload_hash"]
            await reader.until("event: check_in.voted")
            # However many hands one person has, they count once.
            body = {"payload_hash": shown}
            again = [it.call("POST", f"{path}/approve", headers, body) for _ in range(4)]
            assert {answer.status_code for answer in await asyncio.gather(*again)} == {409}
            at_once = [it.person_calls("POST", f"{path}/approve", body) for _ in range(4)]
            codes = [answer.status_code for answer in await asyncio.gather(*at_once)]
            assert sorted(codes) == [200, 409, 409, 409]
            async with asyncio.timeout(PATIENCE):
                status = await waiting
            assert (status["status"], status["modifications"]) == ("modified", {"amount": 60})
            report = {"status": "succeeded", "details": {"refund": 60}}
            assert (await it.call("POST", f"{path}/outcome", agent, report)).status_code == 200
            await reader.until("event: check_in.outcome")
        found = (await it.person_calls("GET", path)).json()["data"]
        assert found["outcome"]["details"] == {"refund": 60}
        assert found["approvals"]["votes"][0]["by"] == ada
        proposed = {"policies": policies | {"approvals_required": 1, "default_action": "forbid"}}
        proposed["policies"] |= {"timeout_action": "cancel", "rules": []}
        simulated = await it.person_calls("POST", "/v1/rooms/payments/policies/simulate", proposed)
        assert simulated.status_code == 200, simulated.text
        (changed,) = simulated.json()["data"]["changed"]
        assert (changed["check_in_id"], changed["status"]) == (id, "modified")
        assert (changed["before"]["approvals_required"], changed["after"]["policy"]["action"]) == (
            2,
            "forbid",
        )
        trust = await it.person_calls("GET", f"/v1/agents/{item['agent_id']}/trust")
        (of_room,) = trust.json()["data"]
        assert (of_room["score"], [move["check_in_id"] for move in of_room["moves"]]) == (
            15.6,
            [id],
        )
        kinds = (CheckInEscalated, CheckInVoted, CheckInOutcomeReported)
        log = await read_topic(settings, "events", it.tenant)
        happened = [type(event) for _, event in log if isinstance(event, kinds)]
        assert happened == [CheckInEscalated, CheckInVoted, CheckInVoted, CheckInOutcomeReported]
