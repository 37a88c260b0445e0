"""Kafka or Postgres gone, over HTTP: a 503 within seconds, no hang, no 500, and it heals itself.

One API process and one decider process for all cases; they are never restarted. A server is either
down (its connections are refused) or frozen (they are accepted and nothing is ever answered).
"""

import asyncio
import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from infra.bootstrap import Credentials, find_provision
from infra.embedded.ports import free_port
from infra.embedded.stack import Stack
from infra.ids import new_id
from infra.kafka import create_topics
from tests.faults.roles import RoleProcess
from tests.stack import fresh_stores

# "Within seconds": what waits for a server waits five at most; the rest is a busy machine's.
SECONDS = 12.0
# Longer than any request to Kafka may take (15 s), so that clients have to connect anew.
FREEZE_SECONDS = 16.0
BACK_SECONDS = 90.0


class Site:
    """The API over HTTP, as a client with a person's token and an API key sees it."""

    def __init__(self, credentials: Credentials, processes: list[RoleProcess]) -> None:
        self.credentials, self.processes = credentials, processes
        self.run = ""

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.credentials.url, timeout=SECONDS + 30)

    async def ask(
        self, http: httpx.AsyncClient, method: str, path: str, key: str = "", body: Any = None
    ) -> httpx.Response:
        """One request, as the admin or, for what agents report, with the API key."""
        headers = {"Authorization": f"Bearer {self.credentials.admin_token}"}
        if "/observe/" in path:
            headers = {"X-Wax-Key": self.credentials.api_key}
        if key:
            headers["Idempotency-Key"] = key
        began = time.monotonic()
        response = await http.request(method, path, json=body, headers=headers)
        took = time.monotonic() - began
        assert took < SECONDS, f"{method} {path} took {took:.1f} s: {response.text}"
        print(f"{method} {path}: {response.status_code} in {took:.1f} s")
        return response

    async def whole(self, http: httpx.AsyncClient) -> None:
        """Wait until the API says that everything can be reached."""
        async with asyncio.timeout(BACK_SECONDS):
            while (await http.get("/health/ready")).status_code != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.2)


@pytest.fixture(scope="module")
def site(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Four roles in two processes, and a tenant with its credentials."""
    settings = dataclasses.replace(
        fresh_stores(stack, tmp_path_factory.mktemp("outages")), port=free_port(), public_url=""
    )
    asyncio.run(create_topics(settings.kafka_bootstrap_servers, settings.partitions))
    with (
        RoleProcess(settings, ("decider", "scheduler")) as decider,
        RoleProcess(settings, ("api", "analytics")) as api,
    ):
        decider.wait_ready()
        api.wait_ready()
        yield Site(asyncio.run(find_provision()(settings, None)), [decider, api])


def is_refusal(response: httpx.Response) -> bool:
    """Whether it is a 503 that says when to try again."""
    return response.status_code == 503 and int(response.headers["retry-after"]) > 0


@dataclasses.dataclass(frozen=True)
class Writes:
    """A report and a command, each with its Idempotency-Key, to be sent again and again."""

    run: str
    agent: str
    room: str = dataclasses.field(default_factory=lambda: new_id("room"))
    calls_key: str = dataclasses.field(default_factory=lambda: new_id("key"))
    room_key: str = dataclasses.field(default_factory=lambda: new_id("key"))

    async def report(self, site: Site, http: httpx.AsyncClient) -> httpx.Response:
        calls = [{"model": "gpt-4o", "tokens_in": n, "tokens_out": 1} for n in range(3)]
        path = f"/api/v1/observe/runs/{self.run}/llm-calls/"
        return await site.ask(http, "POST", path, self.calls_key, {"calls": calls})

    async def command(self, site: Site, http: httpx.AsyncClient) -> httpx.Response:
        return await site.ask(http, "POST", "/v1/rooms", self.room_key, {"name": self.room})


async def started(site: Site, http: httpx.AsyncClient) -> Writes:
    """A run, and writes that nobody has sent yet. Calls were looked at before: what costs a tenant
    has decided on is in Postgres, and is believed for as long as that is away."""
    assert (await site.ask(http, "GET", "/api/v1/observability/llm-calls/")).is_success
    agent = new_id("agent")
    path, body = "/api/v1/observe/runs/start/", {"agent_name": agent}
    response = await site.ask(http, "POST", path, new_id("key"), body)
    assert response.is_success, response.text
    return Writes(response.json()["run_id"], agent)


async def while_away(site: Site, http: httpx.AsyncClient, away: str, writes: Writes) -> None:
    """What every kind of request is told while a server is away."""
    async with asyncio.timeout(BACK_SECONDS):
        # What was known a second ago is not asked again.
        while (ready := await site.ask(http, "GET", "/health/ready")).is_success:  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    report, command, rooms, calls, health = await asyncio.gather(
        writes.report(site, http),
        writes.command(site, http),
        site.ask(http, "GET", "/v1/rooms"),
        site.ask(http, "GET", "/api/v1/observability/llm-calls/"),
        site.ask(http, "GET", "/health"),
    )
    assert is_refusal(command), command.text
    told = command.json()["error"]
    if away == "kafka":
        assert told["code"] == "OUTCOME_UNKNOWN"
        assert told["details"]["command_id"].startswith("cmd_")
        assert is_refusal(report), report.text
        assert rooms.status_code == 200  # Postgres is there, and what it holds can be read
    else:
        # No database is on the path of a report: who was known a moment ago is still believed.
        assert report.is_success, report.text
        assert is_refusal(rooms), rooms.text
    assert calls.status_code == 200, calls.text
    assert health.status_code == 200
    assert is_refusal(ready)
    dependencies = ready.json()["dependencies"]
    assert [name for name, found in dependencies.items() if not found["ok"]] == [away]
    assert away in ready.json()["detail"]


async def sent_again(site: Site, http: httpx.AsyncClient, writes: Writes) -> None:
    """Both writes repeated with their keys until they are answered, and once more."""
    for write in (writes.report, writes.command):
        async with asyncio.timeout(BACK_SECONDS):
            while not (response := await write(site, http)).is_success:
                assert is_refusal(response), response.text
                await asyncio.sleep(0.2)
        repeated = await write(site, http)
        assert repeated.is_success, repeated.text
        if write == writes.command:
            assert repeated.json() == response.json()
        last = repeated.headers["x-log-position"]
        if write == writes.report:
            path = f"/api/v1/observability/llm-calls/?agent={writes.agent}&min_position={last}"
            listed = await site.ask(http, "GET", path)
            assert listed.status_code == 200, listed.text
            assert len(listed.json()["results"]) == 3
    rooms = await site.ask(http, "GET", "/v1/rooms")
    assert [room["name"] for room in rooms.json()["data"]].count(writes.room) == 1


@pytest.mark.parametrize("how", ["down", "frozen"])
@pytest.mark.parametrize("server", ["kafka", "postgres"])
async def test_an_outage_is_told_at_once_and_ends_by_itself(
    stack: Stack, site: Site, server: str, how: str
) -> None:
    take_away, bring_back = {
        "down": (stack.halt, stack.launch),
        "frozen": (stack.pause, stack.resume),
    }[how]
    async with site.client() as http:
        await site.whole(http)
        writes = await started(site, http)
        await asyncio.to_thread(take_away, server)
        began = time.monotonic()
        try:
            await while_away(site, http, server, writes)
            if (server, how) == ("kafka", "frozen"):
                await asyncio.sleep(began + FREEZE_SECONDS - time.monotonic())
        finally:
            await asyncio.to_thread(bring_back, server)
        try:
            await sent_again(site, http, writes)
            await site.whole(http)
        except BaseException:
            print(*(process.said(60000) for process in site.processes))
            raise
    assert [process.process.poll() for process in site.processes] == [None, None]
