"""`make install`: a virtual environment with the locked dependencies and the `weir` command.

Run by whatever Python the machine has (`python3 -m infra.build.install`), hence this form: it must
load under an old one to be able to say that it is too old. Repeating it costs nothing: a stamp in
the environment names everything that went into it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

OLDEST = (3, 11)
ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / "infra" / "requirements"
LOCK = REQUIREMENTS / "lock.txt"
VENV = ROOT / ".venv"


class InstallError(Exception):
    """The installation cannot go on; one line for a person."""


def stamp() -> str:
    """A name for what the environment must hold: change any ingredient and it changes."""
    digest = hashlib.sha256()
    ingredients = [*sorted(REQUIREMENTS.glob("*.lock")), LOCK, ROOT / "pyproject.toml"]
    crate = ROOT / "fhe_workers" / "native" / "tfhe"
    sources = [
        crate / "Cargo.toml",
        crate / "crates.lock",
        crate / "build.rs",
        crate / "src/lib.rs",
    ]
    for path in [*ingredients, ROOT / "infra" / "build" / "seal-toolchain.cmake", *sources]:
        digest.update(path.name.encode() + path.read_bytes())
    # Where a toolchain has come since, its engine is built now.
    digest.update(str(shutil.which("cargo") is not None).encode())
    digest.update(f"{sys.version} {sys.base_prefix} {ROOT}".encode())
    return digest.hexdigest()


def install() -> None:
    """Bring `.venv` up to date. Raises InstallError; a half-made environment is made anew."""
    from infra.embedded.cache import cache_folder, exclusive

    mark = VENV / "installed"
    # Two `make` in one checkout: the second waits, then finds everything done. The lock is not in
    # the environment, which may be cleared.
    name = hashlib.sha256(str(VENV).encode()).hexdigest()[:16]
    with exclusive(cache_folder("install") / f"{name}.lock"):
        _bootstrapping_helper()
        wanted = stamp()
        if mark.exists() and mark.read_text() == wanted and _python().exists():
            return
        mark.unlink(missing_ok=True)
        began = time.monotonic()
        _make_environment()
        # Side by side: the one waits for the network, the others for their compilers.
        with ThreadPoolExecutor(2) as beside:
            wheel = beside.submit(_pyfhel_wheel)
            extension = beside.submit(_tfhe_extension)
            _say("installing the locked packages")
            locked = ("--no-deps", "--require-hashes", "--only-binary", ":all:", "-r", str(LOCK))
            _pip("install", *locked)
            _pip("install", "--no-deps", "--no-index", str(wheel.result()))
            _put_beside_packages(extension.result())
        _pip("install", "--no-deps", "--no-build-isolation", "-e", str(ROOT))
        _pip("check")
        _say("preparing Kafka")
        _run([str(_python()), "-m", "infra.embedded.jars", "fetch"])
        _run([str(_python()), "-m", "infra.embedded.warm"])
        mark.write_text(wanted)
        _say(f"installed in {time.monotonic() - began:.0f} s; try .venv/bin/weir doctor")


def _make_environment() -> None:
    _say(f"making {VENV.name} with Python {sys.version.split()[0]}")
    try:
        _run([sys.executable, "-m", "venv", "--clear", str(VENV)])
    except InstallError:
        raise InstallError(
            "cannot make a virtual environment (on Debian and Ubuntu: apt install python3-venv)"
        ) from None


def _pyfhel_wheel() -> Path:
    from infra.build.pyfhel import BuildError, cached_wheel, ensure_wheel

    if cached_wheel() is None:
        _say("building Pyfhel, once on this machine: two minutes or more")
    try:
        return ensure_wheel()
    except BuildError as error:
        raise InstallError(str(error)) from error


def _bootstrapping_helper() -> None:
    from infra.build.bootstrap import BuildError, cached_helper, ensure_helper

    if cached_helper() is None:
        _say("building the bootstrapping helper, where there is Go")
    try:
        if ensure_helper() is None:
            _say("no Go here: bootstrapping will answer 503 engine_unavailable")
    except BuildError as error:
        # Everything else works without it.
        _say(str(error))


def _tfhe_extension() -> Path | None:
    """The gates of tfhe-rs, or None where they cannot be built: the rest works without them."""
    from infra.build.pyfhel import BuildError
    from infra.build.tfhe import cached_extension, ensure_extension

    if cached_extension() is None:
        _say("building the gates of tfhe-rs, once on this machine: a minute or two")
    try:
        return ensure_extension()
    except BuildError as error:
        _say(f"{error}; keys of tfhe-132 answer engine_unavailable until then")
        return None


def _put_beside_packages(extension: Path | None) -> None:
    if extension is not None:
        [packages] = VENV.glob("lib/python*/site-packages")
        partial = packages / (extension.name + ".part")
        shutil.copyfile(extension, partial)
        # By rename: a process that runs keeps the file that it has loaded.
        partial.rename(packages / extension.name)


def _python() -> Path:
    return VENV / "bin" / "python"


def _pip(*arguments: str) -> None:
    quiet = ["--quiet", "--disable-pip-version-check", "--no-input"]
    _run([str(_python()), "-m", "pip", arguments[0], *quiet, *arguments[1:]])


def _run(command: list[str]) -> None:
    # The checkout alone: a caller's PYTHONPATH must not leak into what gets installed.
    environment = {**os.environ, "PYTHONPATH": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=False)
    if done.returncode != 0:
        sys.stderr.write(done.stdout.decode(errors="replace"))
        raise InstallError(f"{' '.join(command[1:4])} failed; the reason is above")


def _say(message: str) -> None:
    sys.stderr.write(f"weir: {message}\n")
    sys.stderr.flush()


def main() -> None:
    """Install, or say in one line why not."""
    if tuple(sys.version_info) < OLDEST:
        found = ".".join(map(str, sys.version_info[:2]))
        sys.exit(f"weir: needs Python 3.11 or newer, this is {found}: make PYTHON=python3.12 ...")
    try:
        install()
    except InstallError as error:
        sys.exit(f"weir: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
