"""The same work is done once: one handle, one computation, whoever asks and however often."""

import asyncio
from typing import Any

import numpy as np
import pytest

from commands.fhe.job_state import RecordJobFailure
from schemas.billing.usage import UsageRecorded
from schemas.fhe.job import JobSubmitted, JobSucceeded
from tests.api.fhe.requests import cipher, compute, decrypted, error, upload_key
from tests.api.fhe.world import World
from tests.api.harness import OTHER_TENANT
from tests.fhe_workers.clients import Client

X = np.array([0.5, -0.25])


def _counts(world: World) -> dict[str, int]:
    """What was done, and what was there already; time and money are other meters."""
    counts: dict[str, int] = {}
    for event in world.harness.bus.emitted(UsageRecorded):
        if event.meter.endswith("operations"):
            counts[event.meter] = counts.get(event.meter, 0) + event.quantity
    return counts


async def test_the_same_work_again_is_answered_at_once_and_counted_as_cached(alice: Client) -> None:
    async with World() as world:
        key_id = await upload_key(world, alice)
        body = {"key_id": key_id, "operands": [cipher(alice, X), {"value": 2}]}
        first = (await compute(world, "multiply", body)).json()
        before = await world.stored()
        world.has_worker = False
        again = await compute(world, "multiply?wait=0", body)
        assert again.status_code == 200
        assert again.json() == {**first, "cached": True}
        assert await world.stored() == before
        assert _counts(world) == {"fhe.operations": 1, "fhe.cached_operations": 1}
        # A repeat of a request is no second use.
        header = {"Idempotency-Key": "again-1"}
        for _ in range(2):
            assert (await compute(world, "multiply", body, header)).json()["cached"]
        assert _counts(world)["fhe.cached_operations"] == 2
        # Anything else is other work: operation, operand, the magnitude that it states.
        world.has_worker = True
        smaller = {**body["operands"][0], "magnitude": 0.5}  # type: ignore[index]
        for path, operands in (
            ("add", body["operands"]),
            ("multiply", [body["operands"][0], {"value": 3}]),  # type: ignore[index]
            ("multiply", [smaller, {"value": 2}]),
        ):
            other = (await compute(world, path, {**body, "operands": operands})).json()
            assert not other["cached"]
            assert other["result"]["handle"] != first["result"]["handle"]


async def test_equal_requests_at_the_same_time_are_one_computation(alice: Client) -> None:
    async with World() as world:
        key_id = await upload_key(world, alice)
        body = {"key_id": key_id, "operands": [cipher(alice, X), {"value": 2}]}
        answers = await asyncio.gather(*(compute(world, "add", body) for _ in range(5)))
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.json()["result"]["handle"] for answer in answers}) == 1
        assert len(world.harness.bus.emitted(JobSubmitted)) == 1
        assert len(world.harness.bus.emitted(JobSucceeded)) == 1
        assert _counts(world)["fhe.operations"] == 1
        # Nobody's operands stay behind but those that the job was done with, and it removes those.
        [submitted] = world.harness.bus.emitted(JobSubmitted)
        operands = [name for name in await world.stored() if "/jobs/" in name]
        assert sorted(operands) == sorted(submitted.own_objects)


async def test_a_request_joins_the_job_that_is_on_its_way(alice: Client) -> None:
    async with World() as world:
        key_id = await upload_key(world, alice)
        body = {"key_id": key_id, "operands": [cipher(alice, X), {"value": 2}]}
        first = (await compute(world, "add?wait=0", body)).json()
        joined = await compute(world, "add?wait=0", body)
        assert (joined.status_code, joined.json()) == (202, first)
        assert joined.headers["location"] == f"/api/v1/jobs/{first['job_id']}"
        done = (await compute(world, "add", body)).json()
        assert (done["job_id"], done["status"], done["cached"]) == (
            first["job_id"],
            "succeeded",
            False,
        )
        assert _counts(world) == {"fhe.operations": 1}


async def test_a_result_that_was_deleted_is_computed_again(alice: Client) -> None:
    async with World() as world:
        key_id = await upload_key(world, alice)
        body = {"key_id": key_id, "operands": [cipher(alice, X), {"value": 2}]}
        first = (await compute(world, "multiply", body)).json()
        [result] = [name for name in await world.stored() if "/results/" in name]
        await world.objects.delete(result)
        again = (await compute(world, "multiply", body)).json()
        assert again["result"] == first["result"] and not again["cached"]
        assert np.abs(decrypted(alice, again)[:2] - 2 * X).max() < again["result"]["error_bound"]
        # The work was done twice.
        assert _counts(world) == {"fhe.operations": 2}
        assert (await compute(world, "multiply", body)).json()["cached"]


@pytest.mark.parametrize("end", ["failed", "cancelled"])
async def test_work_that_ended_without_a_result_is_tried_again(
    alice: Client, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with World() as world:
        key_id = await upload_key(world, alice)
        body = {"key_id": key_id, "operands": [cipher(alice, X), {"value": 2}]}
        if end == "failed":

            async def failing(job: Any) -> Any:
                return RecordJobFailure("engine_failure", "it died twice", job.attempt)

            with monkeypatch.context() as patched:
                patched.setattr(world, "_outcome", failing)
                assert error(await compute(world, "add", body), 500) == "engine_failure"
        else:
            job = (await compute(world, "add?wait=0", body)).json()
            await world.client.delete(f"/api/v1/jobs/{job['job_id']}", headers=world.headers)
            await world.work()
        done = (await compute(world, "add", body)).json()
        assert (done["status"], done["cached"]) == ("succeeded", False)
        assert np.abs(decrypted(alice, done)[:2] - (X + 2)).max() < 1e-5
        assert _counts(world) == {"fhe.operations": 1}


async def test_two_tenants_never_share_a_handle_or_a_loaded_key(alice: Client) -> None:
    async with World() as world:
        mine = {"key_id": await upload_key(world, alice)}
        operands = [cipher(alice, X), cipher(alice, X)]
        first = (await compute(world, "multiply", {**mine, "operands": operands})).json()
        world.headers = world.harness.key(OTHER_TENANT)
        theirs = {"key_id": await upload_key(world, alice)}
        second = (await compute(world, "multiply", {**theirs, "operands": operands})).json()
        assert not second["cached"]
        assert second["result"]["handle"] != first["result"]["handle"]
        assert second["result"]["sha256"] == first["result"]["sha256"]
        one, other = world.harness.bus.emitted(JobSubmitted)
        # A worker keeps keys by the names of their objects, which are a tenant's own.
        assert {part.object for part in one.key_parts}.isdisjoint(
            part.object for part in other.key_parts
        )
        stolen = {"handle": first["result"]["handle"]}
        body = {**theirs, "operands": [stolen, {"value": 1}]}
        assert error(await compute(world, "add", body), 404) == "not_found"


async def test_a_client_may_prefer_not_to_wait(alice: Client) -> None:
    async with World() as world:
        key_id = await upload_key(world, alice)
        preference = {"Prefer": "respond-async"}
        body = {"key_id": key_id, "operands": [cipher(alice, X), {"value": 1}]}
        response = await compute(world, "add", body, preference)
        assert response.status_code == 202
        assert response.headers["preference-applied"] == "respond-async"
        shown = await world.client.get(response.headers["location"], headers=world.headers)
        assert shown.json() == response.json()
        # So long it would wait.
        waiting = {"Prefer": "return=minimal, respond-async, wait=5"}
        response = await compute(world, "add", body, waiting)
        assert response.status_code == 200
        assert response.headers["preference-applied"] == "respond-async"
        for ignored in ("", "return=minimal", "wait=x"):
            other = {**body, "operands": [cipher(alice, X), {"value": 3}]}
            response = await compute(world, "add", other, {"Prefer": ignored})
            assert response.status_code == 200
            assert "preference-applied" not in response.headers
