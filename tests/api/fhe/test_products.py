"""Matrix products, models and bounds over HTTP, compared with the same in the clear."""

from typing import Any

import httpx
import numpy as np
import pytest

from schemas.fhe.linear import fast_step
from schemas.fhe.models import MODELS, Model
from schemas.fhe.parameters import CKKS_N14
from tests.api.fhe.requests import cipher, compute, decrypted, error, upload_key
from tests.api.fhe.world import World
from tests.fhe_workers.clients import Client

RNG = np.random.default_rng(20261127)


@pytest.fixture(scope="module")
def analyst() -> Client:
    """Keys for the models, and for encrypted 4 x 4 matrices."""
    return Client(CKKS_N14, rotations=(1, 8, 4, -4))


async def test_a_matrix_times_an_encrypted_vector(analyst: Client) -> None:
    async with World() as world:
        key_id = await upload_key(world, analyst)
        matrix, vector = RNG.uniform(-1, 1, (3, 12)), RNG.uniform(-1, 1, 12)
        padded = np.zeros(16)
        padded[:12] = vector
        body = {
            "key_id": key_id,
            "operands": [cipher(analyst, padded)],
            "matrix": matrix.tolist(),
        }
        response = await compute(world, "matmul", body)
        assert response.status_code == 200, response.text
        result = response.json()["result"]
        assert result["level"] == 1
        expected = np.zeros(16)
        expected[:3] = matrix @ vector
        distance = np.abs(decrypted(analyst, response.json()).reshape(-1, 16) - expected).max()
        assert distance < result["error_bound"] < 2.0 ** -result["precision_bits"]
        assert result["precision_bits"] >= 10
        assert result["magnitude"] == pytest.approx(np.abs(matrix).sum(axis=1).max())


async def test_two_encrypted_matrices(analyst: Client) -> None:
    async with World() as world:
        key_id = await upload_key(world, analyst)
        left, right = RNG.uniform(-1, 1, (4, 4)), RNG.uniform(-1, 1, (4, 4))
        operands = [cipher(analyst, left), cipher(analyst, right)]
        body = {"key_id": key_id, "operands": operands, "size": 4}
        job = (await compute(world, "matmul", body)).json()
        assert job["result"]["level"] == 3
        product = decrypted(analyst, job)[:16].reshape(4, 4)
        assert np.abs(product - left @ right).max() < job["result"]["error_bound"]
        # At the bottom of the chain nothing can be multiplied any more.
        handle = {"handle": job["result"]["handle"]}
        more = {"key_id": key_id, "operands": [handle, operands[0]], "size": 4}
        response = await compute(world, "matmul", more)
        assert error(response, 422) == "level_exhausted"
        assert response.json()["error"]["details"]["needed"] == 6


async def test_products_that_cannot_be_asked_for(analyst: Client, bob: Client) -> None:
    async with World() as world:
        key_id, poor = await upload_key(world, analyst), await upload_key(world, bob)
        x, y = cipher(analyst, [1.0]), cipher(bob, [1.0])
        ones = [[1.0] * 4] * 4
        cases: list[tuple[dict[str, Any], int, str]] = [
            ({"operands": [x]}, 422, "validation_error"),
            ({"operands": [x, x], "size": 4, "matrix": ones}, 422, "validation_error"),
            ({"operands": [x], "matrix": []}, 422, "validation_error"),
            ({"operands": [x], "matrix": [[1.0], [1.0, 2.0]]}, 422, "validation_error"),
            ({"operands": [x], "matrix": [[0.0] * 4]}, 400, "transparent_result"),
            ({"operands": [x], "matrix": [[1.0] * 257]}, 422, "validation_error"),
            ({"operands": [x, x], "size": 65}, 422, "validation_error"),
            ({"operands": [x, x], "size": 3}, 400, "validation_error"),
            ({"operands": [x, x], "matrix": ones}, 400, "validation_error"),
            ({"operands": [x], "size": 4}, 400, "validation_error"),
            ({"operands": [x, x], "size": 16}, 400, "key_missing_rotation"),
            ({"operands": [y], "matrix": ones, "key_id": poor}, 400, "key_missing_part"),
        ]
        for body, status, code in cases:
            response = await compute(world, "matmul", {"key_id": key_id, **body})
            assert error(response, status) == code, body


def _plain(model: Model, inputs: Any) -> Any:
    scores = np.array(model.weights) @ inputs + np.array(model.biases)
    if model.sigmoid is None:
        return scores
    constant, slope, cubic = model.sigmoid
    return constant + slope * scores + cubic * scores**3


def _listed(response: httpx.Response) -> dict[str, Any]:
    return {item["model_id"]: item for item in response.json()["data"]}


@pytest.mark.parametrize("model_id", sorted(MODELS))
async def test_a_model_answers_an_encrypted_question(analyst: Client, model_id: str) -> None:
    async with World() as world:
        # The list is public, and says all that a client needs.
        described = _listed(await world.client.get("/api/v1/models"))[model_id]
        assert "ckks-n14" in described["params_ids"]
        assert set(described["rotations"]) <= {1, 8, 4}
        key_id = await upload_key(world, analyst)
        inputs = RNG.uniform(-1, 1, len(described["inputs"]))
        padded = np.zeros(described["period"])
        padded[: len(inputs)] = inputs
        body = {"key_id": key_id, "inputs": cipher(analyst, padded)}
        response = await compute(world, f"models/{model_id}", body)
        assert response.status_code == 200, response.text
        job = response.json()
        assert (job["operation"], job["result"]["level"]) == ("model", described["levels"])
        expected = _plain(MODELS[model_id], inputs)
        distance = np.abs(decrypted(analyst, job)[: len(expected)] - expected).max()
        assert distance < job["result"]["error_bound"] < 0.01
        assert np.abs(expected).max() <= job["result"]["magnitude"]


async def test_models_that_do_not_run(analyst: Client, alice: Client) -> None:
    async with World() as world:
        key_id, shallow = await upload_key(world, analyst), await upload_key(world, alice)
        body = {"key_id": key_id, "inputs": cipher(analyst, [1.0])}
        assert error(await compute(world, "models/gpt-5", body), 404) == "not_found"
        assert error(await compute(world, "models/digits-linear-v1", {**body, "inputs": {}}), 422)
        # ckks-n13 is two multiplications deep, the logistic regression takes three.
        body = {"key_id": shallow, "inputs": cipher(alice, [1.0])}
        response = await compute(world, "models/tumour-logistic-v1", body)
        assert error(response, 422) == "level_exhausted"


async def test_what_would_overflow_is_refused_and_not_garbage(alice: Client) -> None:
    async with World() as world:
        key_id = await upload_key(world, alice)
        large = {"value": 2.0**17}
        body = {"key_id": key_id, "operands": [cipher(alice, [0.5]), large]}
        once = (await compute(world, "multiply", body)).json()
        assert once["result"]["magnitude"] == 2.0**17
        handle = {"handle": once["result"]["handle"]}
        response = await compute(world, "multiply", {**body, "operands": [handle, large]})
        assert error(response, 422) == "value_overflow"
        assert response.json()["error"]["details"]["deeper"] == ["ckks-n14", "ckks-n14d5"]
        # What the client states of its ciphertext counts.
        stated = {**cipher(alice, [3.0], level=2), "magnitude": 2.0**18}
        body = {"key_id": key_id, "operands": [stated, stated]}
        assert error(await compute(world, "add", body), 422) == "value_overflow"


def test_the_second_rotation_is_near_the_square_root() -> None:
    assert [fast_step(size) for size in (1, 4, 16, 32, 64, 256)] == [1, 2, 4, 8, 8, 16]
