"""Several roles in one process start, fail and stop as one."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from infra import readiness, roles
from infra.roles import ROLES, RoleError, find_role, run_roles
from tests.infra import fake_roles
from tests.infra.test_config import ENVIRON, load_settings

SETTINGS = load_settings(ENVIRON)


@pytest.fixture(autouse=True)
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_roles.stopped.clear()
    for name in ("steady", "failing", "leaving", "stubborn"):
        monkeypatch.setitem(ROLES, name, f"tests.infra.fake_roles:{name}")


@pytest.fixture
def announced(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The reading end of a readiness pipe."""
    reading, writing = os.pipe()
    monkeypatch.setenv(readiness.VARIABLE, str(writing))
    yield reading
    os.close(reading)
    os.close(writing)


async def until_announced(reading: int, count: int) -> set[str]:
    """Wait for `count` roles to say that they serve."""
    lines = b""
    while lines.count(b"\n") < count:
        lines += await asyncio.to_thread(os.read, reading, 100)
    return set(lines.decode().split())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_roles_announce_themselves_and_stop_on_a_signal(
    announced: int, number: signal.Signals
) -> None:
    running = asyncio.ensure_future(run_roles(["steady"], SETTINGS))
    assert await until_announced(announced, 1) == {"steady"}
    os.kill(os.getpid(), number)
    await running
    assert fake_roles.stopped == ["steady"]


async def test_a_role_that_fails_ends_the_others_and_is_named() -> None:
    with pytest.raises(RoleError, match="role failing failed: ValueError: the disk is full"):
        await run_roles(["steady", "failing"], SETTINGS)
    assert fake_roles.stopped == ["steady"]


async def test_a_role_that_leaves_unasked_is_an_error() -> None:
    with pytest.raises(RoleError, match="role leaving ended by itself"):
        await run_roles(["steady", "leaving"], SETTINGS)


async def test_a_role_that_does_not_stop_is_cancelled(
    announced: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roles, "STOP_SECONDS", 0.05)
    running = asyncio.ensure_future(run_roles(["stubborn"], SETTINGS))
    await until_announced(announced, 1)
    os.kill(os.getpid(), signal.SIGTERM)
    await running
    assert fake_roles.stopped == ["stubborn"]


def test_what_a_role_leaves_behind_does_not_keep_the_process() -> None:
    program = (
        "from infra import roles\n"
        "from tests.infra.test_roles import SETTINGS\n"
        "roles.END_SECONDS = 0.1\n"
        "roles.ROLES['lingering'] = 'tests.infra.fake_roles:lingering'\n"
        "roles.play(['lingering'], SETTINGS)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], timeout=60, check=False)
    assert done.returncode == roles.EXIT_LATE


def test_announcing_without_a_supervisor_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(readiness.VARIABLE, raising=False)
    readiness.announce("api")
    monkeypatch.setenv(readiness.VARIABLE, "99999")
    readiness.announce("api")
    assert os.environ[readiness.VARIABLE] == "99999"


def test_every_role_names_a_function_that_exists() -> None:
    ours = [name for name in ROLES if not ROLES[name].startswith("tests.")]
    assert ours == ["api", "decider", "analytics", "scheduler", "streams", "fhe-worker"]
    assert all(asyncio.iscoroutinefunction(find_role(name)) for name in ours)
