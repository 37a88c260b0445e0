"""The same with TenSEAL: its objects are SEAL's, in another wrapping.

TenSEAL 0.3.18 writes files of SEAL 4.3, compressed with zstd; the server takes SEAL 4.1 without
compression, byte for byte the same inside. `for_weir` and `from_weir` change the wrapping.

    python examples/tenseal_client.py data/credentials.json
"""

import base64
import json
import struct
import sys
import tempfile
from pathlib import Path
from typing import Any

import cramjam
import httpx
import tenseal.sealapi as seal

# The primes of the parameter set ckks-n13 (schemas/fhe/parameters.py).
DEGREE, SCALE = 8192, 2.0**40
PRIMES = [1152921504606748673, 1099510890497, 1099511480321, 1152921504606830593]
X, Y = [0.5, -0.25, 1.0], [0.25, 0.5, -1.0]

# Of every object, and of those within it: magic, its own length, version, compression, reserved.
HEAD = struct.Struct("<HBBBBH")
OURS, THEIRS = (HEAD.pack(0xA15E, 16, 4, minor, 0, 0) for minor in (1, 3))


def main(credentials: Path) -> None:
    known = json.loads(credentials.read_text())
    bearer = {"Authorization": f"Bearer {known['api_key']}"}
    api = httpx.Client(base_url=known["url"], headers=bearer, timeout=90)

    # Keys: the secret one stays in this process.
    parameters = seal.EncryptionParameters(seal.SCHEME_TYPE.CKKS)
    parameters.set_poly_modulus_degree(DEGREE)
    parameters.set_coeff_modulus([seal.Modulus(prime) for prime in PRIMES])
    context = seal.SEALContext(parameters, True, seal.SEC_LEVEL_TYPE.TC128)
    generator = seal.KeyGenerator(context)
    public, relin = seal.PublicKey(), seal.RelinKeys()
    generator.create_public_key(public)
    generator.create_relin_keys(relin)
    encoder = seal.CKKSEncoder(context)
    encryptor = seal.Encryptor(context, public)
    decryptor = seal.Decryptor(context, generator.secret_key())

    octets = {"Content-Type": "application/octet-stream"}
    key = answer(api.post("/api/v1/keys", content=for_weir(saved(relin)), headers=octets))

    def encrypted(values: list[float]) -> dict[str, str]:
        plain, cipher = seal.Plaintext(), seal.Ciphertext(context)
        encoder.encode(values, SCALE, plain)
        encryptor.encrypt(plain, cipher)
        return {"ciphertext": base64.b64encode(for_weir(saved(cipher))).decode()}

    body = {"key_id": key["key_id"], "operands": [encrypted(X), encrypted(Y)]}
    job = answer(api.post("/api/v1/compute/multiply?wait=60", json=body))

    cipher, plain = seal.Ciphertext(context), seal.Plaintext()
    with tempfile.NamedTemporaryFile() as file:
        file.write(from_weir(base64.b64decode(job["result"]["ciphertext"])))
        file.flush()
        cipher.load(context, file.name)
    decryptor.decrypt(cipher, plain)
    found = encoder.decode_double(plain)[:3]
    for value, x, y in zip(found, X, Y, strict=True):
        assert abs(value - x * y) < 1e-5, (found, X, Y)
    print("decrypted:", ", ".join(f"{value:.5f}" for value in found))
    api.delete(f"/api/v1/keys/{key['key_id']}").raise_for_status()


def saved(thing: Any) -> bytes:
    """What TenSEAL writes of a key or a ciphertext."""
    with tempfile.NamedTemporaryFile() as file:
        thing.save(file.name)
        return Path(file.name).read_bytes()


def for_weir(data: bytes) -> bytes:
    """TenSEAL's bytes as the server takes them: decompressed, and marked as SEAL 4.1's."""
    inner = bytes(cramjam.zstd.decompress(data[16:])).replace(THEIRS, OURS)
    return OURS + struct.pack("<Q", 16 + len(inner)) + inner


def from_weir(data: bytes) -> bytes:
    """The server's bytes as TenSEAL takes them."""
    return data.replace(OURS, THEIRS)


def answer(response: httpx.Response) -> Any:
    """The decoded answer, or an end with what the server says."""
    if not response.is_success:
        sys.exit(f"{response.status_code}: {response.text}")
    return response.json()


if __name__ == "__main__":
    main(Path(*sys.argv[1:2] or ["data/credentials.json"]))
