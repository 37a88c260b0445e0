"""A supervised part is started again when it dies, is ended cleanly, and never outlives us.

The parts here are small Python programs, so that each test takes a fraction of a second; the real
servers are in test_stack.py and test_data_folder.py.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from infra.embedded.part import Launch, PartFailed, ProcessPart
from infra.embedded.supervisor import State, Supervised

ROOT = Path(__file__).parents[2]

SERVES = """
import sys, threading
from infra.readiness import announce
print("serving", flush=True)
announce("first"); announce("second")
threading.Event().wait()
"""

IGNORES_SIGTERM = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SERVES

LEAVES_A_CHILD = (
    """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import threading; threading.Event().wait()"])
print("child", child.pid, flush=True)
"""
    + SERVES
)


@dataclass(frozen=True)
class Made:
    """Builds supervised programs in one folder and remembers them for the end of the test."""

    folder: Path
    all: list[Supervised]

    def __call__(self, code: str, **options: float) -> Supervised:
        part = ProcessPart(
            name=f"part{len(self.all)}",
            launched=Launch((sys.executable, "-c", code), {}, self.folder),
            roles=frozenset({"first", "second"}),
            **options,  # type: ignore[arg-type]
        )
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        supervised = Supervised(part, self.folder / f"{part.name}.log", environment)
        self.all.append(supervised)
        return supervised


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Made]:
    made = Made(tmp_path, [])
    yield made
    for supervised in made.all:
        supervised.halt()


def gone(pid: int) -> bool:
    """Wait until a process is dead (a zombie that nobody reaps counts as dead)."""
    try:
        process = psutil.Process(pid)
        psutil.wait_procs([process], timeout=10)
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_part_is_ready_when_it_has_announced_all_its_roles(make: Made) -> None:
    part = make(SERVES)
    part.start()
    part.wait_ready()
    assert part.state is State.READY
    assert part.pid is not None
    assert part.log_tail() == "serving"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_part_that_dies_is_started_again(make: Made, number: signal.Signals) -> None:
    part = make(SERVES)
    part.start()
    part.wait_ready()
    before = part.pid
    part.kill(number)
    part.wait_ready()
    assert part.pid not in (None, before)
    assert part.restarts == 1


def test_a_part_is_started_again_as_often_as_it_dies(make: Made) -> None:
    part = make(SERVES)
    part.start()
    for _ in range(4):
        part.wait_ready()
        part.kill()
    part.wait_ready()
    assert part.restarts == 4


def test_children_of_a_killed_part_die_with_it(make: Made) -> None:
    part = make(LEAVES_A_CHILD)
    part.start()
    part.wait_ready()
    child = int(part.log.read_text().split()[1])
    part.kill()
    assert gone(child)


def test_a_halted_part_ends_and_stays_down(make: Made) -> None:
    part = make(SERVES)
    part.start()
    part.wait_ready()
    pid = part.pid
    part.halt()
    assert part.state is State.HALTED
    assert part.pid is None
    assert pid is not None
    assert gone(pid)
    with pytest.raises(PartFailed, match="does not run"):
        part.kill()


def test_a_halted_part_can_be_started_again(make: Made) -> None:
    part = make(SERVES)
    part.start()
    part.wait_ready()
    part.halt()
    part.start()
    part.wait_ready()
    assert part.restarts == 0


def test_a_part_that_does_not_end_in_time_is_killed(make: Made) -> None:
    part = make(IGNORES_SIGTERM, stop_seconds=0.2)
    part.start()
    part.wait_ready()
    pid = part.pid
    part.halt()
    assert pid is not None
    assert gone(pid)


def test_a_frozen_part_can_be_halted(make: Made) -> None:
    part = make(SERVES)
    part.start()
    part.wait_ready()
    part.pause()
    part.halt()
    assert part.state is State.HALTED


def test_a_part_that_never_serves_fails_with_its_last_line(make: Made) -> None:
    part = make("print('no such database'); raise SystemExit(3)")
    part.start()
    with pytest.raises(PartFailed, match=r"exit code 3.*no such database"):
        part.wait_ready()
    assert part.state is State.FAILED


def test_a_part_that_is_late_is_ended_and_fails(make: Made) -> None:
    part = make("import threading; threading.Event().wait()", start_seconds=0.3)
    part.start()
    with pytest.raises(PartFailed):
        part.wait_ready(20.0)
    assert part.state is State.FAILED
    assert part.pid is None


def test_a_program_that_does_not_exist_fails_with_its_name(tmp_path: Path) -> None:
    part = ProcessPart("ghost", Launch(("/no/such/program",), {}, tmp_path), frozenset({"first"}))
    supervised = Supervised(part, tmp_path / "ghost.log", {})
    supervised.start()
    with pytest.raises(PartFailed, match="cannot run /no/such/program"):
        supervised.wait_ready()
    supervised.halt()


def test_a_part_with_a_bug_fails_and_hangs_nobody(tmp_path: Path) -> None:
    class Broken(ProcessPart):
        def prepare(self) -> None:
            raise ZeroDivisionError("a bug")

    part = Broken("broken", Launch(("true",), {}, tmp_path), frozenset())
    supervised = Supervised(part, tmp_path / "broken.log", {})
    supervised.start()
    with pytest.raises(PartFailed, match="ZeroDivisionError: a bug"):
        supervised.wait_ready()
    supervised.halt()


def test_no_part_outlives_a_supervisor_that_is_killed_hard(tmp_path: Path) -> None:
    code = f"""
import os, sys, threading
from pathlib import Path
from infra.embedded.part import Launch, ProcessPart
from infra.embedded.supervisor import Supervised
folder = Path({str(tmp_path)!r})
part = ProcessPart("part", Launch((sys.executable, "-c", {SERVES!r}), {{}}, folder),
                   frozenset({{"first", "second"}}))
supervised = Supervised(part, folder / "part.log", os.environ)
supervised.start()
supervised.wait_ready()
print(supervised.pid, flush=True)
threading.Event().wait()
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment, text=True
    ) as supervisor:
        assert supervisor.stdout is not None
        pid = int(supervisor.stdout.readline())
        assert psutil.pid_exists(pid)
        supervisor.kill()
        supervisor.wait()
    assert gone(pid)
