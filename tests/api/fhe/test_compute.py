"""Computing over HTTP: right results, refusals in their place, one job per idempotency key."""

import base64
from typing import Any

import httpx
import numpy as np
import pytest

from commands.fhe.job_state import RecordJobFailure
from schemas.fhe.job import JobSubmitted
from schemas.fhe.parameters import CIPHERTEXT_BYTES_MAX
from tests.api.fhe.world import World, b64
from tests.api.harness import OTHER_TENANT
from tests.fhe_workers.clients import Client

OCTETS = {"Content-Type": "application/octet-stream"}
X = np.array([0.5, -0.25, 1.0])
Y = np.array([0.5, 0.5, -1.0])


async def _key(world: World, client: Client) -> str:
    response = await world.client.post(
        "/api/v1/keys", content=client.relin, headers={**world.headers, **OCTETS}
    )
    return str(response.json()["key_id"])


async def _compute(
    world: World,
    operation: str,
    key_id: str,
    *operands: dict[str, Any],
    query: str = "",
    headers: dict[str, str] | None = None,
) -> httpx.Response:
    return await world.client.post(
        f"/api/v1/compute/{operation}{query}",
        json={"key_id": key_id, "operands": list(operands)},
        headers={**world.headers, **(headers or {})},
    )


def _cipher(client: Client, values: Any, level: int = 0) -> dict[str, str]:
    return {"ciphertext": b64(client.encrypt(values, level))}


def _decrypted(client: Client, job: dict[str, Any]) -> Any:
    return client.decrypt(base64.b64decode(job["result"]["ciphertext"]))[:3]


def _error(response: httpx.Response, status: int) -> str:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error["request_id"] == response.headers["x-request-id"]
    return str(error["code"])


async def test_sums_and_products(alice: Client) -> None:
    async with World() as world:
        key_id = await _key(world, alice)
        x, y = _cipher(alice, X), _cipher(alice, Y)
        cases: list[tuple[str, dict[str, Any], Any, int]] = [
            ("add", y, X + Y, 0),
            ("add", {"values": list(Y)}, X + Y, 0),
            ("add", {"value": 2}, X + 2, 0),
            ("multiply", y, X * Y, 1),
            ("multiply", {"values": list(Y)}, X * Y, 1),
            ("multiply", {"value": -0.5}, X * -0.5, 1),
        ]
        for operation, second, expected, level in cases:
            response = await _compute(world, operation, key_id, x, second)
            assert response.status_code == 200, response.text
            job = response.json()
            assert (job["status"], job["operation"]) == ("succeeded", operation)
            assert job["result"]["level"] == level
            assert np.abs(_decrypted(alice, job) - expected).max() < job["result"]["error_bound"]
            shown = await world.client.get(f"/api/v1/jobs/{job['job_id']}", headers=world.headers)
            assert shown.json() == job


async def test_a_result_is_an_operand_by_its_handle(alice: Client) -> None:
    async with World() as world:
        key_id = await _key(world, alice)
        first = await _compute(world, "multiply", key_id, _cipher(alice, X), _cipher(alice, Y))
        handle = first.json()["result"]["handle"]
        assert handle.startswith("ct_")
        second = await _compute(world, "multiply", key_id, {"handle": handle}, _cipher(alice, Y))
        assert second.json()["result"]["level"] == 2
        assert np.abs(_decrypted(alice, second.json()) - X * Y * Y).max() < 3e-6
        third = {"handle": second.json()["result"]["handle"]}
        exhausted = await _compute(world, "multiply", key_id, third, third)
        assert _error(exhausted, 422) == "level_exhausted"
        details = exhausted.json()["error"]["details"]
        assert (details["level"], details["depth"]) == (2, 2)
        assert details["deeper"] == ["ckks-n14", "ckks-n14d5"]


async def test_without_waiting_the_answer_is_a_job(alice: Client) -> None:
    async with World() as world:
        world.has_worker = False
        key_id = await _key(world, alice)
        operands = _cipher(alice, X), _cipher(alice, Y)
        for query in ("?wait=0", "?wait=1"):
            response = await _compute(world, "add", key_id, *operands, query=query)
            assert response.status_code == 202
            job = response.json()
            assert (job["status"], job["result"], job["error"]) == ("queued", None, None)
        world.live.is_full = True
        response = await _compute(world, "add", key_id, *operands)
        assert response.status_code == 202
        await world.work()
        shown = await world.client.get(f"/api/v1/jobs/{job['job_id']}", headers=world.headers)
        assert np.abs(_decrypted(alice, shown.json()) - (X + Y)).max() < 1e-6
        for wait in ("-1", "61", "x"):
            response = await _compute(world, "add", key_id, *operands, query=f"?wait={wait}")
            assert _error(response, 422) == "validation_error"


async def test_the_same_idempotency_key_is_one_job(alice: Client) -> None:
    async with World() as world:
        key_id = await _key(world, alice)
        x, y = _cipher(alice, X), _cipher(alice, Y)
        header = {"Idempotency-Key": "sum-1"}
        first = await _compute(world, "add", key_id, x, y, headers=header)
        again = await _compute(world, "add", key_id, x, y, headers=header)
        assert (again.status_code, again.json()) == (200, first.json())
        other = await _compute(world, "add", key_id, y, x, headers=header)
        assert _error(other, 422) == "idempotency_key_reused"
        assert len(world.harness.bus.emitted(JobSubmitted)) == 1


async def test_operands_that_cannot_be_computed(
    alice: Client, bob: Client, alice_n14: Client
) -> None:
    async with World() as world:
        key_id = await _key(world, alice)
        x = _cipher(alice, X)
        honest = alice.encrypt(X)
        cases: list[tuple[dict[str, Any], int, str]] = [
            ({"ciphertext": b64(honest[:-8])}, 400, "ciphertext_invalid"),
            ({"ciphertext": b64(b"junk")}, 400, "ciphertext_invalid"),
            ({"ciphertext": b64(alice.secret)}, 400, "ciphertext_invalid"),
            (_cipher(alice_n14, X), 400, "ciphertext_invalid"),
            ({"ciphertext": "not base64!"}, 422, "validation_error"),
            ({"ciphertext": b64(bytes(CIPHERTEXT_BYTES_MAX + 1))}, 413, "payload_too_large"),
            ({}, 422, "validation_error"),
            ({"value": 1.0, "values": [1.0]}, 422, "validation_error"),
            ({"values": []}, 422, "validation_error"),
            ({"value": 1e9}, 422, "validation_error"),
            ({"values": [1.0] * 4097}, 400, "plaintext_invalid"),
            ({"value": 0}, 400, "transparent_result"),
            ({"values": [0.0, 0.0]}, 400, "transparent_result"),
            ({"values": [1e-300]}, 400, "transparent_result"),
            (_cipher(alice, X, level=2), 422, "level_exhausted"),
            ({**x, "magnitude": 0}, 422, "validation_error"),
            ({"handle": "nonsense"}, 404, "not_found"),
            ({"handle": "ct_nobodys"}, 404, "not_found"),
        ]
        for operand, status, code in cases:
            response = await _compute(world, "multiply", key_id, x, operand)
            assert _error(response, status) == code, operand.keys()
        two_plain = await _compute(world, "add", key_id, {"value": 1}, {"value": 2})
        assert _error(two_plain, 400) == "validation_error"
        no_key = await _compute(world, "add", "ek_none", x, x)
        assert _error(no_key, 404) == "not_found"


async def test_a_refused_computation_leaves_no_operands(alice: Client) -> None:
    async with World() as world:
        key_id = await _key(world, alice)
        before = await world.stored()
        lowest = _cipher(alice, X, level=2)
        await _compute(world, "multiply", key_id, _cipher(alice, X), lowest)
        await _compute(world, "multiply", key_id, _cipher(alice, X), {"ciphertext": b64(b"x")})
        assert await world.stored() == before


async def test_a_handle_of_another_key_is_refused(alice: Client, bob: Client) -> None:
    async with World() as world:
        alices, bobs = await _key(world, alice), await _key(world, bob)
        x = _cipher(alice, X)
        first = await _compute(world, "add", alices, x, x)
        handle = {"handle": first.json()["result"]["handle"]}
        response = await _compute(world, "add", bobs, _cipher(bob, X), handle)
        assert _error(response, 409) == "key_mismatch"


async def test_another_tenants_keys_jobs_and_handles_do_not_exist(alice: Client) -> None:
    async with World() as world:
        key_id = await _key(world, alice)
        x = _cipher(alice, X)
        job = (await _compute(world, "add", key_id, x, x)).json()
        other = world.harness.key(OTHER_TENANT)
        path = f"/api/v1/jobs/{job['job_id']}"
        for method in ("GET", "DELETE"):
            assert _error(await world.client.request(method, path, headers=other), 404)
        assert (await world.client.get("/api/v1/jobs", headers=other)).json()["data"] == []
        stolen = await _compute(world, "add", key_id, x, x, headers=other)
        assert _error(stolen, 404) == "not_found"
        theirs = await world.client.post(
            "/api/v1/keys", content=alice.relin, headers={**other, **OCTETS}
        )
        handle = {"handle": job["result"]["handle"]}
        response = await _compute(world, "add", theirs.json()["key_id"], x, handle, headers=other)
        assert _error(response, 404) == "not_found"


async def test_nothing_is_computed_under_a_deleted_key(alice: Client) -> None:
    async with World() as world:
        key_id = await _key(world, alice)
        await world.client.delete(f"/api/v1/keys/{key_id}", headers=world.headers)
        x = _cipher(alice, X)
        assert _error(await _compute(world, "add", key_id, x, x), 409) == "key_deleted"


async def test_a_job_is_cancelled_until_it_has_ended(alice: Client) -> None:
    async with World() as world:
        key_id = await _key(world, alice)
        x = _cipher(alice, X)
        queued = (await _compute(world, "add", key_id, x, x, query="?wait=0")).json()
        path = f"/api/v1/jobs/{queued['job_id']}"
        for _ in range(2):
            response = await world.client.delete(path, headers=world.headers)
            assert (response.status_code, response.json()["status"]) == (200, "cancelled")
        await world.work()
        assert (await world.client.get(path, headers=world.headers)).json()["status"] == "cancelled"
        done = (await _compute(world, "add", key_id, x, x)).json()
        response = await world.client.delete(
            f"/api/v1/jobs/{done['job_id']}", headers=world.headers
        )
        assert _error(response, 409) == "job_finished"


async def test_jobs_are_listed_and_filtered(alice: Client, bob: Client) -> None:
    async with World() as world:
        alices, bobs = await _key(world, alice), await _key(world, bob)
        await _compute(world, "add", alices, _cipher(alice, X), {"value": 1})
        await _compute(world, "add", bobs, _cipher(bob, X), {"value": 1}, query="?wait=0")

        async def listed(query: str) -> list[dict[str, Any]]:
            response = await world.client.get(f"/api/v1/jobs{query}", headers=world.headers)
            assert response.status_code == 200, response.text
            return list(response.json()["data"])

        assert len(await listed("")) == 2
        [done] = await listed("?status=succeeded")
        assert (done["key_id"], done["result"]["ciphertext"]) == (alices, None)
        [queued] = await listed(f"?key_id={bobs}")
        assert queued["status"] == "queued"
        response = await world.client.get("/api/v1/jobs?status=x", headers=world.headers)
        assert _error(response, 422) == "validation_error"


@pytest.mark.parametrize("reason", ["engine_failure", "transparent_result"])
async def test_a_job_that_fails_while_its_client_waits_is_an_error(
    alice: Client, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with World() as world:
        key_id = await _key(world, alice)

        async def failing(job: Any) -> Any:
            return RecordJobFailure(reason, "it did not work")

        monkeypatch.setattr(world, "_outcome", failing)
        x = _cipher(alice, X)
        response = await _compute(world, "add", key_id, x, x)
        assert _error(response, 500 if reason == "engine_failure" else 400) == reason
        job_id = response.json()["error"]["details"]["job_id"]
        shown = (await world.client.get(f"/api/v1/jobs/{job_id}", headers=world.headers)).json()
        assert shown["status"] == "failed"
        assert shown["error"] == {"code": reason, "message": "it did not work"}
