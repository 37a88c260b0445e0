"""What the tests of computations send and read."""

import base64
from typing import Any

import httpx
import numpy as np

from tests.api.fhe.world import World, b64
from tests.fhe_workers.clients import Client

OCTETS = {"Content-Type": "application/octet-stream"}


async def upload_key(world: World, client: Client) -> str:
    """The id of a key with all the parts that the client has."""
    files = {"relin": client.relin} | ({"rotate": client.rotate} if client.rotate else {})
    response = await world.client.post("/api/v1/keys", files=files, headers=world.headers)
    assert response.status_code in (200, 201), response.text
    return str(response.json()["key_id"])


async def compute(
    world: World, path: str, body: dict[str, Any], headers: dict[str, str] | None = None
) -> httpx.Response:
    """POST to a route of computations."""
    return await world.client.post(
        f"/api/v1/compute/{path}", json=body, headers={**world.headers, **(headers or {})}
    )


def cipher(client: Client, values: Any, level: int = 0) -> dict[str, Any]:
    """An operand of these values, repeated over all slots."""
    values = np.asarray(values, dtype=np.float64).ravel()
    return {"ciphertext": b64(client.encrypt(np.resize(values, client.params.slots), level))}


def decrypted(client: Client, job: dict[str, Any]) -> Any:
    """All slots of a job's result."""
    return client.decrypt(base64.b64decode(job["result"]["ciphertext"]))


def error(response: httpx.Response, status: int) -> str:
    """The code of an error of this status."""
    assert response.status_code == status, response.text
    return str(response.json()["error"]["code"])
