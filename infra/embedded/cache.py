"""Where things built or fetched once per machine live, outside any checkout."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


def cache_folder(*parts: str) -> Path:
    """A folder of the machine-wide cache, made if missing.

    `WEIR_CACHE_DIR` names the root; else `$XDG_CACHE_HOME/weir`; else `~/.cache/weir`.
    """
    named = os.environ.get("WEIR_CACHE_DIR")
    if named:
        root = Path(named)
    else:
        xdg = os.environ.get("XDG_CACHE_HOME")
        root = (Path(xdg) if xdg else Path.home() / ".cache") / "weir"
    folder = root.joinpath(*parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file `path` while the block runs; other processes wait their turn.

    The kernel frees the lock when its holder dies, however it dies.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
