"""The API role on real servers: it starts, says how everything is, survives, stops cleanly."""

import asyncio
import contextlib
import dataclasses
import socket
from collections.abc import AsyncIterator

import httpx
import pytest

from api.__main__ import serve
from infra.config import Settings
from infra.kafka import create_topics
from tests.loops import deciding


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """The role in this process, and a client of it; stopped as a signal stops it."""
    settings = dataclasses.replace(settings, port=free_port(), public_url="")
    stop, ready = asyncio.Event(), asyncio.Event()
    role = asyncio.create_task(serve(settings, stop, ready.set))
    started = asyncio.create_task(ready.wait())
    async with asyncio.timeout(90):
        await asyncio.wait({role, started}, return_when=asyncio.FIRST_COMPLETED)
    assert ready.is_set(), role.exception()
    try:
        async with httpx.AsyncClient(base_url=settings.public_url, timeout=30) as client:
            yield client
    finally:
        stop.set()
        async with asyncio.timeout(20):
            await role


async def test_the_role_serves_and_tells_how_everything_is(settings: Settings) -> None:
    await create_topics(settings.kafka_bootstrap_servers, settings.partitions)
    async with deciding(settings), serving(settings) as client:
        assert (await client.get("/health")).json()["status"] == "ok"
        ready = await client.get("/health/ready")
        assert ready.status_code == 200
        report = ready.json()
        assert report["status"] == "ready"
        assert set(report["dependencies"]) == {"kafka", "postgres", "clickhouse", "objects"}
        assert all(found["ok"] for found in report["dependencies"].values())
        assert report["loops"]["decider"] == {"alive": 1, "lag": 0}
        assert (await client.get("/health/storage")).json()["status"] == "ok"
        metrics = (await client.get("/metrics")).text
        assert 'weir_http_requests_total{method="GET",route="/health",status="200"}' in metrics


async def test_a_taken_port_is_one_clear_line(settings: Settings) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}"):
            await serve(dataclasses.replace(settings, port=port), asyncio.Event(), print)
