"""Computing on ciphertexts: `/api/v1/compute/add` and `/multiply`."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from msgspec import Meta, Struct

from api.fhe.jobs import JobItem
from api.fhe.operands import Intake, OperandBody
from api.fhe.submission import ComputeQuery, Taken, submit
from api.problems import FHE
from api.roles import COMPUTERS
from api.routing import Answer, Call, Route, Who
from schemas.fhe.job import Operation
from schemas.fhe.parameters import CIPHERTEXT_BYTES_MAX
from schemas.types import Text

# Two ciphertexts of the largest size in base64, and the names around them.
BODY_BYTES_MAX = 2 * CIPHERTEXT_BYTES_MAX * 4 // 3 + 64 * 1024


class ComputeBody(Struct):
    """Two operands, the first of them encrypted, under one evaluation key."""

    key_id: Annotated[Text, Meta(max_length=64)]
    operands: Annotated[list[OperandBody], Meta(min_length=2, max_length=2)]


ComputeCall = Call[ComputeBody, ComputeQuery]


def _computing(operation: Operation) -> Callable[[ComputeCall], Awaitable[Answer]]:
    async def compute(call: ComputeCall) -> Answer:
        async def take(intake: Intake) -> Taken:
            operands = enumerate(call.body.operands)
            return Taken(
                [await intake.take(body, operation, f"operands[{at}]") for at, body in operands]
            )

        return await submit(call, call.body.key_id, operation, take)

    return compute


def _route(operation: Operation, summary: str, description: str) -> Route:
    return Route(
        "POST",
        f"/api/v1/compute/{operation}",
        _computing(operation),
        dialect=FHE,
        who=Who.SESSION_OR_KEY,
        roles=COMPUTERS,
        tags=("compute",),
        summary=summary,
        description=description,
        query=ComputeQuery,
        body=ComputeBody,
        response=JobItem,
        refusals=(202, 400, 404, 409),
        max_body=BODY_BYTES_MAX,
    )


ROUTES = [
    _route(
        "add",
        "Add two ciphertexts, or values to a ciphertext",
        "At the lower of the two levels; uses no level. 200 with the result, or 202 with the job "
        "when it is not done within `wait` seconds.",
    ),
    _route(
        "multiply",
        "Multiply two ciphertexts, or a ciphertext with values",
        "Relinearised and rescaled: the result is one level below the lower of the two. 200 with "
        "the result, or 202 with the job when it is not done within `wait` seconds.",
    ),
]
