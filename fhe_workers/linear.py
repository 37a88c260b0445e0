"""Matrix products on CKKS ciphertexts that need very few rotation keys, whatever the size.

A vector of d values (d a power of two) is repeated over all slots of its ciphertext, and a d x d
matrix lies row after row, repeated likewise: so a rotation of all slots is a rotation of the d
values. A larger step is walked in smaller ones for which there are keys, and by Horner's rule
nothing is walked twice. Every plaintext is encoded at the scale of the prime that the next rescale
drops, so that scales come out as they went in.
"""

from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_workers import ckks
from fhe_workers.ckks import Ciphertext
from fhe_workers.contexts import Context
from fhe_workers.keys import require_relin_key, require_rotations
from fhe_workers.refusals import JobRefused
from schemas.fhe.linear import MATMUL_LEVELS, giant_step, matmul_rotations

Matrix = NDArray[np.float64]


def matvec(context: Context, matrix: Matrix, vector: Ciphertext) -> Ciphertext:
    """matrix (d x d, in the clear) times vector: one level lower, at exactly the vector's scale.

    Needs the rotation 1, and is fastest with a second one near the square root of d. Raises
    `JobRefused`: key_missing_rotation, level_exhausted, plaintext_invalid, transparent_result.
    """
    size = len(matrix)
    ckks.require_levels(context, vector.level)
    step = giant_step(context.rotations, size)
    require_rotations(context, {1, step} if size > 1 else ())
    name = sha256(matrix.tobytes()).hexdigest()
    near = [vector]
    for _ in range(min(step, size) - 1):
        near.append(_rotated(context, near[-1], 1))
    total: Ciphertext | None = None
    for begin in reversed(range(0, size, step)):
        if total is not None:
            total = _rotated(context, total, step)
        for offset in range(begin, min(begin + step, size)):
            diagonal = np.roll(_diagonal(matrix, offset), begin)
            if diagonal.any():
                term = _product(context, near[offset - begin], diagonal, f"{name}/{step}", offset)
                total = _sum(context, total, term)
    if total is None:
        raise JobRefused("transparent_result", "the product with zeros would not hide its value")
    return ckks.rescaled(context, total.body, total.level)


def matmul(context: Context, left: Ciphertext, right: Ciphertext, size: int) -> Ciphertext:
    """left times right, both encrypted d x d matrices: three levels below the lower of the two.

    The method is that of Jiang, Kim, Lauter and Song (eprint 2018/1041): both are rearranged so
    that the product is a sum of slot-wise products of their rotations. Needs a relinearisation key
    and the rotations 1, d and -d. Raises `JobRefused`: key_missing_relin, key_missing_rotation,
    level_exhausted.
    """
    require_relin_key(context)
    require_rotations(context, matmul_rotations(size))
    level = max(left.level, right.level)
    ckks.require_levels(context, level, MATMUL_LEVELS)
    skewed_left = _skewed_rows(context, ckks.lowered(context, left, level), size)
    skewed_right = _skewed_columns(context, ckks.lowered(context, right, level), size)
    # The left factors lose a level by their masks, the right ones have none.
    right_factor = ckks.lowered(context, skewed_right, level + 2)
    total: Ciphertext | None = None
    for index, left_factor in enumerate(_column_shifts(context, skewed_left, size)):
        if index:
            right_factor = _rotated(context, right_factor, size)
        product = context.engine.multiply(left_factor.body, right_factor.body, True)
        total = _sum(context, total, ckks.at(product, level + 2))
    assert total is not None
    # The products have three parts each; it is their sum that is relinearised, once.
    context.engine.relinearize(total.body)
    return ckks.rescaled(context, total.body, total.level)


def _skewed_rows(context: Context, matrix: Ciphertext, size: int) -> Ciphertext:
    """Row i rotated to the left by i."""
    place = np.arange(size * size)
    row, column = place // size, place % size
    total: Ciphertext | None = None
    shifted = matrix
    for shift in range(size):
        if shift:
            shifted = _rotated(context, shifted, 1)
        mask = (row == shift) & (column + shift < size)
        total = _sum(context, total, _masked(context, shifted, mask, "rows", shift))
    # What wraps around within a row comes from the other side, row by row.
    shifted = _rotated(context, matrix, -size) if size > 1 else matrix
    for shift in range(1, size):
        shifted = _rotated(context, shifted, 1)
        mask = (row == shift) & (column + shift >= size)
        total = _sum(context, total, _masked(context, shifted, mask, "wrapped", shift))
    assert total is not None
    return ckks.rescaled(context, total.body, total.level)


def _skewed_columns(context: Context, matrix: Ciphertext, size: int) -> Ciphertext:
    """Column j rotated upwards by j."""
    column = np.arange(size * size) % size
    total: Ciphertext | None = None
    shifted = matrix
    for shift in range(size):
        if shift:
            shifted = _rotated(context, shifted, size)
        total = _sum(context, total, _masked(context, shifted, column == shift, "columns", shift))
    assert total is not None
    return ckks.rescaled(context, total.body, total.level)


def _column_shifts(context: Context, matrix: Ciphertext, size: int) -> Iterator[Ciphertext]:
    """Every row rotated to the left by 0, 1, ... size - 1; each one level lower."""
    column = np.arange(size * size) % size
    straight = matrix
    wrapped = _rotated(context, matrix, -size) if size > 1 else matrix
    for shift in range(size):
        if shift == 0:
            body = _masked(context, matrix, column >= 0, "all", 0)
        else:
            straight = _rotated(context, straight, 1)
            wrapped = _rotated(context, wrapped, 1)
            inside = column < size - shift
            body = _sum(
                context,
                _masked(context, straight, inside, "inside", shift),
                _masked(context, wrapped, ~inside, "outside", shift),
            )
        yield ckks.rescaled(context, body.body, body.level)


def _masked(
    context: Context, ciphertext: Ciphertext, mask: NDArray[np.bool_], name: str, index: int
) -> Ciphertext:
    return _product(context, ciphertext, mask.astype(np.float64), f"{name}/{len(mask)}", index)


def _product(
    context: Context, ciphertext: Ciphertext, values: Matrix, matrix: str, index: int
) -> Ciphertext:
    """ciphertext * values, repeated over all slots, not rescaled yet."""
    level, params = ciphertext.level, context.params

    def encode() -> Any:
        repeated = np.tile(values, params.slots // len(values))
        return ckks.encode(context, repeated, ckks.next_prime(context, level), level)

    size_bytes = 8 * params.ring_degree * len(params.data_primes(level))
    plain = context.plaintexts.get(matrix, (index, level), size_bytes, encode)
    return ckks.at(context.engine.multiply_plain(ciphertext.body, plain, True), level)


def _sum(context: Context, total: Ciphertext | None, term: Ciphertext) -> Ciphertext:
    """total + term; changes and returns `total`."""
    if total is None:
        return term
    return ckks.at(context.engine.add(total.body, term.body, False), total.level)


def _rotated(context: Context, ciphertext: Ciphertext, step: int) -> Ciphertext:
    return ckks.at(context.engine.rotate(ciphertext.body, step, True), ciphertext.level)


def _diagonal(matrix: Matrix, offset: int) -> Matrix:
    index = np.arange(len(matrix))
    diagonal: Matrix = matrix[index, (index + offset) % len(matrix)]
    return diagonal
