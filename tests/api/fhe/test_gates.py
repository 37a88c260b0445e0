"""Gates and circuits over HTTP: the key chooses the engine, faults are told with their place."""

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import numpy as np
import pytest

from api.fhe.jobs import problem_of_failure
from schemas.fhe.circuit import ARITY
from schemas.fhe.parameters import BGV_N13, CIPHERTEXT_BYTES_MAX
from tests.api.fhe.world import World, b64
from tests.fhe_workers.clients import BitsClient, Client, GateClient
from tests.schemas.fhe.circuits import TRUTH, adder, bits_of, number_of

OCTETS = {"Content-Type": "application/octet-stream"}
BOTH = [0, 0, 1, 1], [0, 1, 0, 1]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World() as world:
        yield world


async def _post(world: World, path: str, body: Any, status: int = 200) -> dict[str, Any]:
    response = await world.client.post(path, json=body, headers=world.headers)
    assert response.status_code == status, response.text
    found: dict[str, Any] = response.json()
    return found


async def _upload(world: World, data: bytes, query: str = "") -> httpx.Response:
    return await world.client.post(
        f"/api/v1/keys{query}", content=data, headers={**world.headers, **OCTETS}
    )


async def _key(world: World, data: bytes, query: str = "") -> str:
    response = await _upload(world, data, query)
    assert response.status_code == 201, response.text
    return str(response.json()["key_id"])


async def _tfhe_key(world: World, client: GateClient) -> str:
    return await _key(world, client.server_key, "?params_id=tfhe-132")


def _bits(job: dict[str, Any], client: GateClient) -> list[int]:
    return client.decrypt(base64.b64decode(job["result"]["ciphertext"]))


def _circuit(key_id: str, inputs: dict[str, Any], bits: int) -> dict[str, Any]:
    gates, outputs = adder(bits)
    items = [{"id": gate.id, "gate": gate.gate.upper(), "inputs": gate.inputs} for gate in gates]
    return {"key_id": key_id, "inputs": inputs, "gates": items[::-1], "outputs": outputs}


async def test_bits_by_tfhe_single_and_in_lists(world: World, dora: GateClient) -> None:
    key_id = await _tfhe_key(world, dora)
    a, b = ({"ciphertext": b64(dora.encrypt(bits))} for bits in BOTH)
    body = {"key_id": key_id, "operands": [a, b]}
    done = await _post(world, "/api/v1/tfhe/gates/NAND?wait=60", body)
    assert (done["operation"], done["params_id"]) == ("nand", "tfhe-132")
    assert (done["result"]["count"], done["result"]["error_bound"]) == (4, 0.0)
    assert _bits(done, dora) == [1, 1, 1, 0]
    # A handle beside a list of single ciphertexts, and the gate in small letters.
    each = {"ciphertexts": [b64(dora.encrypt([bit])) for bit in BOTH[0]]}
    again = {"key_id": key_id, "operands": [{"handle": done["result"]["handle"]}, each]}
    assert _bits(await _post(world, "/api/v1/tfhe/gates/xor?wait=60", again), dora) == [1, 1, 0, 1]


async def test_packed_bits_by_bgv_until_no_level_is_left(world: World, carol: BitsClient) -> None:
    key_id = await _key(world, carol.relin)
    rng = np.random.default_rng(3)
    rows = rng.integers(0, 2, (3, BGV_N13.slots), dtype=np.int64)
    operands: list[dict[str, str]] = [{"ciphertext": b64(carol.encrypt(row))} for row in rows]
    expected = rows[0]
    for level, gate in enumerate(["XOR", "OR", "MUX", "AND"], start=1):
        body = {"key_id": key_id, "operands": operands[: ARITY[gate.lower()]]}
        done = await _post(world, f"/api/v1/tfhe/gates/{gate}?wait=60", body)
        wires = [expected, *rows[1:]][: ARITY[gate.lower()]]
        expected = np.array([TRUTH[gate.lower()](*bits) for bits in zip(*wires, strict=True)])
        data = base64.b64decode(done["result"]["ciphertext"])
        assert np.array_equal(carol.decrypt(data), expected)
        assert done["result"]["level"] == level
        operands[0] = {"handle": done["result"]["handle"]}
    body = {"key_id": key_id, "operands": operands[:2]}
    refused = await _post(world, "/api/v1/tfhe/gates/AND", body, 422)
    assert refused["error"]["code"] == "level_exhausted"
    inverted = {"key_id": key_id, "operands": operands[:1]}
    done = await _post(world, "/api/v1/tfhe/gates/NOT?wait=60", inverted)
    assert done["result"]["level"] == BGV_N13.depth


async def test_a_circuit_is_one_job(world: World, dora: GateClient) -> None:
    key_id = await _tfhe_key(world, dora)
    inputs = {
        "a": {"ciphertext": b64(dora.encrypt(bits_of(11, 4)))},
        "b": {"ciphertexts": [b64(dora.encrypt([bit])) for bit in bits_of(6, 4)]},
    }
    done = await _post(world, "/api/v1/tfhe/circuits?wait=60", _circuit(key_id, inputs, 4))
    assert number_of(_bits(done, dora)) == 17
    assert (done["operation"], done["result"]["count"]) == ("circuit", 5)
    # Five bits of a handle fit an adder of five.
    sums = {name: {"handle": done["result"]["handle"]} for name in ("a", "b")}
    twice = await _post(world, "/api/v1/tfhe/circuits?wait=60", _circuit(key_id, sums, 5))
    assert number_of(_bits(twice, dora)) == 34
    short = await _post(world, "/api/v1/tfhe/circuits", _circuit(key_id, sums, 6), 400)
    assert "there is no [5]" in short["error"]["message"]


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"gates": [{"id": "x", "gate": "AND", "inputs": ["a", "x"]}]}, "gates[0].inputs"),
        ({"gates": [{"id": "x", "gate": "AND", "inputs": ["a", "q"]}]}, "gates[0].inputs[1]"),
        ({"gates": [{"id": "x", "gate": "AND", "inputs": ["a"]}]}, "gates[0].inputs"),
        ({"gates": [{"id": "x", "gate": "NOR", "inputs": ["a", "a"]}]}, "gates[0].gate"),
        ({"outputs": ["q"]}, "outputs[0]"),
    ],
)
async def test_a_fault_of_a_circuit_is_told_with_its_place(
    world: World, change: dict[str, Any], place: str
) -> None:
    body = {
        "key_id": "ek_any",
        "inputs": {"a": {"handle": "ct_1"}},
        "gates": [{"id": "x", "gate": "NOT", "inputs": ["a"]}],
        "outputs": ["x"],
        **change,
    }
    error = (await _post(world, "/api/v1/tfhe/circuits", body, 400))["error"]
    assert error["code"] == "circuit_invalid" and place in json.dumps(error)


async def test_what_cannot_be_computed_is_refused_before_it_is_a_job(
    world: World, alice: Client, dora: GateClient
) -> None:
    tfhe_key, ckks_key = await _tfhe_key(world, dora), await _key(world, alice.relin)
    bit = {"ciphertext": b64(dora.encrypt([1]))}
    number = {"ciphertext": b64(alice.encrypt(np.ones(4)))}
    two = {"ciphertext": b64(dora.encrypt([1, 0]))}
    gate, add = "/api/v1/tfhe/gates/AND", "/api/v1/compute/add"
    cases: list[tuple[str, str, list[Any], int, str]] = [
        ("/api/v1/tfhe/gates/NOR", tfhe_key, [bit, bit], 404, "not_found"),
        (gate, "ek_none", [bit, bit], 404, "not_found"),
        (gate, tfhe_key, [bit], 400, "validation_error"),
        (gate, tfhe_key, [bit, two], 400, "validation_error"),
        (gate, tfhe_key, [bit, number], 400, "ciphertext_invalid"),
        (gate, tfhe_key, [bit, {"ciphertext": b64(b"")}], 400, "ciphertext_invalid"),
        (gate, tfhe_key, [bit, {"handle": "x"}], 404, "not_found"),
        (gate, tfhe_key, [bit, {"handle": "ct_none"}], 404, "not_found"),
        (gate, tfhe_key, [bit, {}], 422, "validation_error"),
        (gate, tfhe_key, [bit, {**bit, "handle": "ct_1"}], 422, "validation_error"),
        (gate, ckks_key, [number, number], 400, "unsupported_operation"),
        (add, tfhe_key, [bit, bit], 400, "unsupported_operation"),
        (add, tfhe_key, [bit, {"value": 1.0}], 400, "unsupported_operation"),
    ]
    for path, key_id, operands, status, code in cases:
        body = {"key_id": key_id, "operands": operands}
        refused = await _post(world, path, body, status)
        assert refused["error"]["code"] == code, (path, operands)
    large = {"ciphertext": b64(bytes(CIPHERTEXT_BYTES_MAX + 1))}
    await _post(world, gate, {"key_id": tfhe_key, "operands": [bit, large]}, 413)
    assert [name for name in await world.stored() if "/jobs/" in name] == []
    assert world.jobs.rows == {}


async def test_a_server_key_is_a_key_of_its_own_kind(world: World, dora: GateClient) -> None:
    first = await _upload(world, dora.server_key, "?params_id=tfhe-132")
    assert first.status_code == 201
    key = first.json()
    assert (key["params_id"], key["has_relin"], key["size_bytes"]) == (
        "tfhe-132",
        False,
        13_220_052,
    )
    assert [part["kind"] for part in key["parts"]] == ["server"]
    assert (await _upload(world, dora.server_key, "?params_id=tfhe-132")).status_code == 200
    stored = await world.stored()
    for data, query, code in (
        (dora.secret, "?params_id=tfhe-132", "secret_key_refused"),
        (dora.secret, "", "secret_key_refused"),
        (dora.server_key[:-1], "?params_id=tfhe-132", "truncated"),
        (dora.server_key, "", "wrong_part"),
    ):
        refused = await _upload(world, data, query)
        assert refused.status_code == 422
        assert refused.json()["error"]["code"] == code
    assert await world.stored() == stored


async def test_an_engine_that_is_not_built_is_a_503_that_names_it(
    world: World, dora: GateClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    key_id = await _tfhe_key(world, dora)
    monkeypatch.setattr("fhe_workers.engines._MODULES", {"tfhe-rs": "fhe_workers.not_built"})
    body = {"key_id": key_id, "operands": [{"ciphertext": b64(dora.encrypt([1]))}]}
    error = (await _post(world, "/api/v1/tfhe/gates/NOT?wait=60", body, 503))["error"]
    assert error["code"] == "engine_unavailable"
    assert "tfhe-132 needs tfhe-rs" in error["message"] and "cargo" in error["message"]
    row = {"reason": "engine_unavailable", "message": "", "job_id": "job_1"}
    assert "retry-after" not in problem_of_failure(row).headers
