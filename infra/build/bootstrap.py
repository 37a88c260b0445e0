"""Builds the bootstrapping helper once per machine and keeps it in the cache, outside any checkout.

It is written in Go, on Lattigo, whose version and hash are pinned beside its source. A machine
without `go` has no helper: everything else works there.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

from infra.embedded.cache import cache_folder, exclusive

SOURCE = Path(__file__).resolve().parents[2] / "fhe_workers" / "native" / "bootstrap"


class BuildError(Exception):
    """The helper cannot be built; one line for a person."""


def cache_key() -> str:
    """A name for the program that this source makes on this kind of machine."""
    digest = hashlib.sha256(sysconfig.get_platform().encode())
    for path in sorted(SOURCE.iterdir()):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def cached_helper() -> Path | None:
    """The program if this machine has built it already."""
    program = cache_folder("bootstrap", cache_key()) / "bootstrap"
    return program if program.exists() else None


def ensure_helper() -> Path | None:
    """The program, built if need be (half a minute); None without `go`. Raises BuildError.

    Of several processes that want it at once, one builds and the others wait.
    """
    with exclusive(cache_folder("bootstrap") / "lock"):
        found = cached_helper()
        if found is None and shutil.which("go"):
            found = _build(cache_folder("bootstrap", cache_key()))
    return found


def _build(target: Path) -> Path:
    log, partial = target / "build.log", target / "bootstrap.part"
    command = ["go", "build", "-trimpath", "-buildvcs=false", "-mod=readonly", "-o", str(partial)]
    # The Go that is there, and no newer one that it might fetch.
    environment = {**os.environ, "GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}
    with log.open("wb") as output:
        done = subprocess.run(
            [*command, "."],
            cwd=SOURCE,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode != 0:
        raise BuildError(f"building the bootstrapping helper failed; the reason is in {log}")
    return partial.rename(target / "bootstrap")
