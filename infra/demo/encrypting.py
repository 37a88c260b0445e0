"""Computing on numbers that the server cannot read. The secret key stays in this process."""

import asyncio
import base64
from typing import Any

from infra.demo.scene import Scene
from infra.demo.stage import DemoFailed, expect
from schemas.fhe.parameters import CKKS_N13

SALARIES = [0.52, 0.61, 0.48]
RAISES = [0.03, 0.02, 0.05]
FACTORS = [0.5, 0.25, 0.125]
TOLERANCE = 1e-4


class Keyholder:
    """A client of encrypted computation: it alone can read what it sends and what it gets."""

    def __init__(self) -> None:
        import numpy as np
        from Pyfhel import PyCtxt, Pyfhel

        self._array, self._ciphertext = np.array, PyCtxt
        self._engine: Any = Pyfhel()
        self._engine.contextGen(
            "ckks",
            n=CKKS_N13.ring_degree,
            scale=CKKS_N13.scale,
            qi_sizes=list(CKKS_N13.prime_bits),
            sec=CKKS_N13.security_bits,
        )
        self._engine.keyGen()
        self._engine.relinKeyGen()

    @property
    def evaluation_key(self) -> bytes:
        """What the server needs for computing; it decrypts nothing."""
        return bytes(self._engine.to_bytes_relin_key("none"))

    @property
    def secret_key(self) -> bytes:
        """What nobody else may have."""
        return bytes(self._engine.to_bytes_secret_key("none"))

    def encrypt(self, values: list[float]) -> dict[str, str]:
        """An operand that only this client can read."""
        data = self._engine.encryptFrac(self._array(values, dtype="float64")).to_bytes()
        return {"ciphertext": base64.b64encode(data).decode()}

    def decrypt(self, job: dict[str, Any], count: int) -> list[float]:
        """The first values of a job's result."""
        data = base64.b64decode(job["result"]["ciphertext"])
        ciphertext = self._ciphertext(pyfhel=self._engine, bytestring=data)
        return [float(value) for value in self._engine.decryptFrac(ciphertext)[:count]]


async def compute(scene: Scene) -> list[str]:
    """An evaluation key, an addition and a multiplication, decrypted and compared."""
    holder = await asyncio.to_thread(Keyholder)
    octets = {"Content-Type": "application/octet-stream"}

    async def upload(key: bytes, status: int) -> dict[str, Any]:
        answer = await scene.call(
            "key", "POST", "/api/v1/keys", status=status, headers=octets, content=key
        )
        return dict(answer.json())

    key = await upload(holder.evaluation_key, 201)
    refused = await upload(holder.secret_key, 422)
    expect(refused["error"]["code"], "secret_key_refused", "the upload of a secret key")
    salaries, raises = holder.encrypt(SALARIES), holder.encrypt(RAISES)

    async def job(operation: str, *operands: dict[str, Any]) -> dict[str, Any]:
        body = {"key_id": key["key_id"], "operands": list(operands)}
        answer = await scene.call("key", "POST", f"/api/v1/compute/{operation}?wait=60", body)
        return dict(answer.json())

    total = await job("add", salaries, raises)
    # The sum goes on as a handle: it need not travel again.
    product = await job("multiply", {"handle": total["result"]["handle"]}, holder.encrypt(FACTORS))
    sums = [a + b for a, b in zip(SALARIES, RAISES, strict=True)]
    products = [a * b for a, b in zip(sums, FACTORS, strict=True)]
    _close(holder.decrypt(total, 3), sums, "the decrypted sum")
    _close(holder.decrypt(product, 3), products, "the decrypted product")
    size = len(base64.b64decode(salaries["ciphertext"]))
    return [
        f"evaluation key {key['key_id']} ({key['size_bytes'] / 1e6:.1f} MB); "
        f"the secret key was refused, as it should be",
        f"encrypted add of {size / 1e3:.0f} kB ciphertexts: {total['cpu_ms']:.1f} ms, "
        f"decrypts to {_shown(sums)}",
        f"encrypted multiply: {product['cpu_ms']:.1f} ms, decrypts to {_shown(products)}",
    ]


def _close(found: list[float], wanted: list[float], what: str) -> None:
    if any(abs(a - b) > TOLERANCE for a, b in zip(found, wanted, strict=True)):
        raise DemoFailed(f"{what} should be {_shown(wanted)}, but is {_shown(found)}")


def _shown(values: list[float]) -> str:
    return ", ".join(f"{value:.4f}" for value in values)
