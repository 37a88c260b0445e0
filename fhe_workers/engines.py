"""Which library computes with which parameter sets, behind one interface, so that it can change.

An engine is a module with `load` and `compute`. It is imported when the first job wants it: those
that are built from source are missing where their toolchain was, and only their jobs fail then.
"""

from collections.abc import Callable
from contextvars import ContextVar
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

from msgspec import Struct

from fhe_workers import lattigo
from fhe_workers.messages import Work
from fhe_workers.refusals import JobRefused
from schemas.fhe.parameters import LATTIGO, PYFHEL, TFHE_RS, LattigoParameters, ParameterSet

_MODULES = {PYFHEL: "fhe_workers.pyfhel", TFHE_RS: "fhe_workers.tfhe"}
# What somebody who runs the workers does about an engine that is missing.
_BUILT_BY = {TFHE_RS: "cargo", LATTIGO: "go"}


def _nobody(done: int, total: int) -> None:
    """Nobody wants to know."""


# Whom an engine tells how many of how many steps of the job at hand are done.
PROGRESS: ContextVar[Callable[[int, int], None]] = ContextVar("PROGRESS", default=_nobody)


class Outcome(Struct, frozen=True):
    """A computed ciphertext, serialised. `count`: see `schemas.fhe.job.Operand`."""

    data: bytes
    level: int
    scale: float = 0.0
    count: int = 1


class Loaded(Protocol):
    """Parameters ready to compute with, with or without a client's key."""

    @property
    def resident_bytes(self) -> int:
        """About what it costs in memory."""
        ...


class Engine(Protocol):
    """What computes; never sees a secret key, and believes no byte that it is given."""

    def load(self, params: Any, parts: list[bytes]) -> Loaded:
        """`params` with the key's parts, if there are any. Raises JobRefused (key_invalid)."""
        ...

    def compute(self, work: Work, loaded: Any, operands: list[bytes]) -> Outcome:
        """The result of `work` over what `load` has returned. Raises JobRefused."""
        ...


def check_part(params: ParameterSet, kind: str, data: bytes, helper: Path | None) -> None:
    """Have the engine load one part of a key, alone. Raises JobRefused (key_invalid,
    engine_unavailable, and why a part is none).

    helper: the program of Lattigo's sets, None when it is not built.
    """
    if not isinstance(params, LattigoParameters):
        engine_of(params).load(params, [data])
    elif helper is None:
        raise engine_missing(params)
    else:
        lattigo.check_part(helper, params, kind, data)


def engine_of(params: ParameterSet) -> Engine:
    """What computes with `params`. Raises JobRefused (engine_unavailable)."""
    name = params.engine
    try:
        return cast(Engine, import_module(_MODULES[name]))
    except (KeyError, ImportError):
        raise engine_missing(params) from None


def engine_missing(params: ParameterSet) -> JobRefused:
    """What a job is told whose engine is not there."""
    tool = _BUILT_BY.get(params.engine, "its toolchain")
    return JobRefused(
        "engine_unavailable",
        f"{params.params_id} needs {params.engine}, which is not built here: "
        f"it takes {tool} and make install",
    )
