"""Ports that stay: chosen free once, kept across restarts, replaced only when taken."""

import random
import socket
from collections.abc import Container

# Below the ephemeral ranges of Linux (from 32768) and macOS (from 49152): no outgoing connection
# can hold such a port while its server is being restarted, and a client that retries a dead
# loopback port cannot connect to itself.
FIRST, LAST = 20_000, 31_999
LOOPBACK = "127.0.0.1"


class NoFreePort(Exception):
    """Hundreds of random ports were all taken; one line for a person."""


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """Whether a server could listen on the port now."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        # As servers do, so that connections of a previous run in TIME_WAIT do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def free_port(taken: Container[int] = ()) -> int:
    """A random port that is free now and not in `taken`. Raises NoFreePort."""
    source = random.SystemRandom()
    for _ in range(500):
        port = source.randint(FIRST, LAST)
        if port not in taken and is_free(port):
            return port
    raise NoFreePort(f"no free port found between {FIRST} and {LAST}")


def answers(port: int, host: str = LOOPBACK, timeout_seconds: float = 1.0) -> bool:
    """Whether something accepts a connection on the port."""
    try:
        with socket.create_connection((host, port), timeout=timeout_seconds):
            return True
    except OSError:
        return False
