"""Kafka, PostgreSQL and stores for a bench that measures what is inside of a process."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from infra.config import Settings
from infra.embedded.stack import Stack


@contextlib.contextmanager
def servers() -> Iterator[Settings]:
    """What a role needs on a stack of its own, in a folder that goes with it."""
    with tempfile.TemporaryDirectory(prefix="weir-bench-") as folder, Stack(Path(folder)) as stack:
        yield stack.settings
