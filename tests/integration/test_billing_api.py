"""Billing over HTTP on real servers: recorded, summed, alerted, and followed without loss."""

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import uvicorn

from api.app import build_app
from api.services import Services
from infra.config import Settings
from infra.embedded.stack import Stack
from infra.ids import new_id
from streams.app import Processors
from streams.runtime import codec
from tests.api.harness import Harness
from tests.api.memory import MemoryCredentials
from tests.integration.services_rig import services_on
from tests.loops import Loops, loops, read_topic

STREAM = "/api/v1/billing/stream"
PATIENCE = 60.0


class Billing:
    """A tenant's billing on a server that listens."""

    def __init__(
        self, running: Loops, services: Services, url: str, credentials: MemoryCredentials
    ) -> None:
        self.loops, self.services, self.url = running, services, url
        self.tenant = new_id("ten")
        keys = Harness(())
        self.headers = keys.key(self.tenant, roles=("admin",))
        credentials.api_keys.update(keys.credentials.api_keys)
        self.client = httpx.AsyncClient(base_url=url, headers=self.headers, timeout=30)
        self.path = f"/api/v1/billing/tenants/{self.tenant}"

    async def use(self, meter: str, quantity: int = 1, **more: Any) -> dict[str, Any]:
        body = {"feature_key": meter, "quantity": quantity, **more}
        answer = await self.client.post(f"{self.path}/usage", json=body)
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()["data"]
        return found

    async def get(self, path: str, **params: Any) -> dict[str, Any]:
        answer = await self.client.get(self.path + path, params=params)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    @contextlib.asynccontextmanager
    async def stream(self, after: str = "") -> AsyncIterator[AsyncIterator[dict[str, str]]]:
        headers = {"Last-Event-ID": after} if after else {}
        async with self.client.stream("GET", STREAM, headers=headers, timeout=PATIENCE) as answer:
            assert answer.status_code == 200
            yield blocks(answer)


async def blocks(answer: httpx.Response) -> AsyncIterator[dict[str, str]]:
    """The fields of each block of a stream, those without an event too."""
    fields: dict[str, str] = {}
    async for line in answer.aiter_lines():
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        else:
            yield fields
            fields = {}


@contextlib.asynccontextmanager
async def listening(services: Services) -> AsyncIterator[str]:
    """A server on a free port; its sockets buffer little, so that a slow reader shows soon."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32 * 1024)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    config = uvicorn.Config(build_app(services), lifespan="off", ws="none", log_config=None)
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[assignment,method-assign]
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        services.live.end_all("shutdown")
        server.should_exit = True
        await serving


@contextlib.asynccontextmanager
async def billing(settings: Settings) -> AsyncIterator[Billing]:
    credentials = MemoryCredentials()
    async with (
        loops(settings) as running,
        services_on(settings, running.bus, credentials) as services,
        listening(services) as url,
    ):
        it = Billing(running, services, url, credentials)
        async with it.client:
            yield it


@contextlib.asynccontextmanager
async def processing(settings: Settings, it: Billing, folder: Path) -> AsyncIterator[None]:
    role = Processors(settings, codec(), it.loops.bus, folder, f"test.{new_id('grp')}")
    ready = asyncio.Event()
    task = asyncio.create_task(role.run(ready.set))
    async with asyncio.timeout(PATIENCE):
        await ready.wait()
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_usage_is_listed_summed_and_alerts_its_budget(
    settings: Settings, tmp_path: Path
) -> None:
    async with billing(settings) as it, processing(settings, it, tmp_path):
        budget = {"limit": 50, "alert_percents": [50, 100]}
        answer = await it.client.put(f"{it.path}/budgets/api.requests/day", json=budget)
        assert answer.status_code == 200
        async with it.stream() as events:
            await anext(events)
            keys = [f"key {number % 20}" for number in range(40)]
            used = await asyncio.gather(
                *(it.use("api.requests", 3, idempotency_key=key) for key in keys)
            )
            assert len({item["usage_id"] for item in used}) == 20
            reached = []
            async with asyncio.timeout(PATIENCE):
                async for block in events:
                    if block.get("event") == "budget_reached":
                        reached.append(msgspec.json.decode(block["data"])["budget"]["percent"])
                    if len(reached) == 2:
                        break
            assert reached == [50, 100]
        # What set off the last alert may have been followed by more usage.
        async with asyncio.timeout(PATIENCE):
            while True:
                summary = await it.get("/usage", window="day", meter="api.requests")
                if summary["totals"][0]["quantity"] == 60:
                    break
                await asyncio.sleep(0.05)
        assert summary["totals"] == [{"feature_key": "api.requests", "quantity": 60, "records": 20}]
        assert sum(item["quantity"] for item in summary["items"]) == 60
        # The stream is the log's; the read model follows a moment later, and this write waits.
        await it.use("other")
        (stands,) = (await it.get("/budgets"))["items"]
        assert (stands["reached_percent"], stands["limit"]) == (100, 50)


async def test_events_are_listed_page_by_page_and_by_kind(settings: Settings) -> None:
    async with billing(settings) as it:
        made = [(await it.use("m", n + 1))["usage_id"] for n in range(7)]
        await it.client.put(f"{it.path}/budgets/m/day", json={"limit": 5})
        assert (await it.client.delete(f"{it.path}/budgets/m/day")).status_code == 204
        found, cursor = list[dict[str, Any]](), ""
        while cursor is not None:
            page = await it.get("/events", limit=3, cursor=cursor)
            assert len(page["items"]) <= 3
            found += page["items"]
            cursor = page["next_cursor"]
        kinds = [item["event_type"] for item in found]
        assert kinds == ["budget_removed", "budget_set", *["usage_recorded"] * 7]
        assert [item["usage_id"] for item in found[2:]] == made[::-1]
        narrowed = await it.get("/events", event_type="budget_set")
        assert [item["event_type"] for item in narrowed["items"]] == ["budget_set"]
        assert (await it.get("/events", meter="n"))["items"] == []
        since = found[-2]["recorded_at"]
        assert len((await it.get("/events", since=since))["items"]) == len(found) - 1
        assert (await it.get("/budgets"))["items"] == []


async def test_a_reader_that_comes_and_goes_under_load_misses_and_repeats_nothing(
    settings: Settings,
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    async with billing(settings) as it:
        async with it.stream() as events:
            after = (await anext(events))["id"]

        async def write() -> None:
            for _ in range(12):
                await asyncio.gather(*(it.use("m") for _ in range(dice.randrange(1, 40))))
            await it.use("end")

        writing = asyncio.create_task(write())
        seen: list[str] = []
        ended = False
        async with asyncio.timeout(PATIENCE):
            while not ended:
                leaves_after = dice.randrange(1, 60)
                async with it.stream(after) as events:
                    async for block in events:
                        after = block.get("id", after)
                        if "data" in block:
                            event = msgspec.json.decode(block["data"])
                            seen.append(event["usage_id"])
                            ended = event["usage"][0]["feature_key"] == "end"
                            leaves_after -= 1
                        if ended or leaves_after <= 0:
                            break
        await writing
        log = await read_topic(settings, "billing", it.tenant)
        assert seen == [event.usage_id for _, event in log]


async def test_readers_that_do_not_read_are_let_go_and_harm_nobody(settings: Settings) -> None:
    async with billing(settings) as it:
        slow = [await connect_and_never_read(it) for _ in range(20)]
        async with it.stream() as events:
            await anext(events)
            live = it.services.live
            async with asyncio.timeout(PATIENCE):
                while live.listeners < len(slow) + 1:  # noqa: ASYNC110  # the hub tells nobody
                    await asyncio.sleep(0.01)
            total = 0
            large = {"filling": "x" * 8000}
            async with asyncio.timeout(PATIENCE * 2):
                while live.listeners > 1:
                    await asyncio.gather(*(it.use("m", metadata=large) for _ in range(32)))
                    total += 32
                seen = 0
                async for block in events:
                    seen += "data" in block
                    if seen == total:
                        break
        for writer in slow:
            writer.close()


async def connect_and_never_read(it: Billing) -> asyncio.StreamWriter:
    host, port = httpx.URL(it.url).host, httpx.URL(it.url).port
    # A limit of one byte: the client's side takes nothing off the socket by itself.
    reader, writer = await asyncio.open_connection(host, port, limit=1)
    key = it.headers["X-Wax-Key"]
    writer.write(f"GET {STREAM} HTTP/1.1\r\nHost: x\r\nX-Wax-Key: {key}\r\n\r\n".encode())
    await writer.drain()
    assert not reader.at_eof()
    return writer


async def test_a_stream_survives_the_loss_of_the_broker(settings: Settings, stack: Stack) -> None:
    async with billing(settings) as it, it.stream() as events:
        await anext(events)
        await it.use("before")
        await asyncio.to_thread(stack.halt, "kafka")
        with pytest.raises(AssertionError, match="503"):
            await it.use("away")
        await asyncio.to_thread(stack.restart, "kafka")
        async with asyncio.timeout(PATIENCE):
            while True:
                with contextlib.suppress(AssertionError):
                    await it.use("after", idempotency_key="k")
                    break
            meters = []
            async for block in events:
                if "data" in block:
                    meters.append(msgspec.json.decode(block["data"])["usage"][0]["feature_key"])
                if meters[-1:] == ["after"]:
                    break
        log = await read_topic(settings, "billing", it.tenant)
        assert meters == [event.meter for _, event in log]
