"""What the supervisor needs to know of a part of the stack: the port between it and the servers."""

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Launch:
    """One process to start: its command, its environment, and the user it must run as.

    `user` is (uid, gid) or None for the supervisor's own.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str]
    folder: Path
    user: tuple[int, int] | None = None


class PartFailed(Exception):
    """A part cannot be prepared or does not start; one line for a person."""


class Part(Protocol):
    """A server or role that runs as one supervised process."""

    @property
    def name(self) -> str:
        """The part's name in commands, log files and errors."""

    @property
    def stop_signal(self) -> signal.Signals:
        """The signal on which it ends cleanly."""

    @property
    def stop_seconds(self) -> float:
        """How long a clean end may take before it is killed."""

    @property
    def start_seconds(self) -> float:
        """How long it may take to be ready before its start counts as failed."""

    def prepare(self) -> None:
        """Make it startable; blocking, called before every start, also after a kill.

        Raises PartFailed when that is impossible.
        """

    def launch(self) -> Launch:
        """The process to start. Called after `prepare`."""

    def is_ready(self, announced: frozenset[str]) -> bool:
        """Whether it serves now; may block for a second at most.

        `announced` are the lines that the process has written to its readiness pipe.
        """


@dataclass(frozen=True)
class ProcessPart:
    """A Python role: ready when it has announced each of its `roles` (see infra.readiness)."""

    name: str
    launched: Launch
    roles: frozenset[str]
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 10.0
    start_seconds: float = 120.0

    def prepare(self) -> None:
        """Nothing to do: a role keeps its state in the servers."""

    def launch(self) -> Launch:
        return self.launched

    def is_ready(self, announced: frozenset[str]) -> bool:
        return self.roles <= announced
