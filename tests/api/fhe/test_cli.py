"""`weir fhe` without a server: keys that stay in a folder, numbers there and back, plain mistakes.

With one, it is run as docs/fhe.md has it.
"""

import stat
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from api.calling import CredentialsMissing
from api.fhe.cli import register
from infra.keyholder import NoKeyholder


def run(*arguments: Any) -> Any:
    app = typer.Typer()
    register(app)
    return CliRunner().invoke(app, ["fhe", *map(str, arguments)])


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("client") / "keys"
    done = run("keygen", "--rotate", 1, "--out", folder)
    assert done.exit_code == 0, done.output
    return folder


def test_only_their_owner_reads_keys_and_nothing_writes_over_them(keys: Path) -> None:
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in keys.glob("*.key")}
    assert modes == dict.fromkeys(["public.key", "relin.key", "rotate.key", "secret.key"], 0o600)
    assert stat.S_IMODE(keys.stat().st_mode) == 0o700
    secret = (keys / "secret.key").read_bytes()
    assert run("keygen", "--out", keys).exit_code == 2
    assert (keys / "secret.key").read_bytes() == secret
    assert run("keygen", "--params", "rsa", "--out", keys / "x").exit_code == 2


def test_numbers_come_back_as_they_went(keys: Path, tmp_path: Path) -> None:
    cipher = tmp_path / "x.ct"
    done = run("encrypt", "--keys", keys, "--out", cipher, "--", "0.5", "-0.25")
    assert done.exit_code == 0, done.output
    shown = run("decrypt", cipher, "--keys", keys, "--count", 2)
    assert [round(float(line), 4) for line in shown.stdout.split()] == [0.5, -0.25]


def test_a_mistake_is_said_in_a_line(keys: Path, tmp_path: Path) -> None:
    out = tmp_path / "z.ct"
    nowhere = run("encrypt", "1", "--keys", tmp_path / "none", "--out", out)
    assert isinstance(nowhere.exception, NoKeyholder)
    unknown = run("run", "add", "1", "2", "--keys", keys, "--out", out, "--data", tmp_path)
    assert isinstance(unknown.exception, CredentialsMissing)
    assert not out.exists()
