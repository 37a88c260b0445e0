"""The roles that answer requests, as one real process on the session's servers."""

import asyncio
import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from api.provision import provision
from infra.bootstrap import Credentials
from infra.config import Settings
from infra.embedded.ports import free_port
from infra.embedded.stack import Stack
from infra.kafka import create_topics
from tests.stack import fresh_stores

START_SECONDS = 90
STOP_SECONDS = 20
ROLES = ("api", "analytics", "decider", "scheduler")


@dataclasses.dataclass(frozen=True)
class Served:
    """A running installation, the first tenant's credentials, and where the roles write their logs.

    It may connect to this machine for tenants, where tests have their far ends.
    """

    settings: Settings
    made: Credentials
    log: Path

    @property
    def url(self) -> str:
        return self.settings.public_url


def headers_of(made: Credentials) -> dict[str, dict[str, str]]:
    """The headers of each kind of credential."""
    return {
        "api_key": {"X-Wax-Key": made.api_key},
        "agent": {"Authorization": f"Bearer {made.agent_key}"},
        "user": {"Authorization": f"Bearer {made.admin_token}"},
    }


@pytest.fixture(scope="module")
def served(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The roles in a process of their own, for all tests that only send requests."""
    folder = tmp_path_factory.mktemp("served")
    settings = dataclasses.replace(
        fresh_stores(stack, folder),
        port=free_port(),
        public_url="",
        rate_limit_per_minute=0,
        egress_allow=("127.0.0.0/8",),
    )
    asyncio.run(create_topics(settings.kafka_bootstrap_servers, settings.partitions))
    log = folder / "roles.log"
    with log.open("wb") as errors:
        roles = subprocess.Popen(
            [sys.executable, "-m", "infra.cli", "run", *ROLES],
            env={**os.environ, **settings.to_env()},
            stderr=errors,
        )
    try:
        _wait(roles, settings.public_url, log)
        yield Served(settings, asyncio.run(provision(settings)), log)
        assert roles.poll() is None, log.read_text()[-3000:]
    finally:
        roles.send_signal(signal.SIGTERM)
        try:
            roles.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            roles.kill()
            roles.wait()


def _wait(roles: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and roles.poll() is None:
        try:
            if httpx.get(f"{url}/health/ready", timeout=5).json()["loops"]["decider"]["alive"]:
                return
        except (httpx.HTTPError, KeyError):
            time.sleep(0.2)
    raise AssertionError(f"the roles do not serve:\n{log.read_text()[-3000:]}")
