"""The table of operations: what fits is told what it takes, what does not is refused."""

import pytest

from commands.fhe.operations import ModelNotFound, UnsupportedOperation, need_of
from commands.refusals import InvalidCommand
from schemas.fhe.key_material import RELIN, ROTATE
from schemas.fhe.parameters import CKKS_N13, CKKS_N14
from tests.commands.fhe.cases import cipher, plain


def test_a_row_says_the_level_of_the_result_and_the_parts_of_the_key() -> None:
    both, mixed = [cipher(level=1), cipher()], [cipher(), plain()]
    cases = [
        ("add", both, "{}", 1, (), ()),
        ("add", mixed, "{}", 0, (), ()),
        ("multiply", both, "{}", 2, (RELIN,), ()),
        ("multiply", mixed, "{}", 1, (), ()),
        ("matmul", mixed, '{"size": 64}', 1, (ROTATE,), (1,)),
        ("matmul", mixed, '{"size": 1}', 1, (), ()),
        ("matmul", both, '{"size": 16}', 4, (RELIN, ROTATE), (-16, 1, 16)),
        ("model", [cipher()], '{"model_id": "digits-linear-v1"}', 1, (ROTATE,), (1,)),
        ("model", [cipher()], '{"model_id": "tumour-logistic-v1"}', 3, (RELIN, ROTATE), (1,)),
    ]
    for operation, operands, arguments, level, parts, rotations in cases:
        need = need_of(operation, operands, arguments, CKKS_N14)
        assert (need.level, need.parts, need.rotations) == (level, parts, rotations), operation


def test_arguments_and_operands_that_a_product_cannot_have() -> None:
    both, mixed = [cipher(), cipher()], [cipher(), plain()]
    for operands, arguments in (
        (mixed, "{}"),
        (mixed, '{"size": 0}'),
        (mixed, '{"size": 48}'),
        (mixed, '{"size": 512}'),
        (both, '{"size": 128}'),
        ([cipher()], '{"size": 8}'),
        ([plain(), cipher()], '{"size": 8}'),
    ):
        with pytest.raises(InvalidCommand):
            need_of("matmul", operands, arguments, CKKS_N14)
    with pytest.raises(InvalidCommand, match="one encrypted vector"):
        need_of("model", both, '{"model_id": "digits-linear-v1"}', CKKS_N14)
    with pytest.raises(ModelNotFound):
        need_of("model", [cipher()], '{"model_id": "gpt-5"}', CKKS_N14)


def test_operands_that_fit_no_form_are_refused() -> None:
    for operands in ([], [cipher()], [plain(), cipher()], [plain(), plain()], [cipher()] * 3):
        with pytest.raises(InvalidCommand, match="two ciphertexts"):
            need_of("add", operands, "{}", CKKS_N13)


def test_what_a_scheme_cannot_do_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedOperation, match="ckks-n13 cannot divide") as refused:
        need_of("divide", [cipher(), cipher()], "{}", CKKS_N13)
    assert refused.value.details == {"operation": "divide", "params_id": "ckks-n13"}
