"""The API role on real servers: it starts, says how everything is, survives, stops cleanly."""

import asyncio
import contextlib
import dataclasses
import socket
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest

from api.__main__ import serve
from api.platform.probes import GROUPS
from api.provision import provision
from infra.bootstrap import Credentials
from infra.config import Settings
from infra.embedded.ports import free_port
from infra.embedded.stack import Stack
from infra.kafka import create_topics
from tests.loops import deciding

# How long an answer may take while a server is away, and how long coming back may take.
PATIENCE = 20.0
RECOVERY = 90.0


@contextlib.asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """The role in this process, and a client of it; stopped as a signal stops it."""
    stop, ready = asyncio.Event(), asyncio.Event()
    role = asyncio.create_task(serve(settings, stop, ready.set))
    started = asyncio.create_task(ready.wait())
    async with asyncio.timeout(90):
        await asyncio.wait({role, started}, return_when=asyncio.FIRST_COMPLETED)
    assert ready.is_set(), role.exception()
    try:
        async with httpx.AsyncClient(base_url=settings.public_url, timeout=PATIENCE) as client:
            yield client
    finally:
        stop.set()
        async with asyncio.timeout(20):
            await role


@pytest.fixture
def own(settings: Settings) -> Settings:
    """Settings with a port of the test's own, and no limit on requests."""
    return dataclasses.replace(settings, port=free_port(), public_url="", rate_limit_per_minute=0)


async def until(status: int, ask: Callable[[], Awaitable[httpx.Response]]) -> httpx.Response:
    """Ask again and again until the answer has this status."""
    async with asyncio.timeout(RECOVERY):
        while True:
            answer = await ask()
            if answer.status_code == status:
                return answer
            assert answer.status_code == 503, answer.text
            await asyncio.sleep(0.2)


async def test_the_role_serves_and_tells_how_everything_is(own: Settings) -> None:
    await create_topics(own.kafka_bootstrap_servers, own.partitions)
    async with deciding(own), serving(own) as client:
        assert (await client.get("/health")).json()["status"] == "ok"
        ready = await client.get("/health/ready")
        assert ready.status_code == 200
        report = ready.json()
        assert report["status"] == "ready"
        assert set(report["dependencies"]) == {"kafka", "postgres", "clickhouse", "objects"}
        assert all(found["ok"] for found in report["dependencies"].values())
        assert report["loops"]["decider"] == {"alive": 1, "lag": 0}
        assert set(report["loops"]) == {
            "analytics",
            "decider",
            "scheduler",
            "webhooks",
            *GROUPS,
        }
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


@contextlib.asynccontextmanager
async def inhabited(settings: Settings) -> AsyncIterator[tuple[httpx.AsyncClient, Credentials]]:
    """The role, its deciders, and the first tenant's credentials."""
    await create_topics(settings.kafka_bootstrap_servers, settings.partitions)
    async with deciding(settings), serving(settings) as client:
        yield client, await provision(settings)


async def test_without_postgres_reads_are_told_when_to_come_back_and_telemetry_goes_on(
    own: Settings, stack: Stack
) -> None:
    async with inhabited(own) as (client, made):
        key = {"X-Wax-Key": made.api_key}
        human = {"Authorization": f"Bearer {made.admin_token}"}

        async def rooms() -> httpx.Response:
            return await client.get("/v1/rooms", headers=human)

        async def start() -> httpx.Response:
            body = {"agent_name": "a"}
            return await client.post("/api/v1/observe/runs/start/", json=body, headers=key)

        assert (await rooms()).status_code == 200
        assert (await start()).status_code == 200
        await asyncio.to_thread(stack.halt, "postgres")
        try:
            away = await rooms()
            assert (away.status_code, away.headers["retry-after"]) == (503, "2")
            assert away.json()["error"]["code"] == "DATABASE_UNAVAILABLE"
            assert (await start()).status_code == 200
            assert (await client.get("/health/ready")).status_code == 503
            assert (await client.get("/health")).status_code == 200
        finally:
            await asyncio.to_thread(stack.launch, "postgres")
        await until(200, rooms)


async def test_without_kafka_writes_are_told_when_to_come_back_and_then_have_one_effect(
    own: Settings, stack: Stack
) -> None:
    async with inhabited(own) as (client, made):
        human = {"Authorization": f"Bearer {made.admin_token}"}
        once = {**human, "Idempotency-Key": str(uuid.uuid4())}
        name = f"room {uuid.uuid4().hex}"

        async def create() -> httpx.Response:
            return await client.post("/v1/rooms", json={"name": name}, headers=once)

        async def ready() -> httpx.Response:
            return await client.get("/health/ready")

        await until(200, ready)
        await asyncio.to_thread(stack.halt, "kafka")
        try:
            away = await create()
            assert (away.status_code, away.headers["retry-after"]) == (503, "2")
            assert away.json()["error"]["code"] == "OUTCOME_UNKNOWN"
            command_id = away.json()["error"]["details"]["command_id"]
            assert (await ready()).status_code == 503
            assert (await client.get("/v1/rooms", headers=human)).status_code == 200
        finally:
            await asyncio.to_thread(stack.launch, "kafka")
        created = await until(201, create)
        again = await create()
        assert again.json() == created.json()
        assert again.headers["idempotency-replayed"] == "true"
        listed = (await client.get("/v1/rooms?limit=100", headers=human)).json()["data"]
        assert [room["name"] for room in listed].count(name) == 1
        settled = await client.get(f"/commands/{command_id}", headers=human)
        assert settled.json()["status"] == "accepted"
        await until(200, ready)
