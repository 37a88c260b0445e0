"""The watchdog: work that lies there and does not get done ends the process, which is restarted.

Kafka clients have got stuck for good in more ways than one can foresee (a coordinator that is never
rejoined, a fetcher that waits for nothing, a loop that is blocked). What all of them have in common
is seen from outside: there is something to do, nothing is waited for, and it is not done.
"""

import asyncio
import faulthandler
import io
import logging
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Hashable, Mapping

logger = logging.getLogger(__name__)

STUCK_SECONDS = 30.0
CHECK_SECONDS = 5.0
BLOCKED_SECONDS = 60.0
EXIT_STUCK = 70  # EX_SOFTWARE of sysexits.h

Pending = Mapping[Hashable, int]


class Watchdog:
    """Ends the process when the same thing is pending for `stuck_seconds`.

    pending() names what is to be done: a place, and what stands first there. While a server is away
    it may raise one of `away`; that is nobody's fault and starts the clock anew, as does an empty
    answer. Whatever else it raises for so long is a reason, too. A thread beside it sees to it that
    a blocked event loop is found.
    """

    def __init__(
        self,
        pending: Callable[[], Awaitable[Pending]],
        *,
        away: tuple[type[Exception], ...] = (),
        stuck_seconds: float = STUCK_SECONDS,
        check_seconds: float = CHECK_SECONDS,
        blocked_seconds: float = BLOCKED_SECONDS,
        end: Callable[[str], None] | None = None,
    ) -> None:
        self._pending, self._away = pending, away
        self._stuck_seconds, self._check_seconds = stuck_seconds, check_seconds
        self._blocked_seconds = blocked_seconds
        self._end = end or end_process
        self._since: dict[tuple[Hashable, int], float] = {}
        self._beat = time.monotonic()
        self._over = threading.Event()

    async def run(self) -> None:
        """Watch until cancelled."""
        guard = threading.Thread(target=self._guard, name="watchdog", daemon=True)
        guard.start()
        try:
            while True:
                self._beat = time.monotonic()
                await asyncio.sleep(self._check_seconds)
                await self._check()
        finally:
            self._over.set()

    async def _check(self) -> None:
        try:
            pending = dict(await self._pending())
        except self._away as error:
            logger.info("the watchdog can't tell while a server is away: %r", error)
            pending = {}
        except Exception as error:
            logger.exception("the watchdog can't tell")
            pending = {repr(error): 0}
        now = time.monotonic()
        self._since = {item: self._since.get(item, now) for item in pending.items()}
        stuck = {
            item: now - since
            for item, since in self._since.items()
            if now - since >= self._stuck_seconds
        }
        if stuck:
            self._end(f"nothing moves although there is work: {stuck}")

    def _guard(self) -> None:
        while not self._over.wait(self._check_seconds):
            silent = time.monotonic() - self._beat
            if silent > self._blocked_seconds:
                self._end(f"the watchdog has not come to its turn for {silent:.0f} s")
                return


def end_process(reason: str) -> None:
    """Say why, show where every task and thread stands, and exit with status 70."""
    logger.critical("%s", reason)
    try:
        tasks = asyncio.all_tasks()
    except RuntimeError:
        tasks = set()  # called from the guard's thread; the threads' stacks say enough
    for task in tasks:
        stack = io.StringIO()
        task.print_stack(file=stack)
        print(stack.getvalue(), file=sys.stderr)
    faulthandler.dump_traceback(all_threads=True)
    sys.stderr.flush()
    os._exit(EXIT_STUCK)
