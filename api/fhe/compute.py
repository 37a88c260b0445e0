"""Computing on ciphertexts: `/api/v1/compute/add`, `/multiply` and `/matmul`."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from msgspec import Meta, Struct

from api.fhe.jobs import JobItem
from api.fhe.operands import Intake, OperandBody, Value
from api.fhe.submission import ComputeQuery, Taken, json_of, submit
from api.problems import FHE, Problem
from api.roles import COMPUTERS
from api.routing import Answer, Call, Route, Who
from commands.fhe.job_state import Input
from commands.fhe.operations import MatmulArguments
from schemas.fhe.job import Operation
from schemas.fhe.linear import MATRIX_SIZE_MAX, VECTOR_SIZE_MAX
from schemas.fhe.parameters import CIPHERTEXT_BYTES_MAX
from schemas.types import Text

Matrix = Annotated[
    list[Annotated[list[Value], Meta(min_length=1, max_length=VECTOR_SIZE_MAX)]],
    Meta(min_length=1, max_length=VECTOR_SIZE_MAX),
]
_ENDING = (
    "200 with the result, or 202 with the job when it is not done within `wait` seconds or the "
    "request says `Prefer: respond-async`. The same work as before is answered at once with the "
    "same handle and `cached` true."
)
# Two ciphertexts of the largest size in base64, and the names around them.
BODY_BYTES_MAX = 2 * CIPHERTEXT_BYTES_MAX * 4 // 3 + 64 * 1024


class ComputeBody(Struct):
    """Two operands, the first of them encrypted, under one evaluation key."""

    key_id: Annotated[Text, Meta(max_length=64)]
    operands: Annotated[list[OperandBody], Meta(min_length=2, max_length=2)]


class BootstrapBody(Struct):
    """One ciphertext of a set that can be refreshed, with values between -1 and 1."""

    key_id: Annotated[Text, Meta(max_length=64)]
    operand: OperandBody


class MatmulBody(Struct):
    """An encrypted vector and a matrix in the clear, or two encrypted matrices of this size.

    A vector is repeated every d values over all slots of its ciphertext, where d is the larger side
    of the matrix to the next power of two, at most 256. An encrypted matrix is size x size, its
    rows one after another, and is repeated likewise; a size is a power of two up to 64. Results
    repeat as the operands do.
    """

    key_id: Annotated[Text, Meta(max_length=64)]
    operands: Annotated[list[OperandBody], Meta(min_length=1, max_length=2)]
    matrix: Matrix | None = None
    size: Annotated[int, Meta(ge=1, le=MATRIX_SIZE_MAX)] | None = None


ComputeCall = Call[ComputeBody, ComputeQuery]


def _computing(operation: Operation) -> Callable[[ComputeCall], Awaitable[Answer]]:
    async def compute(call: ComputeCall) -> Answer:
        async def take(intake: Intake) -> Taken:
            return Taken(await _taken(intake, call.body.operands, operation))

        return await submit(call, call.body.key_id, operation, take)

    return compute


async def _taken(intake: Intake, operands: list[OperandBody], operation: Operation) -> list[Input]:
    places = enumerate(operands)
    return [await intake.take(body, operation, f"operands[{at}]") for at, body in places]


async def matmul(call: Call[MatmulBody, ComputeQuery]) -> Answer:
    """Multiply an encrypted vector by a matrix, or two encrypted matrices."""
    body = call.body

    async def take(intake: Intake) -> Taken:
        inputs, size = await _taken(intake, body.operands, "matmul"), body.size
        if body.matrix is not None:
            matrix, size = intake.take_matrix(body.matrix, "matrix")
            inputs.append(matrix)
        return Taken(inputs, json_of(MatmulArguments(size or 0)))

    if (body.matrix is None) == (body.size is None):
        wanted = "Give the matrix, or the size of two encrypted matrices"
        raise Problem(422, "validation_error", wanted, field="matrix")
    return await submit(call, body.key_id, "matmul", take)


async def bootstrap(call: Call[BootstrapBody, ComputeQuery]) -> Answer:
    """Refresh a ciphertext: all its multiplications are left again."""
    body = call.body

    async def take(intake: Intake) -> Taken:
        return Taken([await intake.take(body.operand, "bootstrap", "operand")])

    return await submit(call, body.key_id, "bootstrap", take)


def compute_route(
    path: str,
    handler: Callable[[Any], Awaitable[Answer]],
    summary: str,
    description: str,
    body: type[Struct] = ComputeBody,
) -> Route:
    """A route that submits a job and answers as all computations do."""
    return Route(
        "POST",
        f"/api/v1/compute/{path}",
        handler,
        dialect=FHE,
        who=Who.SESSION_OR_KEY,
        roles=COMPUTERS,
        by_plan=True,
        tags=("compute",),
        summary=summary,
        description=f"{description} {_ENDING}",
        query=ComputeQuery,
        body=body,
        response=JobItem,
        refusals=(202, 400, 402, 404, 409, 503),
        max_body=BODY_BYTES_MAX,
    )


ROUTES = [
    compute_route(
        "add",
        _computing("add"),
        "Add two ciphertexts, or values to a ciphertext",
        "At the lower of the two levels; uses no level.",
    ),
    compute_route(
        "multiply",
        _computing("multiply"),
        "Multiply two ciphertexts, or a ciphertext with values",
        "Relinearised and rescaled: the result is one level below the lower of the two.",
    ),
    compute_route(
        "matmul",
        matmul,
        "Multiply a matrix by an encrypted vector, or two encrypted matrices",
        "A matrix in the clear takes one level and the rotation by 1; a second rotation near the "
        "square root of the size makes it fast. Two encrypted matrices take three levels, the "
        "relinearisation part, and the rotations by 1, the size and minus the size.",
        MatmulBody,
    ),
    compute_route(
        "bootstrap",
        bootstrap,
        "Refresh a ciphertext, so that all multiplications are left again",
        "For keys of ckks-boot-n15. Takes some seconds, and some more when the key was not used "
        "for a while: `Prefer: respond-async` suits it. 503 `engine_unavailable` where the engine "
        "is not built.",
        BootstrapBody,
    ),
]
