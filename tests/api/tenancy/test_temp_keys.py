"""Trial keys: for everybody, few for each address, shown once, erased in the end."""

from typing import Any

import httpx
import pytest

from api.app import build_app
from api.tenancy import ROUTES
from commands.fhe.evaluation_key import RegisterEvaluationKey
from infra.ids import new_id, secret_hash
from infra.objects import Objects
from schemas.envelope import SYSTEM, Envelope
from schemas.fhe.evaluation_key import EvaluationKeyDeleted, StoredPart
from schemas.identity.api_key import ApiKeyIssued
from schemas.tenancy.tenant import TenantCreated
from schemas.tenancy.trial import TrialEnded
from streams.bus import CommandRequest
from streams.runtime import codec
from streams.tenancy.trials import Trials
from tests.api.harness import Harness

PATH = "/api/v1/onboarding/temp-key"
KEY = {"Idempotency-Key": "0" * 32}


def from_address(app: Harness, address: str) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=app.app, client=(address, 1))
    return httpx.AsyncClient(transport=transport, base_url="http://weir.test")


async def ask(app: Harness, address: str, **headers: str) -> httpx.Response:
    async with from_address(app, address) as client:
        return await client.post(PATH, headers=headers)


async def test_a_key_comes_with_a_tenant_a_quota_and_an_end() -> None:
    async with Harness(ROUTES) as app:
        answer = await app.client.post(PATH)
        assert answer.status_code == 201, answer.text
        found = answer.json()
        assert found["roles"] == ["compute"]
        assert found["quota_nanodollars"] > 0
        assert answer.headers["cache-control"] == "no-store"
        [key] = app.bus.emitted(ApiKeyIssued)
        assert key.key_hash == secret_hash(found["key"])
        assert (key.roles, key.expires_at is not None) == (["compute"], True)
        assert app.bus.emitted(TenantCreated) == [TenantCreated("Trial")]
        assert {item.envelope.tenant for item in app.bus.events} == {
            "_directory",
            found["tenant_id"],
        }


async def test_the_key_and_the_address_are_nowhere_on_the_log() -> None:
    async with Harness(ROUTES) as app:
        answer = await ask(app, "198.51.100.7")
        recorded = repr([(item.envelope, item.event) for item in app.bus.events])
        recorded += repr(app.bus.requests)
        assert answer.json()["key"] not in recorded
        assert "198.51.100.7" not in recorded


async def test_the_same_idempotency_key_is_the_same_trial() -> None:
    async with Harness(ROUTES) as app:
        first, again = [await app.client.post(PATH, headers=KEY) for _ in range(2)]
        assert first.json() == again.json()
        other = await app.client.post(PATH)
        assert other.json()["tenant_id"] != first.json()["tenant_id"]


@pytest.mark.parametrize(
    ("same", "other"),
    [
        ("192.0.2.1", "192.0.2.2"),
        ("::ffff:192.0.2.1", "192.0.2.2"),
        ("2001:db8:1:2::99", "2001:db8:1:3::1"),
    ],
)
async def test_an_address_has_few_trials_a_day_and_others_have_their_own(
    same: str, other: str
) -> None:
    first = "192.0.2.1" if "192" in same else "2001:db8:1:2::1"
    async with Harness(ROUTES) as app:
        for _ in range(3):
            assert (await ask(app, first)).status_code == 201
        refused = await ask(app, same)
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "too_many_trials"
        assert 86_000 < int(refused.headers["retry-after"]) <= 86_400
        assert (await ask(app, other)).status_code == 201


async def test_what_a_client_claims_to_be_is_not_believed() -> None:
    async with Harness(ROUTES) as app:
        forged = [
            await app.client.post(PATH, headers={"X-Forwarded-For": f"203.0.113.{n}"})
            for n in range(4)
        ]
        assert [answer.status_code for answer in forged] == [201, 201, 201, 429]


async def test_another_process_remembers_what_this_one_granted() -> None:
    async with Harness(ROUTES) as app:
        for _ in range(3):
            await app.client.post(PATH)
        again = build_app(app.services, ROUTES)
        transport = httpx.ASGITransport(app=again, client=("192.0.2.1", 4711))
        async with httpx.AsyncClient(transport=transport, base_url="http://weir.test") as client:
            assert (await client.post(PATH)).status_code == 429


async def test_what_a_trial_had_is_erased_and_nothing_of_others() -> None:
    async with Harness() as app:
        objects = Objects("memory:///")
        for name in ("fhe/ten_a/keys/1", "fhe/ten_a/jobs/j/1", "fhe/ten_ab/keys/1"):
            await objects.put(name, b"x")
        register = RegisterEvaluationKey(
            "ckks-n13", "ab" * 32, "", [StoredPart("relin", "o", "ab" * 32, 1)]
        )
        await app.bus.send(
            CommandRequest(
                tenant="ten_a",
                stream_id="ek_1",
                command=register,
                actor=SYSTEM,
                command_id=new_id("cmd"),
            )
        )
        envelope = Envelope("evt_1", "t", "ten_a", "tenancy.trial/trial", 1, 1, SYSTEM)
        app.reads.when("FROM fhe_keys", lambda tenant, *_: rows_of(tenant))
        trials = Trials(
            bootstrap="none",
            codec=codec(),
            bus=app.bus,
            reads=app.reads,  # type: ignore[arg-type]
            objects=objects,
        )
        for _ in range(2):
            await trials.handle(envelope, TrialEnded(1))
        assert await objects.names("fhe") == ["fhe/ten_ab/keys/1"]
        assert [event.key_id for event in app.bus.emitted(EvaluationKeyDeleted)] == ["ek_1"]


def rows_of(tenant: str) -> list[dict[str, Any]]:
    return [{"key_id": "ek_1"}] if tenant == "ten_a" else []
