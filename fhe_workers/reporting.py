"""Reports of jobs that end at about the same time travel together: a send costs more than a report.

A report waits only while other jobs are under way that may end soon, and never longer than
`_LINGER_SECONDS`; that of a job alone goes at once.
"""

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from infra.kafka import LogUnavailable
from streams.bus import CommandRequest

_LINGER_SECONDS = 0.025
_TOGETHER_MAX = 64


class Reports(Protocol):
    """The way to the deciders, as much as a worker needs."""

    async def post_many(self, requests: Sequence[CommandRequest]) -> None:
        """Return when the log has the commands. Raises LogUnavailable; then it may have some."""
        ...


class _Waiting(NamedTuple):
    request: CommandRequest
    sent: "asyncio.Future[None]"


class Reporter:
    """Gathers the reports of one worker."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports
        self._waiting: list[_Waiting] = []
        self._unreported = 0
        self._late: asyncio.TimerHandle | None = None
        self._sending: set[asyncio.Task[None]] = set()

    @contextlib.contextmanager
    def expecting(self) -> Iterator[None]:
        """A job is under way: others' reports may wait for its own, or for its end without one."""
        self._unreported += 1
        try:
            yield
        finally:
            self._unreported -= 1
            self._send_if_complete()

    async def post(self, request: CommandRequest) -> None:
        """Return when the log has the command; to be called while its job is `expecting`.

        Raises LogUnavailable; then the log may have it, or get it later.
        """
        loop = asyncio.get_running_loop()
        mine = _Waiting(request, loop.create_future())
        self._waiting.append(mine)
        if self._late is None:
            self._late = loop.call_later(_LINGER_SECONDS, self._send)
        self._unreported -= 1
        try:
            self._send_if_complete()
            await mine.sent
        finally:
            self._unreported += 1

    def _send_if_complete(self) -> None:
        if self._waiting and (self._unreported == 0 or len(self._waiting) >= _TOGETHER_MAX):
            self._send()

    def _send(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
        # Nobody waits any more for the report of a job that was cancelled.
        together = [waiting for waiting in self._waiting if not waiting.sent.done()]
        self._waiting = []
        if not together:
            return
        task = asyncio.create_task(self._post(together))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _post(self, together: list[_Waiting]) -> None:
        failure: Exception | None = None
        try:
            await self._reports.post_many([waiting.request for waiting in together])
        except Exception as error:
            failure = error
        for waiting in together:
            if waiting.sent.done():
                continue
            if failure is None:
                waiting.sent.set_result(None)
            else:
                waiting.sent.set_exception(_again(failure))


def _again(failure: Exception) -> Exception:
    """An exception of its own for each waiter: one raised in many tasks mixes their tracebacks."""
    return LogUnavailable(str(failure)) if isinstance(failure, LogUnavailable) else failure
