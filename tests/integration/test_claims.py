"""Self-registered agents on real Kafka and Postgres: claimed by one tenant, whole after any crash.

The claim is decided on the directory's partition and the agent is adopted on the tenant's: between
the two lies a request that may die.
"""

import asyncio
import contextlib
import dataclasses
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from api.provision import Installation, connected, provision_tenant
from commands.approvals.agent import AdoptAgent
from commands.approvals.registration import CLAIM_MICROS, ExpireAgentClaim
from infra.bootstrap import Credentials
from infra.config import Settings
from infra.embedded.ports import free_port
from infra.ids import new_id
from infra.kafka import create_topics
from projections.approvals import agents
from schemas.approvals.agent import AgentAdopted
from schemas.approvals.registration import AgentClaimed
from schemas.envelope import SYSTEM
from schemas.platform.audit import AuditRecorded
from streams.approvals.adoptions import Adoptions
from streams.bus import CommandRequest
from streams.runtime import codec
from tests.faults.roles import RoleProcess
from tests.integration.test_approvals import PATIENCE, RealWaitroom, real_waitroom
from tests.loops import deciding, read_topic, talking

SELF_REGISTER, CLAIM, ME = "/v1/agents/self-register", "/v1/agents/claim", "/v1/agents/me"


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


async def self_registered(it: RealWaitroom) -> tuple[dict[str, Any], dict[str, str]]:
    """A new agent that nobody has, and the headers of its key."""
    answer = await it.call("POST", SELF_REGISTER, {}, {"name": "Robby"})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()["data"]
    return made, bearer(made["api_key"])


async def another_tenant(it: RealWaitroom) -> Credentials:
    services = it.services
    installation = Installation(services.settings, services.bus, services.reads, services.signer)
    return await provision_tenant(
        installation, name="Globex", email=f"{new_id('root')}@globex.example"
    )


async def test_a_self_registered_agent_is_claimed_and_goes_to_work(settings: Settings) -> None:
    async with real_waitroom(settings) as it:
        await it.room()
        made, agent = await self_registered(it)
        me = (await it.call("GET", ME, agent)).json()["data"]
        assert (me["claimed"], me["claim_token"]) == (False, made["claim_token"])
        task = (await it.task())["id"]
        for path, body in (
            ("/v1/rooms/payments/check-in", {"action": "x"}),
            (f"/v1/check-ins/{task}/claim", None),
        ):
            assert (await it.call("POST", path, agent, body)).status_code == 403
        claimed = await it.person_calls("POST", CLAIM, {"claim_token": made["claim_token"]})
        assert claimed.status_code == 200, claimed.text
        assert (await it.acts(agent, "claim", task)).status_code == 200
        me = (await it.call("GET", ME, agent)).json()["data"]
        assert (me["claimed"], me["claim_token"]) == (True, None)
        listed = (await it.person_calls("GET", "/v1/agents")).json()["data"]
        assert made["agent"]["id"] in [item["id"] for item in listed]
        again = await it.person_calls("POST", CLAIM, {"claim_token": made["claim_token"]})
        assert (again.status_code, again.json()["error"]["code"]) == (409, "CONFLICT")
        for tenant in ("_directory", it.tenant):
            for topic in ("commands", "events", "audit", "outcomes"):
                log = repr(await read_topic(it.services.settings, topic, tenant))
                assert made["agent"]["id"] in log
                assert made["api_key"] not in log
                assert made["claim_token"] not in log


async def test_two_tenants_claim_at_once_and_one_has_the_agent(settings: Settings) -> None:
    async with real_waitroom(settings) as it:
        other = await another_tenant(it)
        people = {it.tenant: it.person, other.tenant_id: bearer(other.admin_token)}
        for _ in range(5):
            made, agent = await self_registered(it)
            body = {"claim_token": made["claim_token"]}
            calls = [(tenant, person) for tenant, person in people.items() for _ in range(3)]
            answers = await asyncio.gather(
                *(it.call("POST", CLAIM, person, body) for _, person in calls)
            )
            assert sorted(answer.status_code for answer in answers) == [200, *[409] * 5]
            winner = next(
                tenant
                for (tenant, _), answer in zip(calls, answers, strict=True)
                if answer.status_code == 200
            )
            for tenant, person in people.items():
                path = f"/v1/agents/{made['agent']['id']}"
                seen = await it.call("GET", path, person)
                assert seen.status_code == (200 if tenant == winner else 404)
            assert (await it.call("GET", ME, agent)).json()["data"]["claimed"]


async def test_nobody_claims_an_agent_after_its_time(settings: Settings) -> None:
    async with real_waitroom(settings) as it:
        made, agent = await self_registered(it)
        id = made["agent"]["id"]
        timer = await it.services.reads.one(
            "SELECT due_at FROM timers WHERE tenant = '_directory' AND stream = %s",
            f"approvals.registration/{id}",
        )
        registered = await it.services.reads.one(
            "SELECT registered_at FROM registrations_v1 WHERE id = %s", id
        )
        assert timer is not None
        assert registered is not None
        assert timer["due_at"] == registered["registered_at"] + CLAIM_MICROS
        gone = asyncio.Event()
        it.services.live.on_event(
            lambda event: gone.set() if event.type == "approvals.agent_claim_expired.v1" else None
        )
        fired = CommandRequest(
            tenant="_directory",
            stream_id=id,
            command=ExpireAgentClaim(timer["due_at"]),
            actor=SYSTEM,
            command_id=new_id("cmd"),
        )
        assert (await it.services.bus.send(fired)).status == "accepted"
        async with asyncio.timeout(PATIENCE):
            await gone.wait()
        assert (await it.call("GET", ME, agent)).status_code == 401
        late = await it.person_calls("POST", CLAIM, {"claim_token": made["claim_token"]})
        assert (late.status_code, late.json()["error"]["code"]) == (404, "NOT_FOUND")


@contextlib.asynccontextmanager
async def adopting(settings: Settings) -> AsyncIterator[None]:
    """The adoptions run, as the role `streams` runs them."""
    async with talking(settings) as bus:
        adoptions = Adoptions(bootstrap=settings.kafka_bootstrap_servers, codec=codec(), bus=bus)
        running = asyncio.create_task(adoptions.run())
        try:
            yield
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def death(role: RoleProcess) -> None:
    code = await asyncio.to_thread(role.process.wait, 90)
    assert code == -signal.SIGKILL, role.said()


@pytest.mark.parametrize("first", ["adoptions", "retry"])
async def test_a_claim_whose_api_died_in_between_is_carried_over_once(
    settings: Settings, first: str
) -> None:
    own = dataclasses.replace(settings, port=free_port(), public_url="", secret_key=os.urandom(32))
    await create_topics(own.kafka_bootstrap_servers, own.partitions)
    async with deciding(own), connected(own) as installation:
        owner = await provision_tenant(
            installation, name="Test", email=f"{new_id('root')}@weir.test"
        )

        async def post(path: str, body: Any, headers: dict[str, str]) -> httpx.Response:
            async with httpx.AsyncClient(base_url=own.public_url, timeout=30) as client:
                return await client.post(path, json=body, headers=headers)

        async def claim(key: str = "the claim") -> httpx.Response:
            headers = bearer(owner.admin_token) | {"Idempotency-Key": key}
            return await post(CLAIM, {"claim_token": made["claim_token"]}, headers)

        async def row() -> Any:
            return await installation.reads.one(agents.BY_ID, owner.tenant_id, agent_id)

        async def adoptions_sent() -> int:
            sent = await read_topic(own, "commands", owner.tenant_id)
            return sum(isinstance(command, AdoptAgent) for _, command in sent)

        with RoleProcess(own, ["api"], "claim.decided:1") as dying:
            await asyncio.to_thread(dying.wait_ready)
            made = (await post(SELF_REGISTER, {"name": "Robby"}, {})).json()["data"]
            agent_id = made["agent"]["id"]
            with pytest.raises(httpx.TransportError):
                await claim()
            await death(dying)
        assert await row() is None, "the claim is decided, the agent not yet adopted"
        with RoleProcess(own, ["api"]) as api:
            await asyncio.to_thread(api.wait_ready)
            if first == "retry":
                assert (await claim()).status_code == 200
            async with adopting(own), asyncio.timeout(PATIENCE):
                # The request has sent it once, if it came to it, and the adoptions once more.
                # Others write them: there is nothing to await but the log.
                while await adoptions_sent() < (2 if first == "retry" else 1):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            repeated = await claim()
            assert (repeated.status_code, repeated.json()["data"]["id"]) == (200, agent_id)
            fresh = await claim("another request")
            assert fresh.status_code == 409
            async with httpx.AsyncClient(base_url=own.public_url, timeout=30) as client:
                me = await client.get(ME, headers=bearer(made["api_key"]))
            assert me.json()["data"]["claimed"] is True
    directory = await read_topic(own, "events", "_directory")
    claims = [event for _, event in directory if isinstance(event, AgentClaimed)]
    assert [event.claimed_for for event in claims].count(owner.tenant_id) == 1
    events = await read_topic(own, "events", owner.tenant_id)
    assert sum(isinstance(event, AgentAdopted) for _, event in events) == 1
    audit = [record for _, record in await read_topic(own, "audit", owner.tenant_id)]
    adopted = [
        record
        for record in audit
        if isinstance(record, AuditRecorded) and record.action == "approvals.adopt_agent"
    ]
    assert [record.actor_kind for record in adopted] == ["user"]
