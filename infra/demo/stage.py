"""What a person sees of the demo, and how a step fails."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn


class DemoFailed(Exception):
    """A step did not do what it promises; one line for a person."""


class Stage:
    """The steps as they pass: a bar on a terminal, nothing elsewhere.

    `step` yields a function that takes the step's result, a few words that stay on the screen.
    """

    def __init__(self, console: Console, steps: int) -> None:
        self._console = console
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("", total=steps)

    def __enter__(self) -> "Stage":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    @contextmanager
    def step(self, title: str) -> Iterator[list[str]]:
        """One step: show it while the block runs, and leave a line with what the block reports."""
        self._progress.update(self._task, description=title)
        said: list[str] = []
        began = time.monotonic()
        try:
            yield said
        except DemoFailed as error:
            raise DemoFailed(f"{title}: {error}") from error
        took = time.monotonic() - began
        self._progress.advance(self._task)
        if self._console.is_terminal:
            line = f"[green]✓[/] [bold]{title}[/] [dim]{took:.1f} s[/]"
            self._console.print("\n  [dim]·[/] ".join([line, *said]), highlight=False)


def expect(found: object, wanted: object, what: str) -> None:
    """Hold a step to its promise. Raises DemoFailed."""
    if found != wanted:
        raise DemoFailed(f"{what} should be {wanted!r}, but is {found!r}")
