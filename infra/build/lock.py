"""`make lock`: resolve every dependency anew and pin it by hash, for all Pythons and platforms.

The locks name no host: where packages come from is the business of the machine's pip settings.
"""

import subprocess
import sys
from pathlib import Path

from infra.build.install import OLDEST, REQUIREMENTS, ROOT
from infra.embedded.jars import JarError, write_lock

# (what is resolved, where to, more options)
TARGETS: tuple[tuple[Path, Path, tuple[str, ...]], ...] = (
    (ROOT / "pyproject.toml", REQUIREMENTS / "lock.txt", ("--group", "dev")),
    # What an image holds: the same versions without the tools of development.
    (
        ROOT / "pyproject.toml",
        REQUIREMENTS / "runtime.txt",
        ("--constraint", str(REQUIREMENTS / "lock.txt")),
    ),
    (REQUIREMENTS / "pyfhel-build.in", REQUIREMENTS / "pyfhel-build.lock", ()),
)


def compile_lock(source: Path, target: Path, options: tuple[str, ...]) -> None:
    """Resolve `source` into `target` with uv, which resolves for every platform at once."""
    command = [
        *(str(Path(sys.executable).with_name("uv")), "pip", "compile", "--quiet", "--universal"),
        *("--python-version", ".".join(map(str, OLDEST)), "--generate-hashes", "--upgrade"),
        *("--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links"),
        *(str(source), *options, "--output-file", str(target)),
    ]
    done = subprocess.run(command, cwd=ROOT, check=False)
    if done.returncode != 0:
        sys.exit(f"weir: could not resolve {source.name}; the reason is above")


def main() -> None:
    """Write all locks."""
    for source, target, options in TARGETS:
        compile_lock(source, target, options)
    try:
        write_lock()
    except JarError as error:
        sys.exit(f"weir: {error}")


if __name__ == "__main__":
    main()
