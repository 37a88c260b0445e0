"""Builds the Pyfhel wheel once per machine and keeps it in the cache, outside any checkout.

Its source is pinned by hash, so are the tools that build it, and nothing else is fetched. The
cache's key covers everything that shapes the wheel, so another Python or pin builds another one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

from infra.embedded.cache import cache_folder, exclusive

HERE = Path(__file__).parent
TOOLCHAIN = HERE / "seal-toolchain.cmake"
REQUIREMENTS = HERE.parent / "requirements"
SOURCE_LOCK = REQUIREMENTS / "pyfhel.lock"
TOOLS_LOCK = REQUIREMENTS / "pyfhel-build.lock"


class BuildError(Exception):
    """The wheel cannot be built; one line for a person."""


def cache_key() -> str:
    """A name for the wheel that these pins make with this Python on this kind of machine."""
    digest = hashlib.sha256()
    for path in (TOOLCHAIN, SOURCE_LOCK, TOOLS_LOCK):
        digest.update(path.read_bytes())
    digest.update(f"{sysconfig.get_config_var('SOABI')} {sysconfig.get_platform()}".encode())
    return digest.hexdigest()[:16]


def cached_wheel() -> Path | None:
    """The wheel if this machine has built it already."""
    return next(iter(cache_folder("pyfhel", cache_key()).glob("*.whl")), None)


def ensure_wheel() -> Path:
    """The wheel, built if need be (two minutes or more). Raises BuildError.

    Of several processes that want it at once, one builds and the others wait.
    """
    with exclusive(cache_folder("pyfhel") / "lock"):
        found = cached_wheel()
        if found is None:
            missing = missing_tools()
            if missing:
                raise BuildError(f"to build Pyfhel, install {' and '.join(missing)}")
            found = _build(cache_folder("pyfhel", cache_key()))
    return found


def missing_tools() -> list[str]:
    """What a person must install before the wheel can be built; CMake itself is pinned by us."""
    missing = [] if shutil.which("make") else ["make"]
    if not any(map(shutil.which, ("c++", "g++", "clang++"))):
        missing.append("a C++ compiler (g++ or clang++)")
    return missing


def _build(target: Path) -> Path:
    log = target / "build.log"
    with tempfile.TemporaryDirectory(prefix="weir-pyfhel-") as scratch, log.open("wb") as output:
        tools = Path(scratch) / "venv"
        wheels = Path(scratch) / "wheels"
        venv.create(tools, with_pip=True)
        pip = [str(tools / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
        steps = [
            [
                *(*pip, "install", "--no-deps", "--require-hashes", "--only-binary", ":all:"),
                *("-r", str(TOOLS_LOCK)),
            ],
            [
                # Not pip's own cache of wheels: one there may have been built otherwise.
                *(*pip, "wheel", "--no-cache-dir", "--no-deps", "--require-hashes"),
                *("--no-build-isolation", "--no-binary", "Pyfhel"),
                *("-r", str(SOURCE_LOCK), "-w", str(wheels)),
            ],
        ]
        for step in steps:
            done = subprocess.run(
                step, stdout=output, stderr=subprocess.STDOUT, env=_environment(tools), check=False
            )
            if done.returncode != 0:
                raise BuildError(f"building Pyfhel failed; the reason is in {log}")
        built = next(wheels.glob("*.whl"))
        # By copy and rename: the cache may be another file system, and a reader sees all or none.
        partial = target / (built.name + ".part")
        shutil.copyfile(built, partial)
        return partial.rename(target / built.name)


def _environment(tools: Path) -> dict[str, str]:
    # make's own variables would have CMake's make wait for a job server that it cannot reach.
    kept = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    return {
        **kept,
        "CMAKE_TOOLCHAIN_FILE": str(TOOLCHAIN),
        "CMAKE_BUILD_PARALLEL_LEVEL": str(os.cpu_count() or 1),
        "PATH": f"{tools / 'bin'}{os.pathsep}{os.environ['PATH']}",
    }


if __name__ == "__main__":
    try:
        sys.stdout.write(f"{ensure_wheel()}\n")
    except BuildError as error:
        sys.exit(f"weir: {error}")
