"""Runs one bench in a process of its own: no bench inherits another's memory or engine."""

import importlib
import multiprocessing
import traceback
from multiprocessing.connection import Connection
from typing import Any

from bench.figure import Figure


def measure(module: str, seconds: float, **options: Any) -> list[Figure] | None:
    """A bench's figures, measured in a process of its own; None when it broke.

    options: what its `figures` takes besides.
    """
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=_measure, args=(module, seconds, options, there))
    process.start()
    there.close()
    try:
        found: list[Figure] | None = here.recv()
    except EOFError:
        found = None
    process.join()
    return found


def _measure(module: str, seconds: float, options: dict[str, Any], out: Connection) -> None:
    try:
        out.send(importlib.import_module(module).figures(seconds, **options))
    except Exception:
        traceback.print_exc()
        out.send(None)
