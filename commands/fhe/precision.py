"""How large values may be and how far they may be from exact, followed through every operation.

Nobody but the client can measure either. So both are bounds: a fresh ciphertext is as exact as its
encryption, and its values lie within the magnitude that its client states. What an operation adds
was measured, with room to spare; tests hold that results are within the bounds.
"""

from collections.abc import Sequence
from math import log2, sqrt

from msgspec import Struct

from schemas.fhe.job import Operand
from schemas.fhe.models import Model
from schemas.fhe.parameters import BOOTSTRAP_ERROR, ROTATION_ERROR, ParameterSet


class Estimate(Struct, frozen=True):
    """Bounds of the absolute values in a ciphertext, and of their distance from the exact ones."""

    magnitude: float
    error: float


EXACT = Estimate(1.0, 0.0)


def estimates_of(operands: Sequence[Operand], params: ParameterSet) -> list[Estimate]:
    """What is known of operands; values in the clear are exact."""
    fresh = {"cipher": params.error_bound / 10, "plain": 0.0}
    return [Estimate(one.magnitude, one.error or fresh[one.kind]) for one in operands]


def of_sum(operands: Sequence[Operand], params: ParameterSet) -> Estimate:
    """The sum of two operands."""
    left, right = estimates_of(operands, params)
    return Estimate(left.magnitude + right.magnitude, left.error + right.error + params.error_bound)


def of_product(operands: Sequence[Operand], params: ParameterSet) -> Estimate:
    """The product of two operands, slot by slot."""
    left, right = estimates_of(operands, params)
    return _product(left, right, params)


def of_matvec(operands: Sequence[Operand], size: int, params: ParameterSet) -> Estimate:
    """An encrypted vector, multiplied by a matrix whose `magnitude` is its largest row sum."""
    vector, matrix = estimates_of(operands, params)
    return _transformed(vector, matrix.magnitude, size, params)


def of_matmul(operands: Sequence[Operand], size: int, params: ParameterSet) -> Estimate:
    """The product of two encrypted matrices of this size."""
    walked = ROTATION_ERROR * sqrt(2 * size)
    known = estimates_of(operands, params)
    left, right = (Estimate(one.magnitude, one.error + walked) for one in known)
    one = _product(left, right, params)
    return Estimate(size * one.magnitude, size * one.error)


def of_model(operands: Sequence[Operand], model: Model, params: ParameterSet) -> Estimate:
    """A model's answer to an encrypted vector."""
    [vector] = estimates_of(operands, params)
    linear = _transformed(vector, model.row_sum, model.size, params)
    linear = Estimate(linear.magnitude + model.bias_max, linear.error + params.error_bound)
    if model.sigmoid is None:
        return linear
    constant, slope, cubic = map(abs, model.sigmoid)
    square = linear.magnitude**2
    return Estimate(
        constant + slope * linear.magnitude + cubic * square * linear.magnitude,
        (slope + 3 * cubic * square) * linear.error
        + (3 + square + linear.magnitude) * params.error_bound,
    )


def of_bootstrap(operands: Sequence[Operand], params: ParameterSet) -> Estimate:
    """A ciphertext that was refreshed."""
    [given] = estimates_of(operands, params)
    return Estimate(given.magnitude, given.error + BOOTSTRAP_ERROR)


def precision_bits(error: float) -> int | None:
    """The bits behind the binary point that can be relied on; None for exact results."""
    return max(0, int(-log2(error))) if error > 0 else None


def _product(left: Estimate, right: Estimate, params: ParameterSet) -> Estimate:
    carried = left.magnitude * right.error + right.magnitude * left.error
    return Estimate(
        left.magnitude * right.magnitude, carried + left.error * right.error + params.error_bound
    )


def _transformed(vector: Estimate, row_sum: float, size: int, params: ParameterSet) -> Estimate:
    walked = ROTATION_ERROR * sqrt(size)
    return Estimate(
        row_sum * vector.magnitude, row_sum * (vector.error + walked) + params.error_bound
    )
