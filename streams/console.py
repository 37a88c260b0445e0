"""What the commands that read the log show: a bar while they work, then a sentence."""

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streams.audit_verification import ChainReport
    from streams.rebuild_report import Report

Advance = Callable[[int, int, str], None]


def describe_report(report: "Report") -> list[str]:
    """What a rebuild found and did, for a person."""
    rows = f"{report.rebuilt.rows:,} rows, content {report.rebuilt.content}"
    told = f"{report.events:,} events in {report.seconds:.1f} s"
    if report.agree:
        return [f"{report.view}: the rebuilt table agrees with the live one ({rows}; {told})"]
    count, most = len(report.differences), "" if len(report.differences) < 10 else " or more"
    live = f"{report.live.rows:,} rows, content {report.live.content}"
    lines = [
        f"{report.view}: {count}{most} differences ({told})",
        f"  live    {live}",
        f"  rebuilt {rows}",
    ]
    for item in report.differences:
        key = " ".join(f"{name}={value}" for name, value in item.key.items())
        line = f"{item.table} {key}: {item.kind} {', '.join(item.columns)}"
        lines.append(f"  {line.strip()}")
    if report.kept == "live":
        return [*lines, "the live table was kept, the rebuilt one is gone"]
    return [*lines, f"the rebuilt table is live now, the former one is kept as {report.aside}"]


def describe_chain(chain: "ChainReport") -> str:
    """One line: whether a tenant's chain holds, and where it breaks."""
    held = f"{chain.tenant}: {chain.records:,} records hold"
    if chain.first not in (None, 1):
        held += f", from record {chain.first} on (what came before is not there)"
    if chain.broken is not None:
        at = f" at {chain.broken.position}" if chain.broken.position else ""
        return (
            f"{held}, then it BREAKS at record {chain.broken.seq}{at}: "
            f"{chain.broken.fault.replace('_', ' ')}: {chain.broken.message}"
        )
    return f"{held}, head {chain.head.seq}:{chain.head.hash}" if chain.head else held


@contextlib.contextmanager
def progress(what: str) -> Iterator[Advance]:
    """A bar with count, rate and time left on a terminal; nothing elsewhere.

    Yields advance(passed, total, note).
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda passed, total, note: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        Remaining(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(what, total=None, note="", rate="")

        def advance(passed: int, total: int, note: str) -> None:
            speed = bar.tasks[0].speed
            rate = f"{speed:,.0f}/s" if speed else ""
            bar.update(task, completed=passed, total=total, note=note, rate=rate)

        yield advance
