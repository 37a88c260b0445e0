"""What matrix products ask of a key, a parameter set and their operands.

The gateway and the decider refuse with these what the worker could not do.
"""

from collections.abc import Iterable

# An encrypted matrix times another: rearranging, shifting and the product itself.
MATMUL_LEVELS = 3
# A product of larger ones takes more than half a minute of a processor.
MATRIX_SIZE_MAX = 64
# Values of a matrix in the clear; its vector has as many as the larger side, rounded up.
VECTOR_SIZE_MAX = 256


def padded_size(count: int) -> int:
    """The smallest power of two that is not below `count`, at least 1."""
    return 1 << (count - 1).bit_length()


def giant_step(rotations: Iterable[int], size: int) -> int:
    """The rotation beside 1 with which a product of this size takes the fewest rotations."""
    usable = [step for step in rotations if 1 <= step <= size]
    return min(usable, key=lambda step: (step + -(-size // step), step), default=1)


def fast_step(size: int) -> int:
    """A second rotation with which a product of this size is fast: near its square root."""
    return 1 << ((size - 1).bit_length() + 1) // 2


def matvec_rotations(size: int) -> tuple[int, ...]:
    """The rotations without which a vector of this size cannot be multiplied."""
    return (1,) if size > 1 else ()


def matmul_rotations(size: int) -> tuple[int, ...]:
    """The rotations that the product of two encrypted matrices of this size needs."""
    return (-size, 1, size) if size > 1 else ()
