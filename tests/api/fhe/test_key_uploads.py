"""Keys in parts over HTTP: sent in pieces, resumed, checked, completed, given up."""

import contextlib
from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Any

import httpx
import pytest

from api.fhe import key_checks
from commands.fhe.key_upload import UPLOADS_MAX
from schemas.fhe.evaluation_key import EvaluationKeyRegistered
from schemas.fhe.key_upload import KeyUploadCompleted
from schemas.fhe.parameters import CKKS_BOOT_N15, PARAMETER_SETS
from tests.api.fhe.world import World
from tests.api.harness import OTHER_TENANT
from tests.fhe_workers.clients import Client
from tests.fhe_workers.refreshing import RefreshingClient

PATH = "/api/v1/keys/uploads"
PIECE = 600_000


async def opened(world: World, parts: dict[str, bytes], **fields: Any) -> dict[str, Any]:
    body = {
        "params_id": "ckks-n13",
        "parts": [{"kind": kind, "size_bytes": len(data)} for kind, data in parts.items()],
        **fields,
    }
    answer = await world.client.post(PATH, json=body, headers=world.headers)
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"{PATH}/{answer.json()['upload_id']}"
    return dict(answer.json())


async def send(world: World, id: str, part: int, offset: int, data: Any) -> httpx.Response:
    headers = {
        **world.headers,
        "Content-Type": "application/octet-stream",
        "Upload-Offset": str(offset),
    }
    return await world.client.patch(f"{PATH}/{id}/parts/{part}", content=data, headers=headers)


async def sent(world: World, id: str, parts: dict[str, bytes]) -> None:
    for number, data in enumerate(parts.values()):
        for at in range(0, len(data), PIECE):
            answer = await send(world, id, number, at, data[at : at + PIECE])
            assert answer.status_code == 200, answer.text


async def completed(world: World, id: str, parts: dict[str, bytes]) -> httpx.Response:
    hashes = [sha256(data).hexdigest() for data in parts.values()]
    path = f"{PATH}/{id}/complete"
    return await world.client.post(path, json={"sha256s": hashes}, headers=world.headers)


def error(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    return str(answer.json()["error"]["code"])


def parts_of(client: Client) -> dict[str, bytes]:
    return {"relin": client.relin, "rotate": client.rotate}


async def test_a_key_comes_in_pieces_and_is_the_key_that_one_request_makes(alice: Client) -> None:
    parts = parts_of(alice)
    async with World() as world:
        upload = await opened(world, parts, name="laptop")
        id = upload["upload_id"]
        await sent(world, id, parts)
        shown = (await world.client.get(f"{PATH}/{id}", headers=world.headers)).json()
        assert [part["offset"] for part in shown["parts"]] == [len(data) for data in parts.values()]
        assert shown["parts"][0]["sha256"] == sha256(alice.relin).hexdigest()
        answer = await completed(world, id, parts)
        assert answer.status_code == 201, answer.text
        key = answer.json()
        assert (key["name"], key["rotations"]) == ("laptop", [-4, 1, 8])
        # Pieces are gone; what is stored is the key's.
        (event,) = world.harness.bus.emitted(EvaluationKeyRegistered)
        assert await world.stored() == sorted(part.object for part in event.parts)
        again = await completed(world, id, parts)
        assert (again.status_code, again.json()) == (200, key)
        files = {kind: (kind, data) for kind, data in parts.items()}
        whole = await world.client.post("/api/v1/keys", files=files, headers=world.headers)
        assert (whole.status_code, whole.json()["key_id"]) == (200, key["key_id"])


async def test_the_same_bytes_in_parts_again_are_the_same_key(alice: Client) -> None:
    parts = {"relin": alice.relin}
    async with World() as world:
        answers = []
        for _ in range(2):
            id = (await opened(world, parts))["upload_id"]
            await sent(world, id, parts)
            answers.append(await completed(world, id, parts))
        first, second = answers
        assert (first.status_code, second.status_code) == (201, 200)
        assert first.json()["key_id"] == second.json()["key_id"]
        kept = [event.kept for event in world.harness.bus.emitted(KeyUploadCompleted)]
        assert (len(kept[0]), kept[1]) == (1, [])


async def test_a_piece_that_breaks_off_counts_for_nothing(alice: Client) -> None:
    async with World() as world:
        id = (await opened(world, {"relin": alice.relin}))["upload_id"]
        assert (await send(world, id, 0, 0, alice.relin[:100])).status_code == 200
        stored = await world.stored()

        async def broken() -> AsyncIterator[bytes]:
            yield alice.relin[100:200]
            raise httpx.ReadError("the line went dead")

        with contextlib.suppress(httpx.ReadError):
            await send(world, id, 0, 100, broken())
        assert await world.stored() == stored
        wrong = await send(world, id, 0, 200, alice.relin[200:])
        assert error(wrong, 409) == "offset_mismatch"
        assert wrong.headers["upload-offset"] == "100"
        rest = await send(world, id, 0, 100, alice.relin[100:])
        assert rest.headers["upload-offset"] == str(len(alice.relin))


async def test_parts_that_are_no_key_are_refused_and_may_begin_anew(
    alice: Client, alice_n14: Client
) -> None:
    size = len(alice.relin)
    flipped = bytearray(alice.relin)
    flipped[200:208] = b"\xff" * 8
    cases = [
        (bytes(flipped), "residue_out_of_range"),
        (alice.secret + bytes(size - len(alice.secret)), "secret_key_refused"),
        (alice_n14.relin[:size], "truncated"),
    ]
    async with World() as world:
        id = (await opened(world, {"relin": alice.relin}))["upload_id"]
        for data, code in cases:
            assert error(await send(world, id, 0, 0, data), 422) == code
            assert await world.stored() == []
        assert error(await completed(world, id, {"relin": alice.relin}), 409) == "part_missing"
        await sent(world, id, {"relin": alice.relin})
        other = await completed(world, id, {"relin": b"something else"})
        assert error(other, 400) == "hash_mismatch"
        assert (await completed(world, id, {"relin": alice.relin})).status_code == 201


async def test_what_is_too_much_or_nowhere(alice: Client) -> None:
    async with World() as world:
        id = (await opened(world, {"relin": alice.relin}))["upload_id"]
        assert error(await send(world, id, 0, 0, alice.relin + b"x"), 413) == "payload_too_large"
        assert error(await send(world, id, 0, 0, b""), 400) == "validation_error"
        assert error(await send(world, id, 1, 0, b"x"), 404) == "not_found"
        path = f"{PATH}/{id}/parts/0"
        nowhere = await world.client.patch(path, content=b"x", headers=world.headers)
        assert error(nowhere, 400) == "validation_error"
        assert await world.stored() == []
        theirs = world.harness.key(OTHER_TENANT)
        assert error(await world.client.get(f"{PATH}/{id}", headers=theirs), 404) == "not_found"


async def test_an_upload_is_given_up(alice: Client) -> None:
    parts = {"relin": alice.relin}
    async with World() as world:
        ids = [(await opened(world, parts))["upload_id"] for _ in range(UPLOADS_MAX)]
        body = {"params_id": "ckks-n13", "parts": [{"kind": "relin", "size_bytes": 9}]}
        full = await world.client.post(PATH, json=body, headers=world.headers)
        assert error(full, 409) == "conflict"
        for _ in range(2):
            gone = await world.client.delete(f"{PATH}/{ids[0]}", headers=world.headers)
            assert gone.status_code == 204
        shown = await world.client.get(f"{PATH}/{ids[0]}", headers=world.headers)
        assert shown.json()["status"] == "cancelled"
        assert error(await send(world, ids[0], 0, 0, b"x"), 409) == "conflict"
        await opened(world, parts)
        rotate = {"params_id": "ckks-n13", "parts": [{"kind": "rotate", "size_bytes": 9}]}
        alone = await world.client.post(PATH, json=rotate, headers=world.headers)
        assert error(alone, 422) == "relin_missing"


async def test_a_bootstrapping_key_is_declared_whole_and_each_part_has_its_length() -> None:
    wanted = dict(CKKS_BOOT_N15.part_bytes)
    async with World() as world:

        async def opening(parts: dict[str, int]) -> httpx.Response:
            declared = [{"kind": kind, "size_bytes": size} for kind, size in parts.items()]
            body = {"params_id": CKKS_BOOT_N15.params_id, "parts": declared}
            return await world.client.post(PATH, json=body, headers=world.headers)

        assert error(await opening({"rlk": wanted["rlk"]}), 422) == "part_missing"
        assert error(await opening({**wanted, "d2s": 5}), 422) == "wrong_length"
        assert error(await opening({**wanted, "secret": 5}), 422) == "not_an_evaluation_key"
        assert (await opening(wanted)).status_code == 201


async def test_a_bootstrapping_key_is_loaded_part_by_part_before_it_is_a_key(
    erin: RefreshingClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A ring so small that a key takes a second; the product knows no such set.
    monkeypatch.setitem(PARAMETER_SETS, erin.params.params_id, erin.params)
    parts = {part.kind: erin.bytes_of(part.kind) for part in erin.parts}
    kinds = list(parts)
    async with World() as world:
        id = (await opened(world, parts, params_id=erin.params.params_id))["upload_id"]
        for kind, hostile in (
            ("d2s", bytes(len(parts["d2s"]))),
            ("rlk", parts["rlk"][:1000] + b"\xff" * 16 + parts["rlk"][1016:]),
            (kinds[1], parts[kinds[2]]),
        ):
            answer = await send(world, id, kinds.index(kind), 0, hostile)
            assert error(answer, 422) == "key_invalid"
            assert kind in answer.json()["error"]["message"]
        assert await world.stored() == []
        with monkeypatch.context() as without_go:
            without_go.setattr(key_checks, "cached_helper", lambda: None)
            answer = await send(world, id, kinds.index("d2s"), 0, parts["d2s"])
            assert error(answer, 503) == "engine_unavailable"
        for number, data in enumerate(parts.values()):
            answer = await send(world, id, number, 0, data)
            assert answer.status_code == 200, answer.text
        answer = await completed(world, id, parts)
        assert answer.status_code == 201, answer.text
        assert answer.json()["scheme"] == "ckks-boot"
        assert [part["kind"] for part in answer.json()["parts"]] == kinds
