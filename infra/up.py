"""`weir up`: the whole stack in the foreground, from the first jar to the ready line."""

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

from rich.console import Console

from infra.bootstrap import Credentials, Provision, prepare, read_credentials, write_credentials
from infra.embedded.jars import ensure_jars, read_lock
from infra.embedded.stack import DEFAULT_ROLES, Stack

PREFERRED_PORT = 8080


class Stopped(BaseException):
    """SIGTERM or Ctrl-C arrived. Not an Exception, so that no handler on the way swallows it."""


@contextlib.contextmanager
def stopping_on_signals() -> Iterator[None]:
    """Turn the first SIGTERM or SIGINT into Stopped; a second one ends the process at once.

    Ending at once is safe: the kernel then kills every part (see infra.embedded.launch).
    """
    seen = 0

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        nonlocal seen
        seen += 1
        if seen > 1:
            os._exit(1)
        raise Stopped

    before = {
        number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Progress:
    """What a person sees while the stack starts; nothing when nobody watches (no terminal)."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._status = self._console.status("starting") if self._console.is_terminal else None

    def __enter__(self) -> "Progress":
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    def step(self, message: str) -> None:
        """Show what goes on now."""
        if self._status is not None:
            self._status.update(message)

    def done(self, message: str) -> None:
        """Leave a line that stays."""
        if self._status is not None:
            self._console.print(f"[green]✓[/] {message}", highlight=False)


def warn(message: str) -> None:
    """Tell the person at the terminal, and whoever keeps our standard error."""
    print(f"weir: {message}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def started(
    data: Path,
    port: int | None,
    provision: Provision,
    roles: Sequence[Sequence[str]] = DEFAULT_ROLES,
) -> Iterator[tuple[Stack, Credentials]]:
    """The whole stack on `data`, with its first tenant, while the block runs; progress is shown.

    Raises DataFolderError, JarError, PartFailed, ConfigError or BootstrapError with one line for a
    person when it cannot start; nothing is left running then.
    """
    with contextlib.ExitStack() as running:
        with Progress() as progress:
            _fetch_jars(progress)

            def report(message: str) -> None:
                (progress.done if message.endswith("ready") else progress.step)(message)

            stack = Stack(
                data,
                roles,
                port=port,
                preferred_port=PREFERRED_PORT,
                after_servers=lambda settings: progress.done(
                    f"topics are ready ({len(asyncio.run(prepare(settings)))} new)"
                ),
                report=report,
                warn=warn,
            )
            running.enter_context(stack)
            progress.step("preparing the first tenant and its keys")
            path = stack.folder.credentials
            credentials = asyncio.run(provision(stack.settings, read_credentials(path)))
            write_credentials(path, credentials)
        yield stack, credentials


def up(
    data: Path,
    port: int | None,
    provision: Provision,
    roles: Sequence[Sequence[str]] = DEFAULT_ROLES,
) -> None:
    """Run the stack on `data` until SIGTERM or Ctrl-C, then stop it cleanly.

    Prints one line on standard output when everything serves. Raises as `started` does.
    """
    with (
        contextlib.suppress(Stopped),
        stopping_on_signals(),
        started(data, port, provision, roles) as (stack, credentials),
    ):
        print(
            f"Weir is ready on {credentials.url} with its keys in {stack.folder.credentials} "
            "(Ctrl-C stops it)",
            flush=True,
        )
        threading.Event().wait()


def _fetch_jars(progress: Progress) -> None:
    """Fetch the broker's jars, the first time on a machine, with a count."""
    total, fetched = len(read_lock()), 0

    def on_jar(name: str) -> None:
        nonlocal fetched
        fetched += 1
        progress.step(f"fetching Kafka ({fetched} of {total}): {name}")

    progress.step("checking Kafka's jars")
    ensure_jars(progress=on_jar)
    progress.done("Kafka's jars are ready")
