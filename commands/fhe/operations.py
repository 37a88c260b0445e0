"""What can be computed, one row for each operation and scheme: its operands and what it takes.

The one place that knows it: the decider refuses by it before any worker is touched, it says what
is counted, and a worker reads from it whether it must load the key.
"""

from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

from commands.refusals import InvalidCommand
from schemas.fhe.job import Operand, OperandKind, Operation
from schemas.fhe.key_material import RELIN
from schemas.fhe.parameters import CKKS, ParameterSet
from schemas.types import Json

CIPHER: OperandKind = "cipher"
PLAIN: OperandKind = "plain"


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
