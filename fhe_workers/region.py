"""Memory that a worker and one child share: operands go in, the result comes out.

Ciphertexts are megabytes and a multiplication takes milliseconds, so copying them through a pipe
would cost a tenth of the whole. Messages still go through the pipe; whose turn it is to touch the
region follows from them. There are two slots: the next job's operands are there before the child
has done with this one's, and this one's result is taken while the child is at the next. A child is
not believed: what it wrote is copied once and used from there.
"""

import contextlib
import mmap
import os
import tempfile
from collections.abc import Iterator, Sequence
from itertools import accumulate

from schemas.fhe.parameters import CIPHERTEXT_BYTES_MAX

Blob = bytes | memoryview

OPERANDS_MAX = 64
# All operands of a job together; only what is written to takes memory.
OPERANDS_BYTES_MAX = 8 * CIPHERTEXT_BYTES_MAX
SLOTS = 2
_RESULT_AT = OPERANDS_BYTES_MAX
_SLOT_BYTES = _RESULT_AT + CIPHERTEXT_BYTES_MAX
REGION_BYTES = SLOTS * _SLOT_BYTES


def make_region() -> int:
    """A new region's file descriptor, to be given to a child and closed when the child is gone."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("weir-fhe")
    else:
        # No such call here: a file without a name serves as well.
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, REGION_BYTES)
    return fd


class Region:
    """One side's view of a region."""

    def __init__(self, fd: int) -> None:
        self._memory = mmap.mmap(fd, REGION_BYTES)

    @contextlib.contextmanager
    def operand_places(self, slot: int, lengths: Sequence[int]) -> Iterator[list[memoryview]]:
        """Where operands of these lengths go, to be written within the block.

        Raises ValueError when they are too many or too large.
        """
        are_single = all(0 <= length <= CIPHERTEXT_BYTES_MAX for length in lengths)
        is_room = len(lengths) <= OPERANDS_MAX and sum(lengths) <= OPERANDS_BYTES_MAX
        if not (are_single and is_room):
            raise ValueError(f"operands of {list(lengths)[: OPERANDS_MAX + 1]} bytes")
        whole = memoryview(self._memory)
        places = [whole[place] for place in _places(slot, lengths)]
        try:
            yield places
        finally:
            # The memory cannot be given back while somebody could still write there.
            for view in (*places, whole):
                view.release()

    def take_operands(self, slot: int, lengths: Sequence[int]) -> list[bytes]:
        """Copy the operands out."""
        return [self._memory[place] for place in _places(slot, lengths)]

    def put_result(self, slot: int, data: Blob) -> int:
        """Write the result; returns its length. Raises ValueError when it is too large."""
        if len(data) > CIPHERTEXT_BYTES_MAX:
            raise ValueError(f"{len(data)} bytes do not fit")
        at = slot * _SLOT_BYTES + _RESULT_AT
        self._memory[at : at + len(data)] = data
        return len(data)

    def take_result(self, slot: int, length: int) -> bytes:
        """Copy the result, of at most CIPHERTEXT_BYTES_MAX, out."""
        at = slot * _SLOT_BYTES + _RESULT_AT
        return self._memory[at : at + length]

    def close(self) -> None:
        """Let go of the memory; while somebody writes there, it goes with them."""
        with contextlib.suppress(BufferError):
            self._memory.close()


def _places(slot: int, lengths: Sequence[int]) -> list[slice]:
    ends = [slot * _SLOT_BYTES + end for end in accumulate(lengths)]
    return [slice(end - length, end) for end, length in zip(ends, lengths, strict=True)]
