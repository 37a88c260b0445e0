"""The README's commands in a clone of what is committed: nothing depends on this checkout."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.documents import ROOT, commands
from tests.docs.running import environment


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of the last commit."""
    folder = tmp_path_factory.mktemp("clone") / "weir"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    return folder


def test_every_make_command_of_the_readme_has_a_recipe(clone: Path) -> None:
    lines = [line for line in commands(ROOT / "README.md") if line.startswith("make ")]
    assert {line.split("#")[0].strip() for line in lines} >= {"make demo", "make test"}
    for line in lines:
        words = line.split("#")[0].split()
        done = subprocess.run(
            [words[0], "--dry-run", *words[1:]],
            cwd=clone,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "infra.build.install" in done.stdout, f"{line} does not install first"


def test_the_installer_loads_without_any_package(clone: Path) -> None:
    """`make install` is run by the machine's own Python, which has nothing of ours."""
    code = "import infra.build.install as i, infra.build.pyfhel; print(i.stamp())"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, '.'); {code}"],
        cwd=clone,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"[0-9a-f]{64}\n", done.stdout)


def test_a_clone_has_every_schema_that_it_writes_with(clone: Path) -> None:
    """What is generated is committed: nothing has to be made before a record can be written."""
    code = "from streams.runtime import codec; print(len(codec().schemas))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=clone,
        env=environment(PYTHONPATH=str(clone)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 50


def test_weir_runs_from_the_clone(clone: Path) -> None:
    """The command line composes from committed files alone, generated ones included."""
    for words in (["--help"], ["demo", "--help"], ["openapi"]):
        done = subprocess.run(
            [sys.executable, "-m", "infra.cli", *words],
            cwd=clone,
            env=environment(PYTHONPATH=str(clone)),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout
    assert '"openapi"' in done.stdout
