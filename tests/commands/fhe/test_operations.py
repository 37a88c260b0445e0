"""The table of operations: what fits is told what it takes, what does not is refused."""

import pytest

from commands.fhe.operations import Need, UnsupportedOperation, need_of
from commands.refusals import InvalidCommand
from schemas.fhe.key_material import RELIN
from schemas.fhe.parameters import CKKS_N13
from tests.commands.fhe.cases import cipher, plain


def test_a_row_says_the_level_of_the_result_and_the_parts_of_the_key() -> None:
    both, mixed = [cipher(level=1), cipher()], [cipher(), plain()]
    assert need_of("add", both, "{}", CKKS_N13) == Need(level=1)
    assert need_of("add", mixed, "{}", CKKS_N13) == Need(level=0)
    assert need_of("multiply", both, "{}", CKKS_N13) == Need(level=2, parts=(RELIN,))
    assert need_of("multiply", mixed, "{}", CKKS_N13) == Need(level=1)


def test_operands_that_fit_no_form_are_refused() -> None:
    for operands in ([], [cipher()], [plain(), cipher()], [plain(), plain()], [cipher()] * 3):
        with pytest.raises(InvalidCommand, match="two ciphertexts"):
            need_of("add", operands, "{}", CKKS_N13)


def test_what_a_scheme_cannot_do_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedOperation, match="ckks-n13 cannot divide") as refused:
        need_of("divide", [cipher(), cipher()], "{}", CKKS_N13)
    assert refused.value.details == {"operation": "divide", "params_id": "ckks-n13"}
