"""`weir run ROLES` by a clock that a test moves: `python -m tests.waitroom.role_child FILE ROLES…`.

The file holds by how many microseconds the clock is ahead of the machine's.
"""

import mmap
import sys
from pathlib import Path

from infra import cli
from infra.clock import SystemClock


def main() -> None:
    """Move this process's clock, then be `weir`."""
    _, path, *roles = sys.argv
    with Path(path).open("rb") as held:
        ahead = mmap.mmap(held.fileno(), 8, access=mmap.ACCESS_READ)
    real = SystemClock.now

    def now(self: SystemClock) -> int:
        return real(self) + int.from_bytes(ahead[:8], "little")

    SystemClock.now = now  # type: ignore[method-assign]
    sys.argv = ["weir", "run", *roles]
    cli.main()


if __name__ == "__main__":
    main()
