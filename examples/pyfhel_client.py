"""Encrypted payroll with Pyfhel: the server adds and multiplies salaries that it cannot read.

python examples/pyfhel_client.py data/credentials.json
"""

import base64
import json
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from Pyfhel import PyCtxt, Pyfhel

SALARIES, RAISES, FACTORS = [0.52, 0.61, 0.48], [0.03, 0.02, 0.05], [0.5, 0.25, 0.125]


def main(credentials: Path) -> None:
    known = json.loads(credentials.read_text())
    bearer = {"Authorization": f"Bearer {known['api_key']}"}
    api = httpx.Client(base_url=known["url"], headers=bearer, timeout=90)

    # 1. Keys, by the numbers of the parameter set ckks-n13. The secret one stays in this process.
    engine = Pyfhel()
    engine.contextGen("ckks", n=8192, scale=2**40, qi_sizes=[60, 40, 40, 60], sec=128)
    engine.keyGen()
    engine.relinKeyGen()

    # 2. The evaluation key lets the server compute, and read nothing.
    octets = {"Content-Type": "application/octet-stream"}
    content = engine.to_bytes_relin_key("none")
    key = answer(api.post("/api/v1/keys", content=content, headers=octets))

    # 3. Encrypt here, compute there. A result goes on by its handle and need not travel.
    def encrypted(values: list[float]) -> dict[str, str]:
        data = engine.encryptFrac(np.array(values)).to_bytes("none")
        return {"ciphertext": base64.b64encode(data).decode()}

    def compute(operation: str, *operands: dict[str, str]) -> Any:
        body = {"key_id": key["key_id"], "operands": operands}
        return answer(api.post(f"/api/v1/compute/{operation}?wait=60", json=body))["result"]

    total = compute("add", encrypted(SALARIES), encrypted(RAISES))
    product = compute("multiply", {"handle": total["handle"]}, encrypted(FACTORS))

    # 4. Decrypt here, and check.
    data = base64.b64decode(product["ciphertext"])
    found = engine.decryptFrac(PyCtxt(pyfhel=engine, bytestring=data))[:3]
    wanted = (np.array(SALARIES) + np.array(RAISES)) * np.array(FACTORS)
    assert np.allclose(found, wanted, atol=1e-5), (found, wanted)
    print("decrypted:", ", ".join(f"{value:.5f}" for value in found))

    # 5. Deleting the key erases it; what was computed stays ours.
    api.delete(f"/api/v1/keys/{key['key_id']}").raise_for_status()


def answer(response: httpx.Response) -> Any:
    """The decoded answer, or an end with what the server says."""
    if not response.is_success:
        sys.exit(f"{response.status_code}: {response.text}")
    return response.json()


if __name__ == "__main__":
    main(Path(*sys.argv[1:2] or ["data/credentials.json"]))
