"""Keys that the server makes: usable, shown once, and nowhere else."""

import base64
import logging
from pathlib import Path
from typing import Any

import msgspec
import pytest
from Pyfhel import PyCtxt

from infra.keyholder import Keyholder
from infra.objects import Objects
from infra.sandbox import ChildFailed
from schemas.fhe.parameters import CKKS_N13
from tests.api.fhe.world import World, b64

PATH = "/api/v1/keys/generate"
BODY = {"params_id": "ckks-n13", "name": "trial", "rotations": [8, 1, 1]}


def holder_of(made: dict[str, Any]) -> Keyholder:
    """A client that has nothing but the answer."""
    holder = Keyholder(CKKS_N13)
    holder.engine.from_bytes_secret_key(base64.b64decode(made["secret_key"]))
    holder.engine.from_bytes_public_key(base64.b64decode(made["public_key"]))
    return holder


def files_with(folder: Path, piece: bytes) -> list[Path]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [path for path in files if piece in path.read_bytes()]


async def test_what_was_generated_computes_and_its_secret_is_nowhere_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with World() as world:
        world.objects = world.harness.services.objects = Objects(tmp_path.as_uri())
        answer = await world.client.post(PATH, json=BODY, headers=world.headers)
        assert answer.status_code == 201, answer.text
        assert answer.headers["cache-control"] == "no-store"
        made = answer.json()
        key = made["key"]
        assert (key["rotations"], key["generated"], key["name"]) == ([1, 8], True, "trial")
        holder = holder_of(made)
        cipher = {"ciphertext": b64(holder.encrypt([0.5, -0.25]))}
        body = {"key_id": key["key_id"], "operands": [cipher, cipher]}
        path = "/api/v1/compute/multiply"
        product = (await world.client.post(path, json=body, headers=world.headers)).json()
        data = base64.b64decode(product["result"]["ciphertext"])
        assert holder.decrypt(data, 2) == pytest.approx([0.25, 0.0625], abs=1e-5)
        assert PyCtxt(pyfhel=holder.engine, bytestring=data)

        secret = base64.b64decode(made["secret_key"])
        piece = secret[1000:1064]
        told = [msgspec.json.encode(event) for event in world.harness.bus.payloads()]
        told += [msgspec.json.encode(one.command) for one in world.harness.bus.requests]
        told += [caplog.text.encode()]
        for text in told:
            assert piece not in text and made["secret_key"][1000:1064].encode() not in text
        assert files_with(tmp_path, piece) == []


async def test_a_repeat_shows_the_key_and_no_secret() -> None:
    async with World() as world:
        headers = {**world.headers, "Idempotency-Key": "trial-1"}
        first = await world.client.post(PATH, json=BODY, headers=headers)
        stored = await world.stored()
        again = await world.client.post(PATH, json=BODY, headers=headers)
        assert (first.status_code, again.status_code) == (201, 200)
        assert again.headers["idempotency-replayed"] == "true"
        assert again.json() == {"key": first.json()["key"], "secret_key": None, "public_key": None}
        assert await world.stored() == stored


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"params_id": "tfhe-132"}, "unsupported_parameters"),
        ({"rotations": [0]}, "rotations_invalid"),
        ({"rotations": [5000]}, "rotations_invalid"),
        ({"params_id": "ckks-n14d5", "rotations": [1, 2, 3]}, "too_large"),
        ({"rotations": [9000]}, "validation_error"),
    ],
)
async def test_keys_that_are_not_made(fields: dict[str, Any], code: str) -> None:
    async with World() as world:
        answer = await world.client.post(PATH, json={**BODY, **fields}, headers=world.headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, code)
        assert await world.stored() == []


async def test_a_process_that_dies_of_it_is_a_503_here_and_a_422_for_an_upload(
    monkeypatch: pytest.MonkeyPatch, alice: Any
) -> None:
    async with World() as world:

        async def dying(*_: Any) -> bytes:
            raise ChildFailed("it ended with -11")

        monkeypatch.setattr(world.harness.services.key_child, "ask", dying)
        answer = await world.client.post(PATH, json=BODY, headers=world.headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "keys_not_made")
        octets = {**world.headers, "Content-Type": "application/octet-stream"}
        upload = await world.client.post("/api/v1/keys", content=alice.relin, headers=octets)
        assert (upload.status_code, upload.json()["error"]["code"]) == (422, "key_invalid")
        assert await world.stored() == []
