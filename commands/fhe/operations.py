"""What can be computed, one row for each operation and scheme: its operands and what it takes.

The one place that knows it: the decider refuses by it before any worker is touched, it says what
is counted, and a worker reads from it whether it must load the key.
"""

from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

from commands.refusals import InvalidCommand
from schemas.fhe.circuit import ARITY, level_of, output_level, read_circuit
from schemas.fhe.job import Operand, OperandKind, Operation
from schemas.fhe.key_material import RELIN, SERVER
from schemas.fhe.parameters import BGV, CKKS, TFHE, GateParameters, ParameterSet
from schemas.types import Json

CIPHER: OperandKind = "cipher"
PLAIN: OperandKind = "plain"
CIRCUIT: Operation = "circuit"


class UnsupportedOperation(InvalidCommand):
    """The parameter set of the key has no such operation."""

    code = "unsupported_operation"


class Need(Struct, frozen=True):
    """What one computation takes.

    level: that of its result. parts: the kinds of key parts that it cannot do without.
    quantity: how many operations it is counted as.
    """

    level: int
    parts: tuple[str, ...] = ()
    quantity: int = 1


class Form(Struct, frozen=True):
    """One way to give an operation its operands. levels: how many it uses up."""

    levels: int = 0
    parts: tuple[str, ...] = ()


Row = Callable[[Sequence[Operand], Json, ParameterSet], Need]
Kinds = tuple[OperandKind, ...]


def one_of(forms: Mapping[Kinds, Form], wanted: str) -> Row:
    """A row whose operands take one of these forms; `wanted` is said of any other."""

    def need(operands: Sequence[Operand], arguments: Json, params: ParameterSet) -> Need:
        form = forms.get(tuple(operand.kind for operand in operands))
        if form is None:
            raise InvalidCommand(wanted)
        return Need(max(operand.level for operand in operands) + form.levels, form.parts)

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
OPERATIONS: Mapping[tuple[Operation, str], Row] = {
    ("add", CKKS): one_of({(CIPHER, CIPHER): Form(), (CIPHER, PLAIN): Form()}, _TWO),
    ("multiply", CKKS): one_of(
        {
            (CIPHER, CIPHER): Form(levels=1, parts=(RELIN,)),
            (CIPHER, PLAIN): Form(levels=1),
        },
        _TWO,
    ),
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
