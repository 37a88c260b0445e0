"""Schemathesis over our own document, on real processes: no 5xx, nothing that it doesn't promise.

Derandomised, so that a failure here is one that everybody can see again.
"""

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
import requests
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from api.app import ROUTES
from api.openapi import build_openapi, statuses_of
from api.provision import provision
from infra.embedded.ports import free_port
from infra.embedded.stack import Stack
from infra.kafka import create_topics
from tests.stack import fresh_stores

START_SECONDS = 90
STOP_SECONDS = 20
STREAM_SECONDS = 10

BY_OPERATION = {(route.method, route.path): route for route in ROUTES}
schema = schemathesis.openapi.from_dict(build_openapi(ROUTES))


@dataclasses.dataclass(frozen=True)
class Served:
    """The API's address and a credential of each kind."""

    url: str
    headers: dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def served(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The roles that answer requests, in a process of their own."""
    folder = tmp_path_factory.mktemp("schemathesis")
    given = dataclasses.replace(
        fresh_stores(stack, folder), port=free_port(), public_url="", rate_limit_per_minute=0
    )
    asyncio.run(create_topics(given.kafka_bootstrap_servers, given.partitions))
    command = [sys.executable, "-m", "infra.cli", "run", "api", "analytics", "decider", "scheduler"]
    with (folder / "roles.log").open("wb") as log:
        roles = subprocess.Popen(command, env={**os.environ, **given.to_env()}, stderr=log)
    try:
        _wait(roles, given.public_url, folder / "roles.log")
        made = asyncio.run(provision(given))
        yield Served(
            given.public_url,
            {
                "api_key": {"X-Wax-Key": made.api_key},
                "agent": {"Authorization": f"Bearer {made.agent_key}"},
                "user": {"Authorization": f"Bearer {made.admin_token}"},
            },
        )
        assert roles.poll() is None, (folder / "roles.log").read_text()[-3000:]
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


@schema.parametrize()
@settings(
    max_examples=5,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_one_that_the_document_promises(
    case: schemathesis.Case, served: Served
) -> None:
    route = BY_OPERATION[case.operation.method.upper(), case.operation.path]
    kinds = sorted(route.who.kinds)
    headers = served.headers[kinds[0]] if kinds else {}
    if route.stream:
        arguments = case.as_transport_kwargs(base_url=served.url, headers=headers)
        with requests.request(**arguments, stream=True, timeout=STREAM_SECONDS) as answer:
            # Schemathesis tries other methods as well.
            assert answer.status_code in (*statuses_of(route), 204, 405)
        return
    response = case.call(base_url=served.url, headers=headers)
    case.validate_response(
        response,
        checks=[
            not_a_server_error,
            status_code_conformance,
            content_type_conformance,
            response_schema_conformance,
        ],
    )
    assert "x-request-id" in response.headers
