"""Shared memory: operands lie one after another, two jobs beside each other."""

import os

import pytest

from fhe_workers.region import OPERANDS_BYTES_MAX, OPERANDS_MAX, Region, make_region
from schemas.fhe.parameters import CIPHERTEXT_BYTES_MAX


@pytest.fixture
def region() -> Region:
    fd = make_region()
    try:
        return Region(fd)
    finally:
        os.close(fd)


def test_any_number_of_operands_and_results_keep_apart(region: Region) -> None:
    first, second = [b"a" * 7, b"", b"b" * 9, b"c"], [b"d" * 5, b"e" * 11]
    for slot, operands in enumerate((first, second)):
        with region.operand_places(slot, [len(data) for data in operands]) as places:
            for place, data in zip(places, operands, strict=True):
                place[:] = data
        region.put_result(slot, bytes([slot]) * CIPHERTEXT_BYTES_MAX)
    for slot, operands in enumerate((first, second)):
        assert region.take_operands(slot, [len(data) for data in operands]) == operands
        assert region.take_result(slot, 3) == bytes([slot]) * 3


def test_what_does_not_fit_is_refused(region: Region) -> None:
    most = [CIPHERTEXT_BYTES_MAX] * (OPERANDS_BYTES_MAX // CIPHERTEXT_BYTES_MAX)
    with region.operand_places(1, most) as places:
        assert len(places) == len(most)
    refused = ([*most, 1], [0] * (OPERANDS_MAX + 1), [CIPHERTEXT_BYTES_MAX + 1], [-1])
    for lengths in refused:
        with pytest.raises(ValueError, match="operands of"), region.operand_places(0, lengths):
            pass
    with pytest.raises(ValueError, match="do not fit"):
        region.put_result(0, bytes(CIPHERTEXT_BYTES_MAX + 1))
