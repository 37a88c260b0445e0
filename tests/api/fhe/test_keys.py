"""Uploading evaluation keys: recognised, stored once, and nothing kept that should not be."""

import random
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from commands.billing.account_state import AssignPlan
from commands.billing.plans import PlanCode
from infra.ids import new_id
from infra.objects import ObjectsUnavailable
from schemas.billing.account import ACCOUNT_ID
from schemas.envelope import SYSTEM
from schemas.fhe.evaluation_key import EvaluationKeyDeleted
from schemas.fhe.parameters import KEY_BYTES_MAX
from streams.bus import CommandRequest
from tests.api.fhe.world import World
from tests.api.harness import OTHER_TENANT, TENANT
from tests.fhe_workers.clients import Client
from tests.fhe_workers.mutations import MUTATIONS

OCTETS = {"Content-Type": "application/octet-stream"}


async def _upload(world: World, data: bytes, **headers: str) -> httpx.Response:
    return await world.client.post(
        "/api/v1/keys", content=data, headers={**world.headers, **OCTETS, **headers}
    )


def _error(response: httpx.Response, status: int) -> str:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error["request_id"] == response.headers["x-request-id"]
    return str(error["code"])


async def test_a_key_is_uploaded_shown_and_listed(alice: Client) -> None:
    async with World() as world:
        response = await _upload(world, alice.relin)
        assert response.status_code == 201
        key = response.json()
        assert key["params_id"] == "ckks-n13" and key["has_relin"]
        assert (key["size_bytes"], key["rotations"]) == (len(alice.relin), [])
        assert "x-log-position" in response.headers
        shown = await world.client.get(f"/api/v1/keys/{key['key_id']}", headers=world.headers)
        assert shown.json() == key
        listed = await world.client.get("/api/v1/keys", headers=world.headers)
        assert listed.json() == {"data": [key], "next_cursor": None, "has_more": False}


async def test_the_same_bytes_are_the_same_key_and_stored_once(alice: Client) -> None:
    async with World() as world:
        first = await _upload(world, alice.relin)
        before = await world.stored()
        again = await _upload(world, alice.relin)
        assert again.status_code == 200
        assert again.json() == first.json()
        assert await world.stored() == before and len(before) == 1


async def test_the_same_idempotency_key_is_one_upload(alice: Client, bob: Client) -> None:
    async with World() as world:
        header = {"Idempotency-Key": "upload-1"}
        first = await _upload(world, alice.relin, **header)
        again = await _upload(world, alice.relin, **header)
        assert (again.status_code, again.json()) == (201, first.json())
        assert again.headers["idempotency-replayed"] == "true"
        other = await _upload(world, bob.relin, **header)
        assert _error(other, 422) == "idempotency_key_reused"
        assert len(await world.stored()) == 1


async def test_one_key_more_than_the_plan_allows_is_402_and_nothing_of_it_is_kept(
    alice: Client, bob: Client
) -> None:
    async with World() as world:
        await _plan(world, "trial")
        for client in (alice, bob):
            assert (await _upload(world, client.relin)).status_code == 201
        carol, kept = Client(), await world.stored()
        refused = await _upload(world, carol.relin)
        assert _error(refused, 402) == "evaluation_keys_exhausted"
        assert "2 evaluation keys" in refused.json()["error"]["message"]
        assert await world.stored() == kept
        # A key that is there already needs no place, and a larger plan gives one at once.
        assert (await _upload(world, alice.relin)).status_code == 200
        await _plan(world, "payg")
        third = (await _upload(world, carol.relin)).json()["key_id"]
        # A smaller one takes nothing away.
        await _plan(world, "trial")
        listed = await world.client.get("/api/v1/keys", headers=world.headers)
        assert len(listed.json()["data"]) == 3
        path = f"/api/v1/keys/{third}"
        assert (await world.client.delete(path, headers=world.headers)).status_code == 204
        assert _error(await _upload(world, carol.relin), 402) == "evaluation_keys_exhausted"


async def _plan(world: World, code: PlanCode) -> None:
    request = CommandRequest(
        tenant=TENANT,
        stream_id=ACCOUNT_ID,
        command=AssignPlan(code),
        actor=SYSTEM,
        command_id=new_id("cmd"),
    )
    assert (await world.harness.bus.send(request)).status == "accepted"


async def test_two_tenants_with_the_same_bytes_have_two_keys(alice: Client) -> None:
    async with World() as world:
        mine = (await _upload(world, alice.relin)).json()
        theirs_headers = world.harness.key(OTHER_TENANT)
        theirs = await world.client.post(
            "/api/v1/keys", content=alice.relin, headers={**theirs_headers, **OCTETS}
        )
        assert theirs.json()["key_id"] != mine["key_id"]
        for method in ("GET", "DELETE"):
            path = f"/api/v1/keys/{mine['key_id']}"
            response = await world.client.request(method, path, headers=theirs_headers)
            assert _error(response, 404) == "not_found"
        assert len((await world.client.get("/api/v1/keys", headers=world.headers)).json()["data"])


def _multipart(**parts: Any) -> dict[str, Any]:
    files = {name: (name, data) for name, data in parts.items() if isinstance(data, bytes)}
    fields = {name: data for name, data in parts.items() if isinstance(data, str)}
    return {"files": files, "data": fields}


async def test_a_multipart_upload_with_rotations(alice: Client) -> None:
    async with World() as world:
        body = _multipart(
            relin=alice.relin, rotate=alice.rotate, params_id="ckks-n13", name="lap\ttop"
        )
        response = await world.client.post("/api/v1/keys", headers=world.headers, **body)
        assert response.status_code == 201, response.text
        key = response.json()
        assert (key["name"], key["rotations"]) == ("lap\ttop", [-4, 1, 8])
        assert [part["kind"] for part in key["parts"]] == ["relin", "rotate"]
        assert len(await world.stored()) == 2


async def test_multipart_uploads_that_are_no_key(alice: Client, alice_n14: Client) -> None:
    cases = [
        (_multipart(rotate=alice.rotate), 422, "relin_missing"),
        (_multipart(relin=alice.rotate), 422, "wrong_part"),
        (_multipart(relin=alice_n14.relin, rotate=alice.rotate), 422, "wrong_parameters"),
        (_multipart(relin=alice.relin, params_id="ckks-n14"), 422, "wrong_parameters"),
        (_multipart(relin=alice.relin, rotate=alice.secret), 422, "secret_key_refused"),
        (_multipart(relin=alice.relin, name="x" * 201), 422, "validation_error"),
        (_multipart(relin=alice.relin[:-5]), 422, "truncated"),
        (_multipart(relin=alice.relin, **{f"f{i}": b"" for i in range(9)}), 400, None),
    ]
    async with World() as world:
        for body, status, code in cases:
            response = await world.client.post("/api/v1/keys", headers=world.headers, **body)
            assert _error(response, status) == (code or "validation_error")
            # Whatever was stored before the fault is gone again.
            assert await world.stored() == []


async def test_bodies_that_are_no_upload(alice: Client) -> None:
    async with World() as world:
        send = world.client.post
        headers = world.headers
        as_json = await send("/api/v1/keys", headers=headers, json={})
        assert _error(as_json, 415) == "unsupported_media_type"
        no_boundary = {**headers, "Content-Type": "multipart/form-data"}
        response = await send("/api/v1/keys", headers=no_boundary, content=b"x")
        assert _error(response, 400) == "validation_error"
        cut = {**headers, "Content-Type": "multipart/form-data; boundary=x"}
        head = b'--x\r\nContent-Disposition: form-data; name="relin"\r\n\r\n'
        response = await send("/api/v1/keys", headers=cut, content=head + alice.relin)
        assert _error(response, 400) == "validation_error"
        zipped = {**headers, **OCTETS, "Content-Encoding": "gzip"}
        response = await send("/api/v1/keys", headers=zipped, content=b"x")
        assert _error(response, 415) == "unsupported_content_encoding"
        response = await send("/api/v1/keys", headers={**headers, **OCTETS}, content=b"")
        assert _error(response, 422) == "truncated"
        assert await world.stored() == []


async def test_a_secret_key_is_refused_and_never_touches_the_store(
    alice: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with World() as world:
        written: list[bytes] = []
        put_stream = world.objects.put_stream

        async def spying(name: str, chunks: AsyncIterator[bytes]) -> None:
            async def spied() -> AsyncIterator[bytes]:
                async for chunk in chunks:
                    written.append(chunk)
                    yield chunk

            await put_stream(name, spied())

        monkeypatch.setattr(world.objects, "put_stream", spying)
        response = await _upload(world, alice.secret)
        assert _error(response, 422) == "secret_key_refused"
        assert written == [] and await world.stored() == []

        async def dribble() -> AsyncIterator[bytes]:
            for at in range(0, len(alice.secret), 7):
                yield alice.secret[at : at + 7]

        slowly = await world.client.post(
            "/api/v1/keys", content=dribble(), headers={**world.headers, **OCTETS}
        )
        assert _error(slowly, 422) == "secret_key_refused"
        assert written == []


async def test_too_much_is_refused_before_it_is_read(alice: Client) -> None:
    async with World() as world:
        sent = 0

        async def endless() -> AsyncIterator[bytes]:
            nonlocal sent
            while True:
                sent += 65_536
                yield bytes(65_536)

        declared = {"Content-Length": str(KEY_BYTES_MAX + 10**6)}
        response = await world.client.post(
            "/api/v1/keys", content=endless(), headers={**world.headers, **OCTETS, **declared}
        )
        assert _error(response, 413) == "payload_too_large"
        assert sent <= 2 * 65_536
        # Without a length the first bytes tell that this is no key, long before the limit.
        response = await world.client.post(
            "/api/v1/keys", content=endless(), headers={**world.headers, **OCTETS}
        )
        assert _error(response, 422) == "malformed"
        assert sent <= 8 * 65_536
        # A rotation key that declares more than the limit is refused by its own head.
        head = bytearray(alice.rotate[:88])
        head[8:16] = (50_000_000).to_bytes(8, "little")
        assert _error(await _upload(world, bytes(head)), 422) == "wrong_length"


async def test_hostile_uploads_are_refused_and_leave_nothing(alice: Client) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    async with World() as world:
        for number in range(80):
            data = MUTATIONS[number % len(MUTATIONS)](alice.relin, rng)
            response = await _upload(world, data)
            assert response.status_code in (201, 200, 422), response.text
            if response.status_code == 422:
                continue
            # A flipped bit of a residue is another key, of no use to anybody.
            key_id = response.json()["key_id"]
            await world.client.delete(f"/api/v1/keys/{key_id}", headers=world.headers)
        stored = await world.stored()
        assert all(row["deleted_at"] for row in world.keys.rows.values())
        # What a worker would erase when it reads the deletions.
        deleted = world.harness.bus.emitted(EvaluationKeyDeleted)
        assert sorted(stored) == sorted(name for event in deleted for name in event.objects)


async def test_a_key_is_deleted_once_and_for_all(alice: Client) -> None:
    async with World() as world:
        key_id = (await _upload(world, alice.relin)).json()["key_id"]
        path = f"/api/v1/keys/{key_id}"
        for _ in range(2):
            response = await world.client.delete(path, headers=world.headers)
            assert (response.status_code, response.content) == (204, b"")
        assert _error(await world.client.get(path, headers=world.headers), 404) == "not_found"
        again = await _upload(world, alice.relin)
        assert (again.status_code, again.json()["key_id"]) == (201, key_id)


async def test_pages_of_keys(alice: Client) -> None:
    async with World() as world:
        made = []
        for number in range(3):
            world.harness.clock.advance(1)
            key = Client()
            made.append((await _upload(world, key.relin, **{"X-N": str(number)})).json())
        first = (await world.client.get("/api/v1/keys?limit=2", headers=world.headers)).json()
        assert [key["key_id"] for key in first["data"]] == [made[2]["key_id"], made[1]["key_id"]]
        assert first["has_more"]
        rest = await world.client.get(
            f"/api/v1/keys?limit=2&cursor={first['next_cursor']}", headers=world.headers
        )
        assert [key["key_id"] for key in rest.json()["data"]] == [made[0]["key_id"]]
        assert rest.json()["next_cursor"] is None
        for cursor in ("nonsense", "%00", "MTI6", "LTE6eA=="):
            path = f"/api/v1/keys?cursor={cursor}"
            response = await world.client.get(path, headers=world.headers)
            assert response.status_code in (200, 400, 422)
        for limit in (0, 101):
            response = await world.client.get(f"/api/v1/keys?limit={limit}", headers=world.headers)
            assert _error(response, 422) == "validation_error"


async def test_a_viewer_sees_and_does_not_upload(alice: Client) -> None:
    async with World() as world:
        await _upload(world, alice.relin)
        viewer = world.harness.key(roles=("viewer",))
        listed = await world.client.get("/api/v1/keys", headers=viewer)
        assert len(listed.json()["data"]) == 1
        response = await world.client.post(
            "/api/v1/keys", content=alice.relin, headers={**viewer, **OCTETS}
        )
        assert _error(response, 403) == "forbidden"
        assert _error(await world.client.get("/api/v1/keys"), 401) == "unauthorized"


async def test_a_store_that_is_away_is_a_503(
    alice: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with World() as world:

        async def away(*_: Any) -> None:
            raise ObjectsUnavailable("disk full")

        monkeypatch.setattr(world.objects, "put_stream", away)
        response = await _upload(world, alice.relin)
        assert _error(response, 503) == "objects_unavailable"
        assert response.headers["retry-after"] == "2"


async def test_numbers_in_another_alphabet_are_not_read() -> None:
    async with World() as world:
        response = await world.client.get(
            "/api/v1/keys", params={"limit": "\u0663"}, headers=world.headers
        )
        assert _error(response, 422) == "validation_error"
