"""Runs one bench in a process of its own: no bench inherits another's memory or engine."""

import importlib
import multiprocessing
import traceback
from multiprocessing.connection import Connection

from bench.figure import Figure


def measure(module: str, seconds: float) -> list[Figure] | None:
    """A bench's figures, measured in a process of its own; None when it broke."""
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=_measure, args=(module, seconds, there))
    process.start()
    there.close()
    try:
        found: list[Figure] | None = here.recv()
    except EOFError:
        found = None
    process.join()
    return found


def _measure(module: str, seconds: float, out: Connection) -> None:
    try:
        out.send(importlib.import_module(module).figures(seconds))
    except Exception:
        traceback.print_exc()
        out.send(None)
