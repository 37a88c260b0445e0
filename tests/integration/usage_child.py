"""The usage processor in a process of its own that kills itself at a given point.

`python -m tests.integration.usage_child GROUP POINT N` dies at the n-th pass of a point: `fold`
(inside the transaction), `commit` (after it), `alert` (a command posted, not marked as sent) or
`never`. Settings in the environment.
"""

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from infra.config import load_settings
from streams.app import Processors
from streams.billing import ledger as ledger_module
from streams.billing.ledger import Ledger
from streams.runtime import codec, command_bus


class Fuse:
    """Kills this process when it has been passed so many times."""

    def __init__(self, count: int) -> None:
        self._left = count

    def __call__(self) -> None:
        self._left -= 1
        if self._left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)


def lit_after(call: Callable[..., Awaitable[Any]], fuse: Fuse) -> Callable[..., Awaitable[Any]]:
    async def wrapped(*args: Any) -> Any:
        result = await call(*args)
        fuse()
        return result

    return wrapped


def lit_before(call: Callable[..., Awaitable[Any]], fuse: Fuse) -> Callable[..., Awaitable[Any]]:
    async def wrapped(*args: Any) -> Any:
        fuse()
        return await call(*args)

    return wrapped


def arm(point: str, count: int) -> None:
    fuse = Fuse(count)
    if point == "fold":
        ledger_module.save_amounts = lit_after(ledger_module.save_amounts, fuse)  # type: ignore[assignment]
    elif point == "commit":
        Ledger.apply = lit_after(Ledger.apply, fuse)  # type: ignore[method-assign]
    elif point == "alert":
        Ledger.sent = lit_before(Ledger.sent, fuse)  # type: ignore[method-assign]


async def main(group: str, point: str, count: int) -> None:
    arm(point, count)
    settings = load_settings()
    bus = command_bus(settings)
    await bus.start()
    with tempfile.TemporaryDirectory() as folder:
        await Processors(settings, codec(), bus, Path(folder), group).run(lambda: None)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
