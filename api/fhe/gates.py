"""Boolean gates on encrypted bits: `/api/v1/tfhe/gates/{gate}` and `/api/v1/tfhe/circuits`.

The key's parameter set chooses the engine: `tfhe-132` for single bits at any depth, `bgv-n13` for
thousands of bits at once, some gates deep.
"""

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from api.fhe.declaring import fhe_route
from api.fhe.jobs import JobItem
from api.fhe.operands import BitsBody, Intake
from api.fhe.submission import ComputeQuery, Taken, submit
from api.problems import Problem, not_found
from api.roles import COMPUTERS
from api.routing import Answer, Call
from schemas.fhe.circuit import (
    ARITY,
    DEPTH_MAX,
    GATES_MAX,
    OUTPUTS_MAX,
    CircuitInvalid,
    Gate,
    compile_circuit,
)
from schemas.fhe.parameters import CIPHERTEXT_BYTES_MAX
from schemas.types import Text

INPUTS_MAX = 64
# All inputs of a circuit together, as long as they are ciphertexts in the body and not handles.
INPUTS_BYTES_MAX = 8 * CIPHERTEXT_BYTES_MAX
_GATE_BODY_BYTES_MAX = 3 * CIPHERTEXT_BYTES_MAX * 4 // 3 + 64 * 1024
_CIRCUIT_BODY_BYTES_MAX = INPUTS_BYTES_MAX * 4 // 3 + 1024 * 1024

_Id = Annotated[Text, Meta(max_length=64)]
_Name = Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]*$", max_length=64)]
# An input's name may be followed by a place in brackets.
_Wire = Annotated[Text, Meta(min_length=1, max_length=70)]


class GateBody(Struct):
    """The gate's operands in order; of MUX, the one that chooses comes first."""

    key_id: _Id
    operands: Annotated[list[BitsBody], Meta(min_length=1, max_length=3)]


class GateItem(Struct):
    """One gate of a circuit: its own name, what it does, and the wires that it takes."""

    id: _Name
    gate: Annotated[Text, Meta(max_length=8)]
    inputs: Annotated[list[_Wire], Meta(max_length=3)]


class CircuitBody(Struct):
    """Gates in any order. A wire is a gate's id, an input's name, or `name[3]`."""

    key_id: _Id
    inputs: Annotated[dict[_Name, BitsBody], Meta(min_length=1, max_length=INPUTS_MAX)]
    gates: Annotated[list[GateItem], Meta(min_length=1, max_length=GATES_MAX)]
    outputs: Annotated[list[_Wire], Meta(min_length=1, max_length=OUTPUTS_MAX)]


async def compute_gate(call: Call[GateBody, ComputeQuery]) -> Answer:
    """One gate on ciphertexts, or on lists of them place by place."""
    gate = call.path["gate"].lower()
    if gate not in ARITY:
        not_found(f"No such gate; there are {_GATES}")

    async def take(intake: Intake) -> Taken:
        operands = enumerate(call.body.operands)
        return Taken([await intake.take_bits(body, f"operands[{at}]") for at, body in operands])

    return await submit(call, call.body.key_id, gate, take)


async def compute_circuit(call: Call[CircuitBody, ComputeQuery]) -> Answer:
    """A circuit of gates as one job."""
    body = call.body
    gates = [Gate(item.id, item.gate.lower(), item.inputs) for item in body.gates]
    try:
        circuit = compile_circuit(list(body.inputs), gates, body.outputs)
    except CircuitInvalid as error:
        raise Problem(400, "circuit_invalid", error.message, field=error.place) from None

    async def take(intake: Intake) -> Taken:
        inputs = [
            await intake.take_bits(input, f"inputs.{name}") for name, input in body.inputs.items()
        ]
        return Taken(inputs, msgspec.json.encode(circuit).decode())

    return await submit(call, body.key_id, "circuit", take)


_GATES = ", ".join(gate.upper() for gate in ARITY)

ROUTES = [
    fhe_route(
        "POST",
        "/api/v1/tfhe/gates/{gate}",
        compute_gate,
        roles=COMPUTERS,
        tags=("tfhe",),
        summary="Compute a boolean gate",
        description=(
            f"One of {_GATES}. NOT takes one operand, MUX three (the first chooses the second, "
            "else the third), the others two. Operands may hold several ciphertexts; the gate "
            "works place by place. Under keys of `tfhe-132` a ciphertext is one bit and gates may "
            "follow each other without end; under keys of `bgv-n13` it is 8,192 bits, and a "
            "result may have four multiplications behind it. 200 with the result, or 202 with the "
            "job when it is not done within `wait` seconds."
        ),
        query=ComputeQuery,
        body=GateBody,
        response=JobItem,
        refusals=(202, 400, 402, 404, 409, 503),
        max_body=_GATE_BODY_BYTES_MAX,
    ),
    fhe_route(
        "POST",
        "/api/v1/tfhe/circuits",
        compute_circuit,
        roles=COMPUTERS,
        tags=("tfhe",),
        summary="Compute a circuit of gates",
        description=(
            f"At most {GATES_MAX} gates, {DEPTH_MAX} in a row, and {OUTPUTS_MAX} outputs, in any "
            "order. A circuit that is none is refused with `circuit_invalid` and the place of the "
            "fault. The result holds the outputs one after another. "
            "`GET /api/v1/jobs/{job_id}/events` tells how far it is."
        ),
        query=ComputeQuery,
        body=CircuitBody,
        response=JobItem,
        refusals=(202, 400, 402, 404, 409, 503),
        max_body=_CIRCUIT_BODY_BYTES_MAX,
    ),
]
