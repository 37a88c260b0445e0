"""What the database part does around the server: users, folders, leftovers."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from infra.embedded.part import PartFailed
from infra.embedded.postgres import kill_leftovers, open_way_to, unprivileged_user


def test_only_root_gives_its_rights_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert unprivileged_user() is None
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    user = unprivileged_user()
    assert user is not None
    assert user[0] != 0


def test_a_root_without_any_other_user_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> None:
        raise KeyError(name)

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr("pwd.getpwnam", unknown)
    with pytest.raises(PartFailed, match="no user `postgres` or `nobody`"):
        unprivileged_user()


def test_the_way_to_a_folder_is_opened_for_passing_only(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    target = closed / "target"
    target.mkdir(parents=True)
    closed.chmod(0o700)
    target.chmod(0o700)
    open_way_to(target)
    assert closed.stat().st_mode & 0o777 == 0o701
    assert target.stat().st_mode & 0o777 == 0o700


def test_backends_of_a_dead_server_are_killed_and_nobody_else(tmp_path: Path) -> None:
    """A backend is known by its name and its working folder: here a program of that name."""
    program = tmp_path / "postgres"
    shutil.copy(shutil.which("sleep") or "/bin/sleep", program)
    for folder in ("ours", "theirs"):
        (tmp_path / folder).mkdir()

    def start(command: list[str], folder: str) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(command, cwd=tmp_path / folder)

    leftover = start([str(program), "60"], "ours")
    neighbour = start([str(program), "60"], "theirs")
    waits = "import threading; threading.Event().wait()"
    bystander = start([sys.executable, "-c", waits], "ours")
    try:
        kill_leftovers(tmp_path / "ours")
        leftover.wait(10)
        assert not psutil.pid_exists(leftover.pid)
        assert psutil.Process(neighbour.pid).is_running()
        assert psutil.Process(bystander.pid).is_running()
    finally:
        for process in (leftover, neighbour, bystander):
            process.kill()
            process.wait()
