"""Roles in processes of their own on the session's servers, as an operator runs them."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import psutil

from infra.config import Settings
from infra.readiness import VARIABLE

READY_SECONDS = 90.0


class RoleProcess:
    """`weir run ROLES` in a process; ended with the block, however it stands then.

    failpoint: where it dies or freezes, as infra.failpoints has it.
    """

    def __init__(self, settings: Settings, roles: Sequence[str], failpoint: str = "") -> None:
        self._settings, self._roles, self._failpoint = settings, tuple(roles), failpoint
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the block
        self.ready = threading.Event()

    def __enter__(self) -> Self:
        reading, writing = os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "infra.cli", "run", *self._roles],
            env={
                **os.environ,
                **self._settings.to_env(),
                VARIABLE: str(writing),
                "WEIR_FAILPOINT": self._failpoint,
            },
            pass_fds=(writing,),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        os.close(writing)
        self._listening = threading.Thread(target=self._listen, args=(reading,))
        self._listening.start()
        return self

    def _listen(self, reading: int) -> None:
        """Set `ready` when every role has announced itself; ends with the process at the latest."""
        waiting = set(self._roles)
        with os.fdopen(reading) as pipe:
            for line in pipe:
                waiting.discard(line.strip())
                if not waiting:
                    self.ready.set()

    def wait_ready(self) -> None:
        """Return once all roles serve. Raises AssertionError with the log's end if they don't."""
        assert self.ready.wait(READY_SECONDS), f"{self._roles} do not serve: {self.said()}"

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def is_frozen(self) -> bool:
        """Whether it stands still. Raises AssertionError when it has ended."""
        assert self.process.poll() is None, f"{self._roles} ended: {self.said()}"
        return bool(psutil.Process(self.process.pid).status() == psutil.STATUS_STOPPED)

    def said(self, characters: int = 4000) -> str:
        """The end of what it has logged."""
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - characters))
        return self._log.read().decode(errors="replace")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if error is not None:
            print(f"{'+'.join(self._roles)} said:\n{self.said()}")
        self._listening.join()
        self._log.close()
