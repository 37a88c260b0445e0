"""Builds the extension `weir_tfhe` (tfhe-rs) once per machine and keeps it in the cache.

Its crates are pinned by version and hash in `crates.lock`, which is cargo's own lock without the
lines that name a registry: those are what the machine's cargo writes. It fits every Python from
3.11 on, so none is asked for when it is built.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from infra.build.pyfhel import BuildError
from infra.embedded.cache import cache_folder, exclusive

CRATE = Path(__file__).resolve().parents[2] / "fhe_workers" / "native" / "tfhe"
SOURCES = [CRATE / name for name in ("Cargo.toml", "crates.lock", "build.rs", "src/lib.rs")]
# The name by which Python finds it, and what cargo makes on Linux and elsewhere.
FILE_NAME = "weir_tfhe.abi3.so"
_BUILT = ("libweir_tfhe.so", "libweir_tfhe.dylib")
OLDEST_RUST = "1.91"


def cache_key() -> str:
    """A name for what these sources make on this kind of machine."""
    digest = hashlib.sha256()
    for path in SOURCES:
        digest.update(path.read_bytes())
    digest.update(sysconfig.get_platform().encode())
    return digest.hexdigest()[:16]


def cached_extension() -> Path | None:
    """The extension if this machine has built it already."""
    path = cache_folder("tfhe", cache_key()) / FILE_NAME
    return path if path.exists() else None


def is_buildable() -> bool:
    """Whether there is a cargo; which version it must have, its own message says."""
    return shutil.which("cargo") is not None


def ensure_extension() -> Path:
    """The extension, built if need be (a minute or two). Raises BuildError.

    Of several processes that want it at once, one builds and the others wait.
    """
    with exclusive(cache_folder("tfhe") / "lock"):
        return cached_extension() or _build(cache_folder("tfhe", cache_key()))


def sourced(pins: str, lock: str) -> str:
    """The lock that `pins` are: with the lines that name the registry, as `lock` has them."""
    source = re.search(r"^source = .*\n", lock, re.M)
    if source is None:
        raise BuildError("cargo has found none of the crates")
    return re.sub(r"^(?=checksum = )", source.group(0), pins, flags=re.M)


def _build(target: Path) -> Path:
    if not is_buildable():
        raise BuildError(f"to build the gates of tfhe-rs, install cargo (Rust {OLDEST_RUST})")
    log = target / "build.log"
    with tempfile.TemporaryDirectory(prefix="weir-tfhe-") as scratch, log.open("wb") as output:
        crate = Path(scratch)

        def cargo(*arguments: str) -> None:
            done = subprocess.run(
                ["cargo", *arguments],
                cwd=crate,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYO3_NO_PYTHON": "1"},
                check=False,
            )
            if done.returncode != 0:
                raise BuildError(f"building the gates of tfhe-rs failed; the reason is in {log}")

        for path in SOURCES:
            copy = crate / path.relative_to(CRATE)
            copy.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, copy)
        cargo("generate-lockfile")
        lock = crate / "Cargo.lock"
        lock.write_text(sourced((crate / "crates.lock").read_text(), lock.read_text()))
        cargo("build", "--release", "--locked", "--target-dir", "built")
        folder = crate / "built" / "release"
        built = next(path for name in _BUILT if (path := folder / name).exists())
        # By copy and rename: the cache may be another file system, and a reader sees all or none.
        partial = target / (FILE_NAME + ".part")
        shutil.copyfile(built, partial)
        return partial.rename(target / FILE_NAME)


if __name__ == "__main__":
    try:
        sys.stdout.write(f"{ensure_extension()}\n")
    except BuildError as error:
        sys.exit(f"weir: {error}")
