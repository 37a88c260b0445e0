"""A data folder is one stack: held once, the same again, and safe in the face of any end."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import psutil
import psycopg
import pytest

from infra.embedded.data_folder import DataFolder, DataFolderError, Identity
from infra.embedded.ports import FIRST, LAST, LOOPBACK, free_port, is_free
from infra.embedded.stack import Stack
from tests.infra.test_stack import create_topic, read_all, send

ROOT = Path(__file__).parents[2]

RUNS_A_STACK = """
import sys, threading
from pathlib import Path
from infra.embedded.stack import Stack
stack = Stack(Path(sys.argv[1]))
stack.start()
print(stack.pid("postgres"), stack.pid("kafka"), flush=True)
threading.Event().wait()
"""


def test_a_folder_remembers_its_ports_and_secrets(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    first = folder.open()
    folder.close()
    assert DataFolder(tmp_path).open() == first
    assert len(set(first.ports.values())) == len(first.ports)
    assert (tmp_path / "identity.json").stat().st_mode & 0o777 == 0o600


def test_two_folders_share_nothing(tmp_path: Path) -> None:
    one, two = DataFolder(tmp_path / "1").open(), DataFolder(tmp_path / "2").open()
    assert one.secret_key != two.secret_key
    assert one.postgres_password != two.postgres_password
    assert one.kafka_cluster_id != two.kafka_cluster_id


def test_a_port_that_was_taken_meanwhile_is_replaced(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    before = folder.open().ports
    folder.close()
    with socket.create_server((LOOPBACK, before["kafka"])):
        after = folder.open().ports
    assert after["kafka"] != before["kafka"]
    assert {**after, "kafka": 0} == {**before, "kafka": 0}


def test_a_wanted_port_that_is_taken_is_refused_in_one_line(tmp_path: Path) -> None:
    port = free_port()
    with (
        socket.create_server((LOOPBACK, port)),
        pytest.raises(DataFolderError, match=f"port {port} .for api. is taken"),
    ):
        DataFolder(tmp_path).open({"api": port})
    assert DataFolder(tmp_path).open({"api": port}).ports["api"] == port


def test_a_preferred_port_yields_to_a_remembered_one(tmp_path: Path) -> None:
    folder, one, two = DataFolder(tmp_path), free_port(), free_port()
    assert folder.open(preferred_ports={"api": one}).ports["api"] == one
    folder.close()
    assert folder.open(preferred_ports={"api": two}).ports["api"] == one


def test_ports_stay_out_of_the_ranges_that_connections_use() -> None:
    port = free_port()
    assert FIRST <= port <= LAST < 32_768
    assert is_free(port)


def test_a_held_folder_is_refused_with_its_holder(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    folder.open()
    with pytest.raises(DataFolderError, match=f"in use by process {os.getpid()}"):
        DataFolder(tmp_path).open()
    folder.close()
    DataFolder(tmp_path).open()


def test_a_damaged_identity_is_named_and_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "identity.json").write_text("{")
    with pytest.raises(DataFolderError, match=r"identity\.json is damaged"):
        DataFolder(tmp_path).open()
    assert (tmp_path / "identity.json").read_text() == "{"


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataFolderError, match="cannot use"):
        DataFolder(tmp_path / "file" / "data").open()


def test_a_stack_that_was_killed_hard_leaves_no_orphan_and_loses_nothing(tmp_path: Path) -> None:
    """Start, kill -9 the supervisor, start again, end cleanly, start on other ports."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", RUNS_A_STACK, str(tmp_path)],
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    ) as supervisor:
        assert supervisor.stdout is not None
        parts = [psutil.Process(int(pid)) for pid in supervisor.stdout.readline().split()]
        parts += [child for part in parts for child in part.children(recursive=True)]
        assert len(parts) > 2
        settings = Stack(tmp_path).settings_for(_identity(tmp_path))
        asyncio.run(create_topic(settings, "kept"))
        asyncio.run(send(settings, "kept", b"first"))
        with psycopg.connect(settings.database_url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1 AS n")
        supervisor.send_signal(signal.SIGKILL)
        supervisor.wait()
    _, alive = psutil.wait_procs(parts, timeout=20)
    assert [part for part in alive if part.status() != psutil.STATUS_ZOMBIE] == []

    with Stack(tmp_path) as again:
        assert again.settings == settings
        asyncio.run(send(settings, "kept", b"second"))
        with psycopg.connect(settings.database_url) as connection:
            connection.execute("INSERT INTO kept VALUES (2)")

    with (
        socket.create_server((LOOPBACK, int(settings.kafka_bootstrap_servers.split(":")[1]))),
        Stack(tmp_path) as moved,
    ):
        assert moved.settings.kafka_bootstrap_servers != settings.kafka_bootstrap_servers
        assert asyncio.run(read_all(moved.settings, "kept")) == [b"first", b"second"]
        with psycopg.connect(moved.settings.database_url) as connection:
            assert connection.execute("SELECT n FROM kept").fetchall() == [(1,), (2,)]


def _identity(folder: Path) -> Identity:
    return msgspec.json.decode((folder / "identity.json").read_bytes(), type=Identity)
