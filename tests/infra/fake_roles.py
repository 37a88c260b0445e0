"""Roles for the tests of run_roles: each does one thing that a role may do."""

import asyncio
import contextlib
from collections.abc import Callable

from infra.config import Settings

stopped: list[str] = []
left: set[asyncio.Task[None]] = set()


async def steady(_settings: Settings, stop: asyncio.Event, ready: Callable[[], None]) -> None:
    """Serves until it is told to stop."""
    ready()
    await stop.wait()
    stopped.append("steady")


async def failing(_settings: Settings, _stop: asyncio.Event, _ready: Callable[[], None]) -> None:
    """Raises at once."""
    raise ValueError("the disk\nis full")


async def leaving(_settings: Settings, _stop: asyncio.Event, ready: Callable[[], None]) -> None:
    """Returns although nobody asked."""
    ready()


async def stubborn(_settings: Settings, _stop: asyncio.Event, ready: Callable[[], None]) -> None:
    """Does not listen to the stop event; ends by being cancelled."""
    ready()
    try:
        await asyncio.Event().wait()
    finally:
        stopped.append("stubborn")


async def lingering(_settings: Settings, _stop: asyncio.Event, ready: Callable[[], None]) -> None:
    """Returns, and leaves a task behind that can't be cancelled."""

    async def refuse() -> None:
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

    left.add(asyncio.create_task(refuse()))
    ready()
