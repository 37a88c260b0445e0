"""Metrics and the access log: what is counted, what is written, and that it holds no secret."""

import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from api.observing import RequestObserver
from infra.telemetry import HTTP_REQUESTS
from tests.api.harness import Harness
from tests.api.sample import COUNTER, ROUTES


@pytest.fixture
async def app() -> AsyncIterator[Harness]:
    async with Harness(ROUTES, deciders=[COUNTER], observer=RequestObserver()) as harness:
        yield harness


def counted(**labels: str) -> float:
    return float(HTTP_REQUESTS.labels(**labels)._value.get())


async def test_requests_are_counted_by_route_never_by_path(app: Harness) -> None:
    labels = {"method": "GET", "route": "/api/v1/echo/{id}", "status": "200"}
    before = counted(**labels)
    for number in range(3):
        await app.client.get(f"/api/v1/echo/{number}", headers=app.key())
    assert counted(**labels) == before + 3
    nowhere = {"method": "other", "route": "none", "status": "404"}
    before = counted(**nowhere)
    await app.client.request("MADEUP", "/wp-admin")
    assert counted(**nowhere) == before + 1


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
