"""Metrics and the access log: what is counted, what is written, and that it holds no secret."""

import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from api.app import ROUTES as PRODUCT
from api.observing import RequestObserver
from infra.telemetry import HTTP_REQUESTS, HttpRequests
from tests.api.harness import Harness
from tests.api.sample import COUNTER, ROUTES


@pytest.fixture
async def app() -> AsyncIterator[Harness]:
    async with Harness(ROUTES, deciders=[COUNTER], observer=RequestObserver()) as harness:
        yield harness


async def test_requests_are_counted_by_route_never_by_path(app: Harness) -> None:
    labels = ("GET", "/api/v1/echo/{id}", 200)
    before = HTTP_REQUESTS.count(*labels)
    for number in range(3):
        await app.client.get(f"/api/v1/echo/{number}", headers=app.key())
    assert HTTP_REQUESTS.count(*labels) == before + 3
    nowhere = ("other", "none", 404)
    before = HTTP_REQUESTS.count(*nowhere)
    await app.client.request("MADEUP", "/wp-admin")
    assert HTTP_REQUESTS.count(*nowhere) == before + 1


def test_counts_and_durations_in_prometheus_text() -> None:
    requests = HttpRequests()
    for seconds in (0.0005, 0.001, 0.3, 60.0):
        requests.record("GET", "/x/{id}", 200, seconds)
    registry = CollectorRegistry()
    registry.register(requests)
    text = generate_latest(registry).decode()
    labels = 'method="GET",route="/x/{id}"'
    assert f'weir_http_requests_total{{{labels},status="200"}} 4.0' in text
    name = "weir_http_request_duration_seconds"
    assert f'{name}_bucket{{le="0.001",{labels}}} 2.0' in text
    assert f'{name}_bucket{{le="0.5",{labels}}} 3.0' in text
    assert f'{name}_bucket{{le="+Inf",{labels}}} 4.0' in text
    assert f"{name}_count{{{labels}}} 4.0" in text
    assert f"{name}_sum{{{labels}}} 60.3015" in text


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [record.__dict__ for record in caplog.records if record.name == "api.access"]


async def test_a_line_names_request_route_and_actor_and_no_secret(
    app: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    headers = {**app.key(), "Cookie": "sessionid=secret-cookie"}
    with caplog.at_level(logging.INFO):
        answer = await app.client.post(
            "/api/v1/echo/1?token=secret-query", json={"note": "secret-body"}, headers=headers
        )
    (line,) = lines(caplog)
    assert line["request_id"] == answer.headers["x-request-id"]
    assert (line["method"], line["route"], line["status"]) == ("POST", "/api/v1/echo/{id}", 200)
    assert (line["actor"], line["tenant"], line["path"]) == ("key_1", "ten_test", "/api/v1/echo/1")
    text = repr(line)
    assert "secret" not in text
    assert headers["X-Wax-Key"] not in text


async def test_failures_are_warnings_and_refusals_are_not(
    app: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        await app.client.get("/api/v1/bug", headers=app.human())
        await app.client.get("/api/v1/echo/1")
        await app.client.get("/api/v1/quiet", headers=app.key())
    levels = [line["levelno"] for line in lines(caplog)]
    assert levels == [logging.WARNING, logging.INFO, logging.DEBUG]


def test_what_agents_report_and_ask_at_every_step_is_quiet() -> None:
    quiet = {f"{route.method} {route.path}" for route in PRODUCT if route.quiet}
    reports = {f"{route.method} {route.path}" for route in PRODUCT if route.lenient}
    assert len(reports) == 7
    assert reports | {"POST /v1/traces", "POST /api/v1/observe/policy-check/"} <= quiet
