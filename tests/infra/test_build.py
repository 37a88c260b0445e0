"""What an installation is made of: locks that pin everything, and steps that repeat for nothing."""

import os
import re
import stat
import subprocess
import tomllib
from pathlib import Path

import pytest

from infra.build import install, pyfhel, tfhe
from infra.build.install import InstallError

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / "infra" / "requirements"
PINNED = ("lock.txt", "runtime.txt", "pyfhel-build.lock", "pyfhel.lock")


def pins(name: str) -> dict[str, set[str]]:
    """Package name -> pinned versions of a lock."""
    found: dict[str, set[str]] = {}
    for package, version in re.findall(
        r"^([A-Za-z0-9._-]+)==([^ \\]+)", (REQUIREMENTS / name).read_text(), re.M
    ):
        found.setdefault(re.sub(r"[-_.]+", "-", package).lower(), set()).add(version)
    return found


@pytest.mark.parametrize("name", PINNED)
def test_every_pin_has_hashes_and_no_lock_names_a_host(name: str) -> None:
    text = (REQUIREMENTS / name).read_text()
    entries = re.split(r"\n(?=[A-Za-z])", re.sub(r"^#.*\n", "", text, flags=re.M).strip())
    assert entries
    assert all("==" in entry and "--hash=sha256:" in entry for entry in entries)
    assert not re.search(r"https?://|--(extra-)?index-url|--find-links", text)


def test_every_declared_dependency_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    declared = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    names = {
        re.sub(r"[-_.]+", "-", re.split(r"[\[<>=;~! ]", entry)[0]).lower() for entry in declared
    }
    assert names - set(pins("lock.txt")) == set()


def test_the_image_has_the_versions_that_are_tested() -> None:
    tested, shipped = pins("lock.txt"), pins("runtime.txt")
    assert {name: tested.get(name) for name in shipped} == shipped
    assert not {"pytest", "ruff", "mypy", "uv"} & set(shipped)


def test_the_stamp_changes_with_a_lock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = install.stamp()
    assert install.stamp() == before
    changed = tmp_path / "lock.txt"
    changed.write_text((REQUIREMENTS / "lock.txt").read_text() + "\n")
    monkeypatch.setattr(install, "LOCK", changed)
    assert install.stamp() != before


def test_a_finished_installation_is_not_repeated(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WEIR_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(install, "VENV", tmp_path / "venv")
    ran: list[list[str]] = []
    monkeypatch.setattr(install, "_run", ran.append)
    monkeypatch.setattr(install, "_pyfhel_wheel", lambda: tmp_path / "pyfhel.whl")
    monkeypatch.setattr(install, "_tfhe_extension", lambda: None)
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "bin" / "python").touch()
    install.install()
    steps = len(ran)
    assert steps > 3
    assert all("--require-hashes" in step for step in ran if "-r" in step)
    install.install()
    assert len(ran) == steps


def test_an_interrupted_installation_is_made_anew(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WEIR_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(install, "VENV", tmp_path / "venv")

    def interrupted(_command: list[str]) -> None:
        raise InstallError("no network")

    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "installed").write_text(install.stamp() + "older")
    monkeypatch.setattr(install, "_run", interrupted)
    monkeypatch.setattr(install, "_pyfhel_wheel", lambda: tmp_path / "pyfhel.whl")
    monkeypatch.setattr(install, "_tfhe_extension", lambda: None)
    with pytest.raises(InstallError):
        install.install()
    assert not (tmp_path / "venv" / "installed").exists()


def test_a_built_wheel_is_found_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WEIR_CACHE_DIR", str(tmp_path))
    assert pyfhel.cached_wheel() is None
    wheel = tmp_path / "pyfhel" / pyfhel.cache_key() / "pyfhel-0-py3-none-any.whl"
    wheel.touch()
    assert pyfhel.ensure_wheel() == wheel


def test_a_machine_without_a_compiler_is_told_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WEIR_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(pyfhel.BuildError, match=r"install make and a C\+\+ compiler"):
        pyfhel.ensure_wheel()


def test_the_gates_are_built_once_and_are_optional(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WEIR_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(pyfhel.BuildError, match="install cargo"):
        tfhe.ensure_extension()
    # Without cargo the installation goes on, and says what does not work.
    assert install._tfhe_extension() is None
    assert "keys of tfhe-132 answer engine_unavailable" in capfd.readouterr().err
    built = tmp_path / "tfhe" / tfhe.cache_key() / tfhe.FILE_NAME
    built.touch()
    assert tfhe.ensure_extension() == install._tfhe_extension() == built


def test_a_build_that_fails_says_where_to_look(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cargo = tmp_path / "cargo"
    cargo.write_text("#!/bin/sh\necho too old\nexit 101\n")
    cargo.chmod(0o755)
    monkeypatch.setenv("WEIR_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(pyfhel.BuildError, match="the reason is in") as failed:
        tfhe.ensure_extension()
    assert Path(str(failed.value).rsplit(" ", 1)[1]).read_text() == "too old\n"
    assert tfhe.cached_extension() is None


def test_the_crates_are_pinned_by_hash_and_come_from_where_cargo_says() -> None:
    pins = (tfhe.CRATE / "crates.lock").read_text()
    own = tomllib.loads(pins)["package"]
    foreign = [package for package in own if package["name"] != "weir_tfhe"]
    assert all(re.fullmatch(r"[0-9a-f]{64}", package["checksum"]) for package in foreign)
    assert not any("source" in package for package in own)
    known = 'name = "serde"\nsource = "registry+here"\nchecksum = "00"\n'
    sourced = tomllib.loads(tfhe.sourced(pins, known))["package"]
    assert [package.get("source") for package in sourced if package in own] == [None]
    assert {package.get("source") for package in sourced if "checksum" in package} == {
        "registry+here"
    }
    with pytest.raises(pyfhel.BuildError):
        tfhe.sourced(pins, 'name = "serde"\n')
    manifest = tomllib.loads((tfhe.CRATE / "Cargo.toml").read_text())
    wanted = [*manifest["dependencies"].values(), *manifest["build-dependencies"].values()]
    versions = [entry["version"] if isinstance(entry, dict) else entry for entry in wanted]
    assert all(version.startswith("=") for version in versions)


def test_ci_runs_the_readmes_test_command() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & stat.S_IXUSR
    commands = [line for line in script.read_text().splitlines() if line and line[0] != "#"]
    assert commands[-1] == "exec make test"


def test_every_target_of_the_makefile_can_be_planned() -> None:
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.M)
    assert targets is not None
    for target in targets.group(1).split():
        done = subprocess.run(
            ["make", "--dry-run", "--no-print-directory", target],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
