"""Keys that the server makes, for trials: `POST /api/v1/keys/generate`.

The secret key is in that one answer. It is made in a process that ends with it (`infra/sandbox.py`)
and is in no event, object, log or file.
"""

import base64
from collections.abc import AsyncIterator
from typing import Annotated

from msgspec import Meta, Struct

from api.fhe import uploads
from api.fhe.declaring import fhe_route
from api.fhe.key_checks import generated_parts, refused
from api.fhe.keys import EvaluationKeyItem, item_of_key, register
from api.roles import COMPUTERS
from api.routing import Answer, Call
from infra.keyholder import PUBLIC, SECRET
from schemas.fhe.parameters import KEY_BYTES_MAX, SEAL_SETS
from schemas.types import Text


class GenerateBody(Struct, frozen=True):
    """Which keys. `rotations`: the slot steps to the left that the evaluation key allows."""

    params_id: Annotated[Text, Meta(max_length=64)]
    name: Annotated[Text, Meta(max_length=200)] = ""
    rotations: Annotated[list[Annotated[int, Meta(ge=-8191, le=8191)]], Meta(max_length=16)] = []


class GeneratedKeys(Struct, frozen=True):
    """A registered evaluation key, and the key pair that belongs to it.

    secret_key, public_key: base64 of what SEAL 4.1 serialises, without compression. They are given
    once: a repeat of the request shows the evaluation key, and null in their place.
    """

    key: EvaluationKeyItem
    secret_key: str | None
    public_key: str | None


async def generate(call: Call[GenerateBody, None]) -> Answer:
    """Make keys and register the evaluation key; the others are in this answer only."""
    body = call.body
    steps = _checked(body)
    parts = await generated_parts(call.services, body.params_id, steps)
    secret, public = (base64.b64encode(parts.pop(kind)).decode() for kind in (SECRET, PUBLIC))
    intake = uploads.KeyIntake(call.services.objects, call.tenant)
    try:
        for kind, data in parts.items():
            await intake.take_part(kind, _chunks(data))
        received = intake.finished(body.params_id, body.name)
    except BaseException:
        await intake.abandon()
        raise
    registered = await register(call, received, generated=True)
    item = await item_of_key(call, registered.key.key_id)
    call.headers["cache-control"] = "no-store"
    if registered.replayed:
        # The evaluation key of the first answer; what was made just now belongs to another.
        return Answer(GeneratedKeys(item, None, None), status=200)
    return Answer(GeneratedKeys(item, secret, public))


def _checked(body: GenerateBody) -> list[int]:
    """The steps to make keys for. Raises Problem (422)."""
    params = SEAL_SETS.get(body.params_id)
    if params is None:
        known = ", ".join(SEAL_SETS)
        raise refused("unsupported_parameters", f"keys are made for {known}; make others yourself")
    steps = sorted(set(body.rotations))
    if any(step == 0 or abs(step) >= params.slots for step in steps):
        raise refused("rotations_invalid", f"a step is less than {params.slots} and not 0")
    size = params.relin_key_bytes + (params.rotate_key_bytes(len(steps)) if steps else 0)
    if size > KEY_BYTES_MAX:
        raise refused("too_large", f"the key would have {size} bytes, more than {KEY_BYTES_MAX}")
    return steps


async def _chunks(data: memoryview) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 1 << 20):
        yield bytes(data[at : at + (1 << 20)])


ROUTES = [
    fhe_route(
        "POST",
        "/api/v1/keys/generate",
        generate,
        roles=COMPUTERS,
        tags=("keys",),
        summary="Generate keys for a trial; the secret key is shown once",
        description=(
            "Whoever makes a secret key could read what it protects: in earnest, make your own and "
            "upload the evaluation key. The secret key is in this answer and nowhere else; a "
            "repeat with the same Idempotency-Key answers 200 with null in its place."
        ),
        body=GenerateBody,
        response=GeneratedKeys,
        status=201,
        refusals=(200, 402, 422),
        max_body=16 * 1024,
    ),
]
