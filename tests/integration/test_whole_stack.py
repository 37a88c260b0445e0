"""`weir up` with every role: it serves, loses nothing when killed hard, and ends when asked."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import psutil

from infra.doctor import Verdict, check_stack

ROOT = Path(__file__).parents[2]
ROLES = {"api", "analytics", "decider", "scheduler", "streams", "fhe-worker"}


def up(data: Path) -> "subprocess.Popen[str]":
    """`weir up` on a folder, as a person starts it."""
    return subprocess.Popen(
        [sys.executable, "-m", "infra.cli", "up", "--data", str(data)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
    )


def credentials_of(running: "subprocess.Popen[str]", data: Path) -> dict[str, Any]:
    """The credentials, once the ready line has come."""
    assert running.stdout is not None
    line = running.stdout.readline()
    assert line.startswith("Weir is ready on http://"), running.communicate(timeout=60)
    found: dict[str, Any] = json.loads((data / "credentials.json").read_text())
    return found


def family_of(running: "subprocess.Popen[str]") -> list[psutil.Process]:
    return psutil.Process(running.pid).children(recursive=True)


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that are not gone after a while; what init has yet to reap is gone."""
    _, left = psutil.wait_procs(processes, timeout=30)
    return [process for process in left if process.status() != psutil.STATUS_ZOMBIE]


def test_the_whole_stack_starts_survives_a_hard_kill_and_ends(tmp_path: Path) -> None:
    with up(tmp_path) as running:
        try:
            credentials = credentials_of(running, tmp_path)
            family = family_of(running)
            played = {word for process in family for word in process.cmdline() if word in ROLES}
            assert played == ROLES
            with httpx.Client(base_url=credentials["url"], timeout=30) as client:
                assert client.get("/health/ready").json()["status"] == "ready"
                assert {finding.verdict for finding in check_stack(tmp_path)} == {Verdict.OK}
                token = {"Authorization": f"Bearer {credentials['admin_token']}"}
                me = client.get("/api/v1/auth/me", headers=token)
                assert me.status_code == 200
        finally:
            running.kill()
            running.wait()
    assert alive(family) == []

    with up(tmp_path) as running:
        try:
            again = credentials_of(running, tmp_path)
            family = family_of(running)
            assert {**again, "admin_token": ""} == {**credentials, "admin_token": ""}
            with httpx.Client(base_url=again["url"], timeout=30) as client:
                assert client.get("/api/v1/auth/me", headers=token).json() == me.json()
            running.send_signal(signal.SIGTERM)
            _, errors = running.communicate(timeout=120)
            assert (running.returncode, errors) == (0, "")
        finally:
            running.kill()
            running.wait()
    assert alive(family) == []
