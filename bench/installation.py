"""A whole installation as a user starts it: `python -m bench.installation [SECONDS]`.

How long `weir up` takes on a new folder (cold: databases made, the broker's storage formatted,
topics created, the first tenant provisioned) and on the same folder again (warm), what the parts
occupy in memory when nothing happens, and a check-in over HTTP, all through real processes.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import uvloop

from bench.figure import Figure
from bench.load import load, post

START_SECONDS_MAX = 180.0
REST_SECONDS = 10.0
CONNECTIONS = (1, 32)
_POLICIES = {
    "default_action": "require_approval",
    "timeout_minutes": 30,
    "timeout_action": "cancel",
    "rules": [],
}
_ASK = {
    "action": "pay_invoice",
    "description": "Pay the invoice of a known vendor",
    "risk_level": "medium",
    "context": {"amount": 1250, "currency": "EUR", "invoice": "INV-2026-118", "vendor": "Acme"},
}


class Memory(NamedTuple):
    """What a part occupies, its children included, in bytes: with what it shares, and with its
    share of what it shares."""

    rss: int
    pss: int

    def __str__(self) -> str:
        return f"RSS {self.rss / 2**20:,.0f} MiB, PSS {self.pss / 2**20:,.0f} MiB"


@contextlib.contextmanager
def installation(
    data: Path, extra: Mapping[str, str] | None = None
) -> Iterator[tuple[psutil.Process, float]]:
    """`weir up` on a folder; yields its process and the seconds until its ready line.

    extra: settings, by the name of their variable.
    """
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "infra.cli", "up", "--data", str(data)],
        # The limit per key would be what is measured, else.
        env={**os.environ, "WEIR_RATE_LIMIT_PER_MINUTE": "0", **(extra or {})},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        readable, _, _ = select.select([process.stdout], [], [], START_SECONDS_MAX)
        line = process.stdout.readline() if readable else ""
        if not line.startswith("Weir is ready"):
            raise RuntimeError(f"weir up did not come up: {line.strip() or 'it said nothing'}")
        yield psutil.Process(process.pid), time.perf_counter() - began
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def memory(root: psutil.Process) -> dict[str, Memory]:
    """What each part of a running installation occupies."""
    found = {"weir up (the supervisor)": _occupied([root])}
    for part in root.children():
        found[_name(part)] = _occupied([part, *part.children(recursive=True)])
    return found


def part_of(root: psutil.Process, role: str) -> psutil.Process:
    """The process of a running installation that has this role."""
    return next(part for part in root.children() if role in _name(part).split("+"))


def _name(part: psutil.Process) -> str:
    words = part.cmdline()
    if "run" in words:
        return "+".join(words[words.index("run") + 1 :])
    return "kafka" if any("kafka" in word for word in words) else "postgres"


def _occupied(processes: list[psutil.Process]) -> Memory:
    rss = pss = 0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            full = process.memory_full_info()
            rss, pss = rss + full.rss, pss + full.pss
    return Memory(rss, pss)


def check_ins(data: Path, seconds: float) -> list[Figure]:
    """A check-in over HTTP, with one agent waiting for its answer and with many."""
    known = json.loads((data / "credentials.json").read_text())
    token = known["admin_token"]
    room = {"name": "Payments", "slug": f"payments-{time.time_ns()}"}
    _request(known["url"], token, "POST", "/v1/rooms", room)
    path = f"/v1/rooms/{room['slug']}"
    _request(known["url"], token, "PUT", f"{path}/policies", {"policies": _POLICIES})
    key = f"Bearer {known['agent_key']}"
    ask = post(f"{path}/check-in", json.dumps(_ASK).encode(), Authorization=key)
    port = int(known["url"].rpartition(":")[2])
    figures = []
    uvloop.run(load(port, [ask] * 32, 2))
    for connections in CONNECTIONS:
        found = uvloop.run(load(port, [ask] * connections, seconds))
        figures.append(
            Figure(
                name=f"check-in over HTTP, {connections} in flight",
                bare="",
                ours=f"p50 {found.p50:.1f} ms, p99 {found.p99:.1f} ms, "
                f"{found.requests_per_second:,.0f}/s",
            )
        )
    return figures


def _request(url: str, token: str, method: str, path: str, body: Any) -> None:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    request = urllib.request.Request(url + path, json.dumps(body).encode(), headers, method=method)
    with urllib.request.urlopen(request, timeout=30):
        pass


def figures(seconds: float) -> list[Figure]:
    """Everything this module measures, on an installation of its own."""
    with tempfile.TemporaryDirectory(prefix="weir-bench-") as folder:
        data = Path(folder, "data")
        with installation(data) as (_, cold):
            pass
        with installation(data) as (root, warm):
            time.sleep(REST_SECONDS)  # at rest is what it is after a while without work
            parts = memory(root)
            over_http = check_ins(data, seconds)
    total = Memory(*(sum(column) for column in zip(*parts.values(), strict=True)))
    found = [
        Figure("start, cold", "", f"{cold:.1f} s"),
        Figure("start, warm", "", f"{warm:.1f} s"),
        *(Figure(f"memory at rest, {name}", "", str(part)) for name, part in parts.items()),
        Figure("memory at rest, all parts", "", str(total)),
        *over_http,
    ]
    for figure in found:
        print(figure.line(), flush=True)
    return found


if __name__ == "__main__":
    figures(float(sys.argv[1]) if len(sys.argv) > 1 else 4.0)
