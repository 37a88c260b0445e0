"""Keeps parts running: one thread each, which starts the part, waits for its end, starts it anew.

The thread that starts a process lives as long as the process does, because the kernel ties the
process's life to that thread's (see launch.py). A part that dies is restarted for ever, with a
growing pause; only a part that never became ready makes its start fail.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path

import psutil

from infra.embedded.part import Part, PartFailed
from infra.readiness import VARIABLE as READY_VARIABLE

STUB = Path(__file__).with_name("launch.py")
PROBE_SECONDS = 0.05
PAUSES_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
# A part that has served this long before it died is restarted without a pause.
STEADY_SECONDS = 30.0
FIRST_ATTEMPTS = 3
LOG_BYTES_MAX = 16 * 1024 * 1024


class State(Enum):
    """Where a part is in its life."""

    HALTED = "halted"
    STARTING = "starting"
    READY = "ready"
    WAITING = "waiting to be restarted"
    FAILED = "failed"


class Supervised:
    """One part, its process and the thread that watches over it. All methods are thread-safe."""

    def __init__(
        self,
        part: Part,
        log: Path,
        environment: Mapping[str, str],
        report: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.part = part
        self.log = log
        self.restarts = 0
        self._environment = dict(environment)
        self._report = report
        self._changed = threading.Condition()
        self._state = State.HALTED
        self._failure = ""
        self._wanted = False
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None

    @property
    def state(self) -> State:
        return self._state

    @property
    def pid(self) -> int | None:
        """The process's id while it runs."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    def start(self) -> None:
        """Begin to run the part; returns at once. Does nothing when it is running already."""
        with self._changed:
            if self._wanted:
                return
            self._wanted = True
            self._failure = ""
            self._state = State.STARTING
            previous = self._thread
        if previous is not None:
            previous.join()
        self._thread = threading.Thread(
            target=self._watch, name=f"watch-{self.part.name}", daemon=True
        )
        self._thread.start()

    def wait_ready(self, timeout_seconds: float | None = None) -> None:
        """Return when the part serves. Raises PartFailed when it failed, was halted or is late."""
        limit = self.part.start_seconds if timeout_seconds is None else timeout_seconds
        with self._changed:
            self._changed.wait_for(
                lambda: self._state in (State.READY, State.FAILED, State.HALTED), limit
            )
            if self._state is not State.READY:
                reason = self._failure or f"{self._state.value} after {limit:.0f} s"
                raise PartFailed(f"{self.part.name} is not up: {reason}")

    def halt(self) -> None:
        """End the part cleanly, by force when it is late, and leave it down. Blocks until it is."""
        with self._changed:
            self._wanted = False
            self._changed.notify_all()
            process = self._process
        if process is not None:
            self._end(process)
        if self._thread is not None:
            self._thread.join()

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal that ends the process, and return when the process is gone.

        The supervisor starts it again by itself; `wait_ready` waits for that. Raises PartFailed
        when nothing runs.
        """
        with self._changed:
            process = self._process
            if process is None or process.returncode is not None:
                raise PartFailed(f"{self.part.name} does not run")
            process.send_signal(number)
            self._changed.wait_for(lambda: self._process is not process)

    def pause(self) -> None:
        """Freeze the part and all its children (SIGSTOP)."""
        self._freeze(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen part go on (SIGCONT)."""
        self._freeze(signal.SIGCONT)

    def _freeze(self, number: signal.Signals) -> None:
        pid = self.pid
        if pid is None:
            raise PartFailed(f"{self.part.name} does not run")
        _signal_family(pid, number)

    def log_tail(self, lines: int = 5) -> str:
        """The last lines that the part wrote."""
        try:
            with self.log.open("rb") as handle:
                handle.seek(max(0, self.log.stat().st_size - 8192))
                return "\n".join(handle.read().decode(errors="replace").splitlines()[-lines:])
        except OSError:
            return ""

    # The watching thread.

    def _watch(self) -> None:
        attempt = 0
        ever_ready = False
        while True:
            began = time.monotonic()
            problem = self._run_once()
            ever_ready = ever_ready or problem is None
            with self._changed:
                if not self._wanted:
                    self._set(State.HALTED)
                    return
                if time.monotonic() - began > STEADY_SECONDS:
                    attempt = 0
                if not ever_ready and attempt + 1 >= FIRST_ATTEMPTS:
                    self._failure = problem or ""
                    self._wanted = False
                    self._set(State.FAILED)
                    return
                self._set(State.WAITING)
                pause = PAUSES_SECONDS[min(attempt, len(PAUSES_SECONDS) - 1)]
                if self._changed.wait_for(lambda: not self._wanted, pause):
                    self._set(State.HALTED)
                    return
                attempt += 1
                self.restarts += 1
                self._set(State.STARTING)
            self._report(
                f"{self.part.name} ended ({problem or 'it had been ready'}); starting it again"
            )

    def _run_once(self) -> str | None:
        """One life of the process. None when it was ready once, else what went wrong."""
        try:
            self.part.prepare()
            process, readiness = self._spawn()
        except (PartFailed, OSError) as error:
            return str(error)
        except Exception as error:
            # A bug in a part must not end this thread: whoever waits for the part would hang.
            return f"{type(error).__name__}: {error}"
        try:
            was_ready = self._until_ready(process, readiness)
            # A process that is late is ended, so that its successor has a chance.
            if not was_ready and process.poll() is None:
                self._end(process)
            process.wait()
        finally:
            os.close(readiness)
            _kill_group(process.pid)
            with self._changed:
                self._process = None
                self._set(State.WAITING)
        if was_ready:
            return None
        tail = self.log_tail(1)
        return f"it ended with {_status(process.returncode)}; its log ends: {tail}"

    def _spawn(self) -> tuple[subprocess.Popen[bytes], int]:
        """Start the process in a group of its own; also the reading end of its readiness pipe."""
        launch = self.part.launch()
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES_MAX:
            self.log.replace(self.log.with_suffix(".log.1"))
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        user = "-" if launch.user is None else f"{launch.user[0]}:{launch.user[1]}"
        try:
            with self.log.open("ab") as output, self._changed:
                if not self._wanted:
                    raise PartFailed("halted before it started")
                self._process = subprocess.Popen(
                    [
                        *(sys.executable, "-I", "-S", str(STUB), str(os.getpid()), user, "--"),
                        *launch.command,
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=launch.folder,
                    env={**self._environment, **launch.environment, READY_VARIABLE: str(writing)},
                    pass_fds=(writing,),
                    start_new_session=True,
                )
                return self._process, reading
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)

    def _until_ready(self, process: subprocess.Popen[bytes], readiness: int) -> bool:
        """Probe until the part serves, ends, is late or is no longer wanted."""
        deadline = time.monotonic() + self.part.start_seconds
        announced = b""
        while self._wanted and process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(BlockingIOError):
                announced += os.read(readiness, 4096)
            if self.part.is_ready(frozenset(announced.decode().split())):
                with self._changed:
                    self._set(State.READY)
                return True
            with self._changed:
                self._changed.wait_for(lambda: not self._wanted, PROBE_SECONDS)
        return False

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """Signal a clean end and wait for it; kill the whole group when it is late."""
        _signal_family(process.pid, signal.SIGCONT)
        process.send_signal(self.part.stop_signal)
        try:
            process.wait(self.part.stop_seconds)
        except subprocess.TimeoutExpired:
            self._report(f"{self.part.name} did not end in {self.part.stop_seconds:.0f} s: killed")
            _kill_group(process.pid)
            process.kill()
            process.wait()

    def _set(self, state: State) -> None:
        self._state = state
        self._changed.notify_all()


def _signal_family(pid: int, number: signal.Signals) -> None:
    """Signal a process and all its descendants, which may lead groups of their own."""
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)


def _kill_group(pid: int) -> None:
    """Kill what is left of the process group that `pid` has led."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _status(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"
