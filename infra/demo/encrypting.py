"""Computing on numbers that the server cannot read. The secret key stays in this process."""

import asyncio
import base64
from typing import Any

from infra.demo.scene import Scene
from infra.demo.stage import DemoFailed, expect
from infra.keyholder import RELIN, SECRET, Keyholder
from schemas.fhe.parameters import CKKS_N13

SALARIES = [0.52, 0.61, 0.48]
RAISES = [0.03, 0.02, 0.05]
FACTORS = [0.5, 0.25, 0.125]
TOLERANCE = 1e-4


async def compute(scene: Scene) -> list[str]:
    """An evaluation key, an addition and a multiplication, decrypted and compared."""
    holder = await asyncio.to_thread(Keyholder.generated, CKKS_N13)
    octets = {"Content-Type": "application/octet-stream"}

    async def upload(key: bytes, status: int) -> dict[str, Any]:
        answer = await scene.call(
            "key", "POST", "/api/v1/keys", status=status, headers=octets, content=key
        )
        return dict(answer.json())

    key = await upload(holder.parts[RELIN], 201)
    refused = await upload(holder.parts[SECRET], 422)
    expect(refused["error"]["code"], "secret_key_refused", "the upload of a secret key")
    salaries, raises, factors = map(holder.encrypt, (SALARIES, RAISES, FACTORS))

    async def job(operation: str, *operands: dict[str, Any]) -> dict[str, Any]:
        body = {"key_id": key["key_id"], "operands": list(operands)}
        answer = await scene.call("key", "POST", f"/api/v1/compute/{operation}?wait=60", body)
        return dict(answer.json())

    total = await job("add", _operand(salaries), _operand(raises))
    # The sum goes on as a handle: it need not travel again.
    handle = {"handle": total["result"]["handle"]}
    product = await job("multiply", handle, _operand(factors))
    sums = [a + b for a, b in zip(SALARIES, RAISES, strict=True)]
    products = [a * b for a, b in zip(sums, FACTORS, strict=True)]
    _close(holder.decrypt(_result(total), 3), sums, "the decrypted sum")
    _close(holder.decrypt(_result(product), 3), products, "the decrypted product")
    return [
        f"evaluation key {key['key_id']} ({key['size_bytes'] / 1e6:.1f} MB); "
        f"the secret key was refused, as it should be",
        f"encrypted add of {len(salaries) / 1e3:.0f} kB ciphertexts: {total['cpu_ms']:.1f} ms, "
        f"decrypts to {_shown(sums)}",
        f"encrypted multiply: {product['cpu_ms']:.1f} ms, decrypts to {_shown(products)}",
    ]


def _operand(ciphertext: bytes) -> dict[str, str]:
    return {"ciphertext": base64.b64encode(ciphertext).decode()}


def _result(job: dict[str, Any]) -> bytes:
    return base64.b64decode(job["result"]["ciphertext"])


def _close(found: list[float], wanted: list[float], what: str) -> None:
    if any(abs(a - b) > TOLERANCE for a, b in zip(found, wanted, strict=True)):
        raise DemoFailed(f"{what} should be {_shown(wanted)}, but is {_shown(found)}")


def _shown(values: list[float]) -> str:
    return ", ".join(f"{value:.4f}" for value in values)
