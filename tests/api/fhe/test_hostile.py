"""Hostile operands over HTTP: a 4xx, nothing stored, memory flat; what bootstrapping is asked."""

import random
from typing import Any

import numpy as np
import psutil

from commands.fhe.evaluation_key import RegisterEvaluationKey
from infra.ids import new_id
from schemas.envelope import SYSTEM
from schemas.fhe.evaluation_key import StoredPart
from schemas.fhe.parameters import CKKS_BOOT_N15
from streams.bus import CommandRequest
from tests.api.fhe.requests import cipher, compute, error, upload_key
from tests.api.fhe.world import World, b64
from tests.api.harness import TENANT
from tests.fhe_workers.clients import Client
from tests.fhe_workers.mutations import MUTATIONS

HEAD = (
    b'\x01{"PlaintextMetaData":{"Scale":{"Value":"2.147483648000000000000000000000000000000e+09",'
    b'"Mod":"0.000000000000000000000000000000000000000e+00"},"IsBatched":"0x01",'
    b'"IsBitReversed":"0x00","LogDimensions":["0x00","0x04"]},'
    b'"CiphertextMetaData":{"IsNTT":"0x01","IsMontgomery":"0x00"}}'
)


async def test_hostile_operands_are_refused_and_leave_nothing(alice: Client) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    async with World() as world:
        key_id = await upload_key(world, alice)
        before = await world.stored()
        honest = alice.encrypt(np.ones(4))
        accepted, resident = set(), 0
        for number in range(200):
            data = MUTATIONS[number % len(MUTATIONS)](honest, rng)
            body = {"key_id": key_id, "operands": [{"ciphertext": b64(data)}, {"value": 1}]}
            response = await compute(world, "add?wait=0", body)
            assert response.status_code in (202, 400, 413), response.text
            if response.status_code == 202:
                accepted.add(response.json()["job_id"])
            if number == 20:
                resident = psutil.Process().memory_info().rss
        # A flipped bit of a coefficient may be a ciphertext like any other.
        assert len(accepted) <= 60
        # The store is in this process: what it holds of jobs that may run, and little more.
        grown = psutil.Process().memory_info().rss - resident
        assert grown < len(accepted) * len(honest) + 16 * 1024**2
        # What was stored belongs to jobs that may run.
        assert len(await world.stored()) - len(before) == 2 * len(accepted)


async def _bootstrapping_key(world: World) -> str:
    parts = [
        StoredPart(kind, f"fhe/{TENANT}/keys/up/{kind}", "ab" * 32, size)
        for kind, size in CKKS_BOOT_N15.part_bytes.items()
    ]
    command = RegisterEvaluationKey(CKKS_BOOT_N15.params_id, "cd" * 32, "large", parts)
    request = CommandRequest(
        tenant=TENANT, stream_id="ek_large", command=command, actor=SYSTEM, command_id=new_id("cmd")
    )
    await world.harness.bus.send(request)
    return "ek_large"


async def test_what_the_bootstrapping_set_is_asked(alice: Client) -> None:
    async with World() as world:
        small, key_id = await upload_key(world, alice), await _bootstrapping_key(world)
        fresh, worn = (
            {"ciphertext": b64(HEAD + bytes(size - len(HEAD)))}
            for size in (
                CKKS_BOOT_N15.ciphertext_lengths[0],
                CKKS_BOOT_N15.ciphertext_lengths[2],
            )
        )
        body: dict[str, Any] = {"key_id": key_id, "operand": worn}
        # This world's worker has no helper, as a machine without Go.
        response = await compute(world, "bootstrap", body)
        assert error(response, 503) == "engine_unavailable"
        assert "takes go and make install" in response.json()["error"]["message"]
        # To try again soon would not help.
        assert "retry-after" not in response.headers
        queued = await compute(world, "bootstrap", body, {"Prefer": "respond-async"})
        assert queued.status_code == 202
        for operand, status, code in (
            ({"ciphertext": b64(HEAD)}, 400, "ciphertext_invalid"),
            (
                {"ciphertext": b64(bytes(CKKS_BOOT_N15.ciphertext_lengths[0]))},
                400,
                "ciphertext_invalid",
            ),
            (cipher(alice, [1.0]), 400, "ciphertext_invalid"),
            ({**worn, "magnitude": 2.0}, 422, "value_overflow"),
        ):
            response = await compute(world, "bootstrap", {**body, "operand": operand})
            assert error(response, status) == code
        # Worn out, a ciphertext can be added and refreshed, but not multiplied.
        product = {"key_id": key_id, "operands": [fresh, worn]}
        response = await compute(world, "multiply", product)
        assert error(response, 422) == "level_exhausted"
        assert "bootstrap the operands first" in response.json()["error"]["message"]
        response = await compute(
            world, "add?wait=0", {**product, "operands": [worn, {"value": 0.5}]}
        )
        assert response.status_code == 202
        # The other sets' keys cannot.
        response = await compute(
            world, "bootstrap", {"key_id": small, "operand": cipher(alice, [1])}
        )
        assert error(response, 400) == "unsupported_operation"
