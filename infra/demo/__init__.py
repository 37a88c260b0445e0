"""`weir demo`: the main job on real servers, from an agent's run to a verified replay.

A script over HTTP and the `weir` command, as any client could write it. Every step checks what it
got; the first that is disappointed ends the demo with one line and a non-zero exit.
"""

import asyncio
import contextlib
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import httpx
from rich.console import Console

from infra.bootstrap import Credentials, Provision
from infra.clock import SYSTEM_CLOCK
from infra.demo import approving, encrypting, metering, observing, proving
from infra.demo.scene import Scene
from infra.demo.stage import DemoFailed, Stage
from infra.embedded.data_folder import DataFolder
from infra.embedded.ports import free_port
from infra.up import Stopped, started, stopping_on_signals

STEPS: tuple[tuple[str, Callable[[Scene], Awaitable[list[str]]]], ...] = (
    ("An agent reports a run, and what it cost is known at once", observing.report),
    ("An agent asks before it acts, a person answers", approving.ask_and_answer),
    ("Usage is metered, a budget is reached", metering.use_and_reach_a_budget),
    ("The server computes on numbers that it cannot read", encrypting.compute),
    ("Everything decided or refused is on the audit trail", proving.list_the_trail),
    ("The trail is proved from the log", proving.verify),
    ("The log is replayed into files", proving.replay),
)


def demo(data: Path | None, keep: bool, provision: Provision) -> None:
    """Run the demo on a stack of its own and print a summary.

    data: the folder of the stack, a temporary one when None. keep: leave the stack running until
    Ctrl-C. Raises DemoFailed when a step is disappointed, KeyboardInterrupt when it is stopped
    before the end, and as `infra.up.started` does.
    """
    passed = False
    try:
        with (
            stopping_on_signals(),
            _folder(data) as folder,
            started(folder, _port(folder), provision) as (stack, credentials),
        ):
            try:
                asyncio.run(play(credentials, folder))
            except DemoFailed as error:
                raise DemoFailed(f"{error} (logs: {stack.folder.logs})") from error
            _summary(credentials, folder, keep, kept=data is not None)
            passed = True
            if keep:
                threading.Event().wait()
    except Stopped:
        # Stopping what goes on is how a kept stack ends; an interrupted demo has shown nothing.
        if not passed:
            raise KeyboardInterrupt from None


async def play(credentials: Credentials, data: Path) -> None:
    """The steps, on any running installation. Raises DemoFailed."""
    console = Console(stderr=True)
    async with httpx.AsyncClient(base_url=credentials.url, timeout=90) as client:
        scene = Scene(client, credentials, data, SYSTEM_CLOCK)
        with Stage(console, len(STEPS)) as stage:
            for title, step in STEPS:
                with stage.step(title) as said:
                    said.extend(await step(scene))


@contextlib.contextmanager
def _folder(data: Path | None) -> Iterator[Path]:
    """The folder to use; a temporary one goes when all is well, and stays for who must look."""
    if data is not None:
        yield data
        return
    folder = Path(tempfile.mkdtemp(prefix="weir-demo-"))
    try:
        yield folder
    except Stopped:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


def _port(folder: Path) -> int | None:
    """A port of its own, so that demos start side by side; what a folder remembers stays."""
    return None if DataFolder(folder).remembers else free_port()


def _command() -> str:
    """How to call `weir` here: it need not be on the path, `make demo` calls it by its place."""
    beside = Path(sys.executable).with_name("weir")
    if shutil.which("weir") or not beside.exists():
        return "weir"
    return os.path.relpath(beside)


def _summary(credentials: Credentials, data: Path, keep: bool, kept: bool) -> None:
    url, weir = credentials.url, _command()
    lines = [
        f"All {len(STEPS)} steps held.",
        "",
        f"  API              {url}",
        f"  documentation    {url}/docs",
        f"  event schemas    {url}/schema-registry/subjects",
        f"  metrics          {url}/metrics",
        f"  Kafka            {credentials.kafka}",
    ]
    if keep:
        lines += [
            f"  keys and token   {data / 'credentials.json'}",
            "",
            "The stack goes on until Ctrl-C. In another terminal:",
            f"  {weir} tail audit --from-beginning --data {data}",
            f"  {weir} export events -o events.parquet --data {data}",
            f"  {weir} keys list --data {data}",
        ]
    elif kept:
        lines += ["", "The stack stops now; to go on with its data:", f"  {weir} up --data {data}"]
    else:
        lines += [
            "",
            "The stack stops now. To look around, or to begin your own:",
            f"  {weir} demo --keep",
            f"  {weir} up --data data",
        ]
    Console().print("\n".join(lines), highlight=False, soft_wrap=True)
