"""What can be computed, one row for each operation and scheme: its operands and what it takes.

The one place that knows it: the decider refuses by it before any worker is touched, it says what
is counted, and a worker reads from it whether it must load the key.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta, Struct

from commands.fhe import precision
from commands.fhe.precision import EXACT, Estimate
from commands.refusals import InvalidCommand, Kind, NotFound, Refusal
from schemas.fhe.circuit import ARITY, level_of, output_level, read_circuit
from schemas.fhe.job import Operand, OperandKind, Operation
from schemas.fhe.key_material import RELIN, ROTATE, SERVER
from schemas.fhe.linear import (
    MATMUL_LEVELS,
    MATRIX_SIZE_MAX,
    VECTOR_SIZE_MAX,
    matmul_rotations,
    matvec_rotations,
    padded_size,
)
from schemas.fhe.models import MODELS
from schemas.fhe.parameters import (
    BGV,
    BOOTSTRAP_MAGNITUDE_MAX,
    CKKS,
    CKKS_BOOT,
    TFHE,
    GateParameters,
    LattigoParameters,
    ParameterSet,
)
from schemas.types import Json

CIPHER: OperandKind = "cipher"
PLAIN: OperandKind = "plain"
CIRCUIT: Operation = "circuit"

A = TypeVar("A", bound=Struct)


class UnsupportedOperation(InvalidCommand):
    """The parameter set of the key has no such operation."""

    code = "unsupported_operation"


class ModelNotFound(NotFound):
    """No model of this id runs here."""


class ValueOverflow(Refusal):
    """The result might be larger than its level can hold, and would be garbage."""

    code = "value_overflow"
    kind: Kind = "unprocessable"


class Need(Struct, frozen=True):
    """What one computation takes.

    level: that of its result. parts: the kinds of key parts that it cannot do without.
    quantity: how many operations it is counted as. rotations: steps that the rotation part must
    have. estimate: of its result.
    """

    level: int
    parts: tuple[str, ...] = ()
    quantity: int = 1
    rotations: tuple[int, ...] = ()
    estimate: Estimate = EXACT


class Form(Struct, frozen=True):
    """One way to give an operation its operands. levels: how many it uses up."""

    levels: int = 0
    parts: tuple[str, ...] = ()
    estimate: Callable[[Sequence[Operand], ParameterSet], Estimate] | None = None


Row = Callable[[Sequence[Operand], Json, ParameterSet], Need]
Kinds = tuple[OperandKind, ...]


def one_of(forms: Mapping[Kinds, Form], wanted: str) -> Row:
    """A row whose operands take one of these forms; `wanted` is said of any other."""

    def need(operands: Sequence[Operand], arguments: Json, params: ParameterSet) -> Need:
        form = forms.get(tuple(operand.kind for operand in operands))
        if form is None:
            raise InvalidCommand(wanted)
        return Need(
            level=_lowest(operands) + form.levels,
            parts=form.parts,
            estimate=form.estimate(operands, params) if form.estimate else EXACT,
        )

    return need


class MatmulArguments(Struct, frozen=True):
    """The arguments of `matmul`: the matrices are size x size, and so is a vector long."""

    size: Annotated[int, Meta(ge=1, le=VECTOR_SIZE_MAX)]


class ModelArguments(Struct, frozen=True):
    """The arguments of `model`: which one."""

    model_id: str


def arguments_of(arguments: Json, type: type[A]) -> A:
    """An operation's own arguments. Raises InvalidCommand."""
    try:
        return msgspec.json.decode(arguments, type=type)
    except msgspec.ValidationError as error:
        raise InvalidCommand(str(error)) from None


def _matmul(operands: Sequence[Operand], arguments: Json, params: ParameterSet) -> Need:
    size = arguments_of(arguments, MatmulArguments).size
    if size != padded_size(size):
        raise InvalidCommand("the size is no power of two", size=size)
    match [operand.kind for operand in operands]:
        case ["cipher", "plain"]:
            rotations = matvec_rotations(size)
            return Need(
                level=operands[0].level + 1,
                parts=(ROTATE,) if rotations else (),
                rotations=rotations,
                estimate=precision.of_matvec(operands, size, params),
            )
        case ["cipher", "cipher"] if size <= MATRIX_SIZE_MAX:
            rotations = matmul_rotations(size)
            return Need(
                level=_lowest(operands) + MATMUL_LEVELS,
                parts=(RELIN, ROTATE) if rotations else (RELIN,),
                rotations=rotations,
                estimate=precision.of_matmul(operands, size, params),
            )
        case ["cipher", "cipher"]:
            raise InvalidCommand("encrypted matrices are too large", size_max=MATRIX_SIZE_MAX)
    raise InvalidCommand("give two encrypted matrices, or an encrypted vector and a matrix")


def _model(operands: Sequence[Operand], arguments: Json, params: ParameterSet) -> Need:
    model = MODELS.get(arguments_of(arguments, ModelArguments).model_id)
    if model is None:
        raise ModelNotFound("no such model")
    if [operand.kind for operand in operands] != [CIPHER]:
        raise InvalidCommand("give one encrypted vector")
    return Need(
        level=operands[0].level + model.levels,
        parts=(ROTATE,) if model.sigmoid is None else (RELIN, ROTATE),
        rotations=matvec_rotations(model.size),
        estimate=precision.of_model(operands, model, params),
    )


def _bootstrap(operands: Sequence[Operand], arguments: Json, params: ParameterSet) -> Need:
    if [operand.kind for operand in operands] != [CIPHER]:
        raise InvalidCommand("give one ciphertext")
    magnitude = operands[0].magnitude
    if magnitude > BOOTSTRAP_MAGNITUDE_MAX:
        raise ValueOverflow(
            f"values up to {magnitude:.3g} cannot be bootstrapped: multiply them by "
            f"{BOOTSTRAP_MAGNITUDE_MAX / magnitude:.3g} first",
            magnitude=magnitude,
            magnitude_max=BOOTSTRAP_MAGNITUDE_MAX,
        )
    return Need(level=0, estimate=precision.of_bootstrap(operands, params))


def _with_whole_key(row: Row) -> Row:
    """The row of a set whose keys are loaded whole or not at all."""

    def need(operands: Sequence[Operand], arguments: Json, params: ParameterSet) -> Need:
        assert isinstance(params, LattigoParameters)
        found = row(operands, arguments, params)
        return msgspec.structs.replace(found, parts=tuple(params.part_bytes))

    return need


def _gate(name: str) -> Row:
    """A gate on ciphertexts, or on lists of them, place by place."""
    arity = ARITY[name]

    def need(operands: Sequence[Operand], arguments: Json, params: ParameterSet) -> Need:
        _require_ciphertexts(operands)
        if len(operands) != arity:
            raise InvalidCommand(f"{name} takes {arity} operands, not {len(operands)}")
        counts = {operand.count for operand in operands}
        if len(counts) > 1:
            raise InvalidCommand("the operands hold different numbers of ciphertexts")
        [count] = counts
        _require_room(count, params)
        level = _level(params, level_of(name, [operand.level for operand in operands]))
        return Need(level, _gate_parts(name, params), count)

    return need


def _lowest(operands: Sequence[Operand]) -> int:
    return max(operand.level for operand in operands)


def _circuit(operands: Sequence[Operand], arguments: Json, params: ParameterSet) -> Need:
    """Gates on ciphertexts, as the arguments wire them."""
    _require_ciphertexts(operands)
    try:
        circuit = read_circuit(arguments)
    except ValueError as error:
        raise InvalidCommand(f"not a circuit: {error}") from None
    for source in circuit.sources:
        if source.operand >= len(operands):
            raise InvalidCommand(f"there is no input {source.operand}")
        if source.place >= operands[source.operand].count:
            count = operands[source.operand].count
            raise InvalidCommand(
                f"input {source.operand} holds {count} ciphertexts: there is no [{source.place}]",
                input=source.operand,
                count=count,
            )
    _require_room(len(circuit.outputs), params)
    level = _level(params, output_level(circuit, [operand.level for operand in operands]))
    parts = {part for step in circuit.steps for part in _gate_parts(step.gate, params)}
    return Need(level, tuple(sorted(parts)), len(circuit.steps))


def _require_ciphertexts(operands: Sequence[Operand]) -> None:
    if not operands or any(operand.kind != CIPHER for operand in operands):
        raise InvalidCommand("gates take ciphertexts only")


def _require_room(count: int, params: ParameterSet) -> None:
    assert isinstance(params, GateParameters)
    if count > params.ciphertexts_max:
        raise InvalidCommand(
            f"a result of {params.params_id} holds {params.ciphertexts_max} ciphertexts at most",
            count=count,
        )


def _gate_parts(gate: str, params: ParameterSet) -> tuple[str, ...]:
    if params.scheme == TFHE:
        return (SERVER,)
    return () if gate == "not" else (RELIN,)


def _level(params: ParameterSet, level: int) -> int:
    """Each gate of TFHE refreshes what it computes."""
    return 0 if params.depth is None else level


_TWO = "give two ciphertexts, or a ciphertext and values"
_SUM, _PRODUCT = precision.of_sum, precision.of_product
_ADD = one_of({(CIPHER, CIPHER): Form(estimate=_SUM), (CIPHER, PLAIN): Form(estimate=_SUM)}, _TWO)
_MULTIPLY = one_of(
    {
        (CIPHER, CIPHER): Form(levels=1, parts=(RELIN,), estimate=_PRODUCT),
        (CIPHER, PLAIN): Form(levels=1, estimate=_PRODUCT),
    },
    _TWO,
)
OPERATIONS: Mapping[tuple[Operation, str], Row] = {
    ("add", CKKS): _ADD,
    ("multiply", CKKS): _MULTIPLY,
    ("matmul", CKKS): _matmul,
    ("model", CKKS): _model,
    ("add", CKKS_BOOT): _with_whole_key(_ADD),
    ("multiply", CKKS_BOOT): _with_whole_key(_MULTIPLY),
    ("bootstrap", CKKS_BOOT): _with_whole_key(_bootstrap),
    **{(gate, scheme): _gate(gate) for gate in ARITY for scheme in (BGV, TFHE)},
    (CIRCUIT, BGV): _circuit,
    (CIRCUIT, TFHE): _circuit,
}


def need_of(
    operation: Operation, operands: Sequence[Operand], arguments: Json, params: ParameterSet
) -> Need:
    """What `operation` over these operands takes under a key of the set `params`.

    Raises UnsupportedOperation, and InvalidCommand for operands or arguments that do not fit.
    """
    row = OPERATIONS.get((operation, params.scheme))
    if row is None:
        raise UnsupportedOperation(
            f"keys of {params.params_id} cannot {operation}",
            operation=operation,
            params_id=params.params_id,
        )
    return row(operands, arguments, params)
