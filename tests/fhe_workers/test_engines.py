"""Engines by name: one that is not built costs its own jobs, and no others."""

import msgspec
import pytest

from fhe_workers.engines import engine_of
from fhe_workers.refusals import JobRefused
from schemas.fhe.parameters import CKKS_N13, LATTIGO, TFHE_RS


@pytest.mark.parametrize(("engine", "tool"), [(TFHE_RS, "cargo"), (LATTIGO, "go")])
def test_an_engine_that_is_not_built_is_named(
    monkeypatch: pytest.MonkeyPatch, engine: str, tool: str
) -> None:
    monkeypatch.setattr("fhe_workers.engines._MODULES", {engine: "fhe_workers.not_built_here"})
    with pytest.raises(JobRefused, match=f"{engine}, which is not built here: it takes {tool} "):
        engine_of(msgspec.structs.replace(CKKS_N13, engine=engine))
