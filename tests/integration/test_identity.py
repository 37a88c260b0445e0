"""Provisioning, credentials and their revocation on real Kafka and real Postgres."""

import asyncio
import contextlib
import dataclasses
import json
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer
from typer.testing import CliRunner

from api.__main__ import forget_what_changes
from api.app import build_app
from api.cli import register
from api.provision import Installation, provision, provision_tenant
from api.services import Services
from api.subscription import LiveEvent
from commands.identity.api_key import RevokeApiKey
from infra.bootstrap import BootstrapError
from infra.config import Settings
from infra.ids import new_id
from tests.integration.services_rig import services_on
from tests.loops import Loops, loops, read_topic

ME = "/api/v1/auth/me"
KEYS = "/api/v1/api-keys"
TOKEN = "/api/v1/auth/token"


class Api:
    """The API over real servers, without a socket."""

    def __init__(self, services: Services, running: Loops) -> None:
        self.services, self.running = services, running
        self.installation = Installation(
            services.settings, running.bus, services.reads, services.signer
        )
        transport = httpx.ASGITransport(app=build_app(services), client=("192.0.2.1", 4711))
        self.client = httpx.AsyncClient(transport=transport, base_url="http://weir.test")
        self._told: dict[str, asyncio.Event] = {}
        services.live.on_event(self._on_event)

    async def told(self, event_type: str, stream_id: str) -> None:
        """Wait until the tail of the log has told this process of the event."""
        key = f"{event_type} {stream_id}"
        async with asyncio.timeout(30):
            await self._told.setdefault(key, asyncio.Event()).wait()

    def _on_event(self, event: LiveEvent) -> None:
        key = f"{event.type} {event.envelope.stream_id}"
        self._told.setdefault(key, asyncio.Event()).set()

    async def status(self, path: str, headers: dict[str, str]) -> int:
        return (await self.client.get(path, headers=headers)).status_code


@pytest.fixture
def own(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """An installation with a master secret and an owner of its own: the log is shared, and with
    it who holds an address."""
    monkeypatch.setattr("api.provision.ADMIN_EMAIL", f"{new_id('admin')}@weir.local")
    return dataclasses.replace(settings, secret_key=os.urandom(32), rate_limit_per_minute=0)


@contextlib.asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[Api]:
    """A decider role and an API process on the session's servers."""
    async with loops(settings) as running, services_on(settings, running.bus) as services:
        forget_what_changes(services, services.live)
        api = Api(services, running)
        async with api.client:
            yield api


async def test_provisioning_gives_working_credentials_and_the_same_at_a_second_start(
    own: Settings,
) -> None:
    async with serving(own) as api:
        first = await provision(own)
        assert first.kafka == own.kafka_bootstrap_servers
        assert first.api_key.startswith("wax_sk_")
        assert first.agent_key.startswith("wr_")
        client = api.client
        keys = await client.get(KEYS, headers={"X-Wax-Key": first.api_key})
        assert [item["name"] for item in keys.json()["data"]] == ["Provisioned"]
        me = await client.get(ME, headers={"Authorization": f"Bearer {first.admin_token}"})
        assert me.json()["email"] == first.admin_email
        assert me.json()["tenant_id"] == first.tenant_id
        assert set(me.json()["roles"]) >= {"admin", "viewer"}
        login = {"email": first.admin_email, "password": first.admin_password}
        assert (await client.post(TOKEN, json=login)).status_code == 200
        agent = await client.get(ME, headers={"Authorization": f"Bearer {first.agent_key}"})
        assert agent.status_code == 403, "an agent is known, and no person"
        audited = len(await read_topic(own, "audit", first.tenant_id))
        assert await provision(own, first) == first
        assert len(await read_topic(own, "audit", first.tenant_id)) == audited


async def test_no_secret_is_on_the_log(own: Settings) -> None:
    async with serving(own) as api:
        found = await provision(own)
        login = {"email": found.admin_email, "password": found.admin_password}
        tokens = (await api.client.post(TOKEN, json=login)).json()
        secrets = [
            found.api_key,
            found.agent_key,
            found.admin_password,
            found.admin_token,
            tokens["refresh_token"],
            api.client.cookies["sessionid"],
        ]
        for topic in ("commands", "events", "audit", "outcomes"):
            log = repr(await read_topic(own, topic, found.tenant_id))
            assert found.tenant_id in log
            assert not [secret for secret in secrets if secret in log]
        assert "argon2" not in repr(await read_topic(own, "audit", found.tenant_id))


async def test_a_second_tenant_has_its_own_people_keys_and_nothing_of_the_first(
    own: Settings,
) -> None:
    async with serving(own) as api:
        one = await provision(own)
        two = await provision_tenant(
            api.installation, name="Globex", email=f"{new_id('root')}@globex.example"
        )
        assert one.tenant_id != two.tenant_id
        for mine, other in ((one, two), (two, one)):
            headers = {"X-Wax-Key": mine.api_key}
            listed = (await api.client.get(KEYS, headers=headers)).json()["data"]
            assert len(listed) == 1
            others = {"X-Wax-Key": other.api_key}
            for method in ("PATCH", "DELETE"):
                path = f"{KEYS}/{listed[0]['id']}"
                answer = await api.client.request(method, path, json={}, headers=others)
                assert answer.status_code == 404
            me = await api.client.get(ME, headers={"Authorization": f"Bearer {mine.admin_token}"})
            assert me.json()["tenant_id"] == mine.tenant_id


async def test_weir_provision_makes_a_tenant_and_writes_its_credentials_for_their_owner_alone(
    own: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in own.to_env().items():
        monkeypatch.setenv(name, value)
    out, email = tmp_path / "globex.json", f"{new_id('root')}@globex.example"
    app = typer.Typer()
    register(app)
    arguments = ["provision", "--name", "Globex", "--email", email, "--out", str(out)]
    async with serving(own) as api:
        done = await asyncio.to_thread(CliRunner().invoke, app, arguments)
        assert done.exit_code == 0, done.output
        assert stat.S_IMODE(out.stat().st_mode) == 0o600
        found = json.loads(out.read_text())
        assert found["admin_email"] == email
        login = {"email": email, "password": found["admin_password"]}
        answer = await api.client.post(TOKEN, json=login)
        assert answer.json()["tenant_id"] == found["tenant_id"]


async def test_one_address_belongs_to_one_tenant(own: Settings) -> None:
    boss = f"{new_id('boss')}@acme.example"
    async with serving(own) as api:
        await provision_tenant(api.installation, name="Acme", email=boss)
        again = await provision_tenant(api.installation, name="Acme", email=f"{boss.upper()} ")
        assert again.admin_email == boss
        with pytest.raises(BootstrapError, match="Acme"):
            await provision_tenant(api.installation, name="Other", email=boss)
    other = dataclasses.replace(own, secret_key=os.urandom(32))
    async with serving(other) as api:
        with pytest.raises(BootstrapError, match="in use"):
            await provision_tenant(api.installation, name="Other", email=boss)


async def test_a_revoked_key_stops_where_it_is_cached_as_soon_as_the_log_tells(
    own: Settings,
) -> None:
    async with serving(own) as api:
        found = await provision(own)
        headers = {"X-Wax-Key": found.api_key}
        listed = (await api.client.get(KEYS, headers=headers)).json()["data"]
        assert await api.status(KEYS, headers) == 200
        # Not over this API process: it learns of it from the log alone.
        await api.running.send(found.tenant_id, listed[0]["id"], RevokeApiKey())
        await api.told("identity.api_key_revoked.v1", listed[0]["id"])
        assert await api.status(KEYS, headers) == 401
        renewed = await provision(own, found)
        assert renewed.api_key != found.api_key
        fresh = {"X-Wax-Key": renewed.api_key}
        assert (await api.client.get(KEYS, headers=fresh)).status_code == 200


async def test_a_rotated_key_is_found_by_either_secret_in_the_real_database(own: Settings) -> None:
    async with serving(own) as api:
        found = await provision(own)
        headers = {"X-Wax-Key": found.api_key}
        [item] = (await api.client.get(KEYS, headers=headers)).json()["data"]
        rotated = await api.client.post(f"{KEYS}/{item['id']}/rotate", json={}, headers=headers)
        fresh = {"X-Wax-Key": rotated.json()["key"]}
        assert (await api.client.get(KEYS, headers=headers)).status_code == 200
        body = {"name": "leaked", "roles": ["admin"]}
        leaked = (await api.client.post(KEYS, json=body, headers=fresh)).json()
        assert await api.status(KEYS, {"X-Wax-Key": leaked["key"]}) == 200
        path = f"{KEYS}/{leaked['id']}/rotate"
        ended = await api.client.post(path, json={"grace_seconds": 0}, headers=fresh)
        assert ended.status_code == 200
        await api.told("identity.api_key_rotated.v1", leaked["id"])
        assert await api.status(KEYS, {"X-Wax-Key": leaked["key"]}) == 401
        assert await api.status(KEYS, {"X-Wax-Key": ended.json()["key"]}) == 200
        # The provisioned secret follows from the master secret: rotated, the next one takes over.
        assert (await provision(own)).api_key != found.api_key


async def test_sessions_live_end_and_are_listed_in_the_real_database(own: Settings) -> None:
    async with serving(own) as api:
        found = await provision(own)
        login = {"email": found.admin_email, "password": found.admin_password}
        client = api.client

        async def log_in() -> dict[str, Any]:
            answer = await client.post(TOKEN, json=login)
            assert answer.status_code == 200, answer.text
            client.cookies.clear()
            return dict(answer.json())

        def bearer(tokens: dict[str, Any]) -> dict[str, str]:
            return {"Authorization": f"Bearer {tokens['access_token']}"}

        here, there = await log_in(), await log_in()
        listed = (await client.get("/api/v1/auth/sessions", headers=bearer(here))).json()
        assert listed["total"] == 3, "two logins and the provisioned token's"
        assert [item["current"] for item in listed["sessions"]] == [False, True, False]
        await client.get(ME, headers=bearer(there))
        gone = await client.delete(
            f"/api/v1/auth/sessions/{there['session_id']}", headers=bearer(here)
        )
        assert gone.status_code == 200
        await api.told("identity.session_revoked.v1", there["session_id"])
        assert await api.status(ME, bearer(there)) == 401
        stolen = {"refresh_token": here["refresh_token"]}
        fresh = (await client.post("/api/v1/auth/refresh", json=stolen)).json()
        assert (await client.post("/api/v1/auth/refresh", json=stolen)).status_code == 401
        await api.told("identity.session_revoked.v1", here["session_id"])
        assert await api.status(ME, bearer(fresh)) == 401


async def test_a_changed_password_ends_the_provisioned_token_and_is_told_at_the_next_start(
    own: Settings,
) -> None:
    async with serving(own) as api:
        found = await provision(own)
        body = {
            "current_password": found.admin_password,
            "new_password": "a password of my own",
        }
        headers = {"Authorization": f"Bearer {found.admin_token}"}
        user_id = (await api.client.get(ME, headers=headers)).json()["user_id"]
        done = await api.client.post("/api/v1/auth/password/change", json=body, headers=headers)
        assert done.status_code == 200
        await api.told("identity.password_changed.v1", user_id)
        assert await api.status(ME, headers) == 401
        again = await provision(own, found)
        assert again.admin_password == ""
        assert again.api_key == found.api_key
        fresh = {"Authorization": f"Bearer {again.admin_token}"}
        assert (await api.client.get(ME, headers=fresh)).status_code == 200


async def test_failed_logins_of_a_known_account_are_on_the_audit_log(own: Settings) -> None:
    async with serving(own) as api:
        found = await provision(own)
        wrong = {"email": found.admin_email, "password": "wrong"}
        assert (await api.client.post(TOKEN, json=wrong)).status_code == 401
        await api.services.caches["identity.password_guard"].settle()
        # A command behind it on the same partition: when that is answered, both are decided.
        await api.running.send(found.tenant_id, "key_none", RevokeApiKey())
        audit = [record for _, record in await read_topic(own, "audit", found.tenant_id)]
        failed = [item for item in audit if item.action == "identity.record_failed_login"]
        assert [item.actor_kind for item in failed] == ["anonymous"]
        assert "192.0.2.1" in failed[0].details
