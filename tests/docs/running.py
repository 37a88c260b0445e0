"""A stack that `weir demo --keep` runs, and the code blocks of a document run against it."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.docs.documents import ROOT, Block, blocks, name_of

DEMO_GOES_ON = "The stack goes on until Ctrl-C."
IS_READY = "Weir is ready on "


class Stack:
    """A `weir` command that keeps a stack running in a process of its own.

    said: what it printed until the line that says so.
    """

    def __init__(self, data: Path, running: "subprocess.Popen[str]", ready: str) -> None:
        self.data, self._running = data, running
        assert running.stdout is not None
        lines = []
        for line in running.stdout:
            lines.append(line)
            if line.startswith(ready):
                break
        self.said = "".join(lines)
        assert ready in self.said, f"it failed: {self.said}{running.communicate()[1]}"

    def stop(self) -> None:
        """Ctrl-C, and a clean end."""
        if self._running.returncode is None:
            self._running.send_signal(signal.SIGINT)
            _, errors = self._running.communicate(timeout=120)
            assert (self._running.returncode, errors) == (0, "")


def environment(**more: str) -> dict[str, str]:
    """This process's environment, with our packages and without settings of Weir."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("WEIR_", "KAFKA_"))}
    return {**kept, "PYTHONPATH": str(ROOT), **more}


@contextmanager
def weir(*words: str, data: Path, ready: str) -> Iterator[Stack]:
    """A `weir` command as a person starts it, ended as a person ends it."""
    with subprocess.Popen(
        [sys.executable, "-m", "infra.cli", *words, "--data", str(data)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # The receivers of webhooks in the documents are on this machine.
        env=environment(WEIR_EGRESS_ALLOW="127.0.0.0/8"),
        text=True,
    ) as running:
        try:
            stack = Stack(data, running, ready)
            yield stack
            stack.stop()
        finally:
            # Its parts end with it, however it ends.
            running.kill()


def script(path: Path) -> str:
    """The blocks of a document as one shell script; the Python among them as documents in it."""
    lines = ["set -euo pipefail"]
    for block in blocks(path):
        if block.runs:
            lines += [f"echo '>>> {name_of(path)}:{block.line}' >&2", _shell(block)]
    return "\n".join(lines)


def _shell(block: Block) -> str:
    return (
        f"python3 - <<'END_OF_BLOCK'\n{block.text}END_OF_BLOCK"
        if (block.language == "python")
        else block.text
    )


def run(path: Path, folder: Path, data: Path) -> "subprocess.CompletedProcess[str]":
    """Run a document's blocks in `folder`, where `data` is the folder of a running stack."""
    tools = folder / "bin"
    tools.mkdir()
    python = shlex.quote(sys.executable)
    commands = {"weir": f"{python} -m infra.cli", "python3": python}
    if shutil.which("curl") is None:
        commands["curl"] = f"{python} -m tests.docs.curl"
    for name, command in commands.items():
        tool = tools / name
        tool.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        tool.chmod(0o755)
    (folder / "data").symlink_to(data)
    return subprocess.run(
        ["bash", "-c", script(path)],
        cwd=folder,
        env=environment(PATH=f"{tools}:{os.environ['PATH']}"),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
