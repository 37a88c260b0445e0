"""The roles that a process can play, and how one process plays several at once.

A role is an async function `serve(settings, stop, ready)`: it calls `ready()` once it serves, runs
until the `stop` event is set, and ends cleanly within seconds then. It is named here by its module
and found when it is wanted, so that a process loads only what its roles need.
"""

import asyncio
import contextlib
import functools
import importlib
import logging
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import cast

import uvloop

from infra.config import Settings
from infra.memory import tune_collector
from infra.readiness import announce

Serve = Callable[[Settings, asyncio.Event, Callable[[], None]], Awaitable[None]]

ROLES: dict[str, str] = {
    "api": "api.__main__:serve",
    "decider": "streams.__main__:decider",
    "analytics": "streams.__main__:analytics",
    "scheduler": "streams.__main__:scheduler",
    "streams": "streams.__main__:processors",
    "fhe-worker": "fhe_workers.__main__:serve",
}

STOP_SECONDS = 8.0
# What the roles leave behind may hold up the end of their process for so long.
END_SECONDS = 10.0
EXIT_LATE = 70  # EX_SOFTWARE of sysexits.h

logger = logging.getLogger(__name__)


class RoleError(Exception):
    """A role is unknown or has ended by itself; one line for a person."""


def check_roles(names: Sequence[str]) -> None:
    """Raise RoleError for a name that is not in ROLES or comes twice."""
    for name in names:
        if name not in ROLES:
            raise RoleError(f"there is no role {name!r}; the roles are {', '.join(ROLES)}")
    if len(set(names)) != len(names):
        raise RoleError(f"a role is named twice: {' '.join(names)}")


def find_role(name: str) -> Serve:
    """The function of a role in ROLES."""
    module, _, function = ROLES[name].partition(":")
    return cast(Serve, getattr(importlib.import_module(module), function))


def play(names: Sequence[str], settings: Settings) -> None:
    """`run_roles` in a process that is there for nothing else.

    A task or thread that a role left behind and that never ends does not keep a dead process
    alive: whoever supervises it could not start it again.
    """

    async def playing() -> None:
        try:
            await run_roles(names, settings)
        finally:
            late = threading.Timer(END_SECONDS, os._exit, (EXIT_LATE,))
            late.daemon = True
            late.start()

    uvloop.run(playing())


async def run_roles(names: Sequence[str], settings: Settings) -> None:
    """Play the roles side by side in this process until SIGTERM or SIGINT, or until one ends.

    A second signal ends the process at once. Raises RoleError when a role ends unasked, whether
    by returning or by raising: a process that plays half of its roles must be started anew.
    """
    check_roles(names)
    serves = {name: find_role(name) for name in names}
    tune_collector()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        if stop.is_set():
            os._exit(1)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    tasks = {
        asyncio.ensure_future(serve(settings, stop, functools.partial(announce, name))): name
        for name, serve in serves.items()
    }
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait({*tasks, stopping}, return_when=asyncio.FIRST_COMPLETED)
    unasked = [] if stop.is_set() else [task for task in tasks if task.done()]
    stop.set()
    await stopping
    _, late = await asyncio.wait(tasks, timeout=STOP_SECONDS)
    for task in late:
        logger.warning("%s did not stop in %s s; it is cancelled", tasks[task], STOP_SECONDS)
        task.cancel()
        with contextlib.suppress(BaseException):
            await task
    failures = []
    for task, name in tasks.items():
        error = None if task.cancelled() else task.exception()
        if error is not None:
            logger.error("role %s failed", name, exc_info=error)
            failures.append(f"role {name} failed: {type(error).__name__}: {error}")
        elif task in unasked:
            failures.append(f"role {name} ended by itself")
    if failures:
        raise RoleError("; ".join(failures).replace("\n", " "))
