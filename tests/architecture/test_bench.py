"""Benches run by hand: what they import has to be there all the same."""

import importlib
from pathlib import Path

import pytest

BENCHES = sorted((Path(__file__).parents[2] / "bench").glob("[a-z]*.py"))


@pytest.mark.parametrize("path", BENCHES, ids=lambda path: path.stem)
def test_a_bench_can_be_loaded(path: Path) -> None:
    module = importlib.import_module(f"bench.{path.stem}")
    assert module.__file__ == str(path)
