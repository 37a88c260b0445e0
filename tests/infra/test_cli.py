"""A mistake on the command line costs one clear line and a non-zero exit, never a traceback."""

import socket
from pathlib import Path

import pytest

from infra import cli
from infra.embedded.data_folder import DataFolder
from infra.embedded.ports import LOOPBACK, free_port


def weir(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the command line in this process; its exit code."""
    monkeypatch.setattr("sys.argv", ["weir", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL", "CLICKHOUSE_URL", "OBJECT_STORE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("fly",), 2, "No such command 'fly'"),
        (("up", "--prot", "1"), 2, "No such option"),
        (("up", "--port", "many"), 2, "--port"),
        (("up", "--port", "99999"), 2, "--port"),
        (("run",), 2, "roles"),
        (("run", "deciders"), 1, "there is no role 'deciders'"),
        (("run", "api", "api"), 1, "named twice"),
        (("run", "api"), 1, "KAFKA_BOOTSTRAP_SERVERS is not set"),
        (("setup",), 1, "KAFKA_BOOTSTRAP_SERVERS is not set"),
    ],
)
def test_a_mistake_costs_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    code: int,
    said: str,
) -> None:
    assert weir(monkeypatch, *arguments) == code
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("weir: ")
    assert said in output.err
    assert output.err.count("\n") == 1


def test_a_folder_in_use_costs_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("infra.bootstrap.PROVISION", "builtins:print")
    holder = DataFolder(tmp_path)
    holder.open()
    assert weir(monkeypatch, "up", "--data", str(tmp_path)) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "in use by process" in line] == lines
    holder.close()


def test_a_port_in_use_costs_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("infra.bootstrap.PROVISION", "builtins:print")
    port = free_port()
    with socket.create_server((LOOPBACK, port)):
        assert weir(monkeypatch, "up", "--data", str(tmp_path), "--port", str(port)) == 1
    assert f"port {port} (for api) is taken" in capsys.readouterr().err


def test_help_is_for_those_who_give_no_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert weir(monkeypatch) == 0
    shown = capsys.readouterr().out
    assert all(command in shown for command in ("up", "run", "doctor", "tail", "export"))


def test_a_bug_costs_one_line_too_unless_its_trace_is_wanted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(data: Path) -> None:
        raise RuntimeError("the first line\nand the second")

    monkeypatch.setattr("infra.doctor.examine", broken)
    assert weir(monkeypatch, "doctor") == 1
    assert capsys.readouterr().err == "weir: the first line and the second\n"
    monkeypatch.setenv("WEIR_DEBUG", "1")
    assert weir(monkeypatch, "doctor") == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_missing_package_is_answered_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def incomplete() -> None:
        raise ModuleNotFoundError("No module named 'msgspec'")

    monkeypatch.setattr("infra.cli.compose", incomplete)
    assert weir(monkeypatch, "up") == 1
    said = capsys.readouterr().err
    assert said == "weir: No module named 'msgspec': run `make install`, then `weir doctor`\n"


def test_a_role_that_starts_loads_no_other_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def slow() -> None:
        raise AssertionError("the commands of other packages were loaded")

    monkeypatch.setattr("infra.cli.compose", slow)
    assert weir(monkeypatch, "run", "juggler") == 1
    assert "there is no role 'juggler'" in capsys.readouterr().err
