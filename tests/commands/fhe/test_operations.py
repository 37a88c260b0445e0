"""The table of operations: what fits is told what it takes, what does not is refused."""

import msgspec
import pytest

from commands.fhe.operations import ModelNotFound, Need, UnsupportedOperation, need_of
from commands.refusals import InvalidCommand
from schemas.fhe.circuit import ARITY, Gate, compile_circuit
from schemas.fhe.job import Operand
from schemas.fhe.key_material import RELIN, ROTATE, SERVER
from schemas.fhe.parameters import BGV_N13, CKKS_N13, CKKS_N14, TFHE_132
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


def bits(count: int = 1, level: int = 0) -> Operand:
    return msgspec.structs.replace(cipher(level=level), count=count)


def test_gates_take_the_parts_of_their_scheme_and_count_each_bit() -> None:
    for gate, arity in ARITY.items():
        need = need_of(gate, [bits(3)] * arity, "{}", TFHE_132)
        assert need == Need(level=0, parts=(SERVER,), quantity=3)
    assert need_of("not", [bits(level=2)], "{}", BGV_N13) == Need(level=2)
    product = need_of("nand", [bits(level=2), bits(level=1)], "{}", BGV_N13)
    assert product == Need(level=4, parts=(RELIN,))


def test_operands_of_gates_that_do_not_fit_are_refused() -> None:
    refused = [
        ("and", [bits()], TFHE_132, "and takes 2 operands, not 1"),
        ("not", [bits(), bits()], TFHE_132, "not takes 1 operands, not 2"),
        ("and", [bits(2), bits(3)], TFHE_132, "different numbers"),
        ("and", [bits(), plain()], TFHE_132, "ciphertexts only"),
        ("and", [bits(4), bits(4)], BGV_N13, "3 ciphertexts at most"),
        ("and", [bits(700), bits(700)], TFHE_132, "613 ciphertexts at most"),
    ]
    for gate, operands, params, message in refused:
        with pytest.raises(InvalidCommand, match=message):
            need_of(gate, operands, "{}", params)
    with pytest.raises(UnsupportedOperation):
        need_of("and", [cipher(), cipher()], "{}", CKKS_N13)
    with pytest.raises(UnsupportedOperation):
        need_of("add", [bits(), bits()], "{}", TFHE_132)


def test_a_circuit_is_counted_by_its_gates_and_its_wires_must_be_there() -> None:
    gates = [Gate("x", "and", ["a[1]", "b"]), Gate("y", "not", ["x"])]
    arguments = msgspec.json.encode(compile_circuit(["a", "b"], gates, ["x", "y"])).decode()
    need = need_of("circuit", [bits(2), bits()], arguments, TFHE_132)
    assert need == Need(level=0, parts=(SERVER,), quantity=2)
    packed = need_of("circuit", [bits(2, level=1), bits(level=2)], arguments, BGV_N13)
    assert packed == Need(level=4, parts=(RELIN,), quantity=2)
    with pytest.raises(InvalidCommand, match=r"holds 1 ciphertexts: there is no \[1\]"):
        need_of("circuit", [bits(), bits()], arguments, TFHE_132)
    with pytest.raises(InvalidCommand, match="no input 1"):
        need_of("circuit", [bits(2)], arguments, TFHE_132)
    with pytest.raises(InvalidCommand, match="not a circuit"):
        need_of("circuit", [bits(2)], "{}", TFHE_132)
    wide = compile_circuit(["a"], [Gate("x", "not", ["a"])], ["x"] * 4)
    with pytest.raises(InvalidCommand, match="3 ciphertexts at most"):
        need_of("circuit", [bits()], msgspec.json.encode(wide).decode(), BGV_N13)


def test_a_circuit_of_inverters_needs_no_key_of_packed_bits() -> None:
    circuit = compile_circuit(["a"], [Gate("x", "not", ["a"])], ["x"])
    arguments = msgspec.json.encode(circuit).decode()
    assert need_of("circuit", [bits()], arguments, BGV_N13).parts == ()
