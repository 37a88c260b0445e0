"""`weir up`: one ready line, private credentials, a clean end on SIGTERM and on Ctrl-C.

Without roles here: the roles on a whole stack are the business of tests/integration.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from infra.bootstrap import BootstrapError, read_credentials

ROOT = Path(__file__).parents[2]

UP = """
import sys
from pathlib import Path
from infra.bootstrap import Credentials
from infra.config import Settings
from infra.up import up

async def provision(settings: Settings, known: Credentials | None) -> Credentials:
    return Credentials(
        url=settings.public_url, kafka=settings.kafka_bootstrap_servers, tenant_id="ten_1",
        api_key=known.api_key if known else "wax_sk_first", agent_key="wr_1",
        admin_email="admin@example.com", admin_password="secret",
        admin_token="renewed" if known else "new",
    )

up(Path(sys.argv[1]), None, provision, roles=[])
"""


def start(data: Path) -> "subprocess.Popen[str]":
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", UP, str(data)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
    )


def test_a_stack_says_that_it_is_ready_and_ends_on_a_signal(tmp_path: Path) -> None:
    """Twice on one folder: SIGTERM ends the first, Ctrl-C the second, which renews what must be."""
    seen = []
    for number in (signal.SIGTERM, signal.SIGINT):
        with start(tmp_path) as running:
            assert running.stdout is not None
            line = running.stdout.readline()
            parts = psutil.Process(running.pid).children(recursive=True)
            credentials = json.loads((tmp_path / "credentials.json").read_text())
            running.send_signal(number)
            rest, errors = running.communicate(timeout=60)
        assert running.returncode == 0, errors
        assert line.startswith(f"Weir is ready on {credentials['url']}")
        assert (rest, errors) == ("", "")
        assert len(parts) > 2
        assert not any(part.is_running() for part in parts)
        seen.append(credentials)
    assert (tmp_path / "credentials.json").stat().st_mode & 0o777 == 0o600
    assert [found["api_key"] for found in seen] == ["wax_sk_first", "wax_sk_first"]
    assert [found["admin_token"] for found in seen] == ["new", "renewed"]
    assert set(seen[0]) == {
        *("url", "kafka", "tenant_id", "api_key", "agent_key"),
        *("admin_email", "admin_password", "admin_token"),
    }
    assert seen[0]["kafka"] == seen[1]["kafka"]


def test_a_start_can_be_interrupted(tmp_path: Path) -> None:
    with start(tmp_path) as running:
        family = psutil.Process(running.pid)
        while not (parts := family.children()):
            assert running.poll() is None
        running.send_signal(signal.SIGINT)
        output, errors = running.communicate(timeout=60)
    assert running.returncode == 0, errors
    assert output == ""
    assert not any(part.is_running() for part in parts)


def test_damaged_credentials_are_named_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "credentials.json"
    assert read_credentials(path) is None
    path.write_text("{}")
    with pytest.raises(BootstrapError, match=r"credentials\.json is damaged"):
        read_credentials(path)
    assert path.read_text() == "{}"
