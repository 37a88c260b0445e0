"""How a role tells its supervisor that it serves: one line on an inherited pipe.

The supervisor passes the pipe's number in `WEIR_READY_FD`. Without it (a role started by hand or
by another supervisor) announcing does nothing.
"""

import contextlib
import os

VARIABLE = "WEIR_READY_FD"


def announce(role: str) -> None:
    """Say that `role` serves from now on. Never blocks, never raises; saying it twice is fine."""
    number = os.environ.get(VARIABLE, "")
    if number.isdigit():
        # A supervisor that is gone has closed its end: then nobody waits for the line.
        with contextlib.suppress(OSError):
            os.write(int(number), f"{role}\n".encode())
