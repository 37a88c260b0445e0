"""What the API processes of an installation tell each other of reports that were not answered."""

import asyncio
import contextlib
import dataclasses
import json
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import httpx
import psycopg
import pytest
from starlette.types import Message

from api.provision import connected, provision_tenant
from api.retries import Attempt, Retries
from api.retries_shared import OtherProcesses
from infra.config import Settings
from infra.embedded.ports import free_port
from infra.embedded.stack import Stack
from infra.ids import new_id
from infra.kafka import Log, create_topics
from schemas.envelope import Actor
from schemas.instants import parse_iso
from schemas.observability.run import RunCompleted
from streams.telemetry import Origin, Telemetry
from tests.chaos import oracle
from tests.faults.roles import RoleProcess
from tests.loops import deciding
from tests.stack import fresh_stores

PATIENCE_SECONDS = 60.0
REQUEST = "ab" * 16
START = "/api/v1/observe/runs/start/"


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            if await holds():
                return
            await asyncio.sleep(0.01)


# Processes as they know each other, all in this one.


@pytest.fixture(scope="module")
def stores(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """What the processes share."""
    settings = fresh_stores(stack, tmp_path_factory.mktemp("lost"))
    asyncio.run(create_topics(settings.kafka_bootstrap_servers, settings.partitions))
    return settings


class Process:
    """The retries of an API process."""

    def __init__(self, settings: Settings, name: str = "") -> None:
        database, bootstrap = settings.database_url, settings.kafka_bootstrap_servers
        self.others = OtherProcesses(database, bootstrap, name or new_id("api"))
        self.retries = Retries(None, self.others)

    async def begin(self, request: str = REQUEST) -> Attempt:
        return await self.retries.begin(request, present)

    async def answer(self, attempt: Attempt, status: int) -> str:
        """Answer it; the command that it was."""
        await attempt.answer(status)
        self.retries.end(attempt)
        return attempt.command_id

    async def sent(self, status: int = 200, request: str = REQUEST) -> str:
        """A request from its begin to its end; the command that it was."""
        return await self.answer(await self.begin(request), status)

    async def knows(self, count: int) -> None:
        """Return once it has heard of so many lost answers."""

        async def heard() -> bool:
            return self.retries.lost >= count

        await until(heard)


async def present() -> Message:
    """`receive` of a client that stays."""
    await asyncio.Event().wait()
    raise AssertionError("it never leaves")


@contextlib.asynccontextmanager
async def processes(settings: Settings, count: int) -> AsyncIterator[list[Process]]:
    """So many of them, started, on a request that nobody lost so far."""
    with psycopg.connect(settings.database_url, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS lost_answers")
    made = [Process(settings) for _ in range(count)]
    for process in made:
        await process.others.start(process.retries)
    yield made
    for process in made:
        await process.others.stop()


async def test_what_one_process_failed_to_answer_another_knows_once(stores: Settings) -> None:
    async with processes(stores, 3) as (one, two, three):
        lost = await one.sent(503)
        await two.knows(1)
        await three.knows(1)
        assert await two.sent() == lost
        # It is answered, so it is new to all, also to the one that lost it.
        assert lost not in [await process.sent() for process in (one, two, three)]


async def test_a_repeat_that_comes_to_two_processes_at_once_is_one_command(
    stores: Settings,
) -> None:
    async with processes(stores, 3) as (one, two, three):
        lost = await one.sent(503)
        await two.knows(1)
        await three.knows(1)
        both = await asyncio.gather(two.begin(), three.begin())
        assert [attempt.command_id for attempt in both] == [lost, lost]
        # One of them is lost, the other one answered: that is an answer.
        await two.answer(both[0], 503)
        await three.answer(both[1], 200)
        assert lost not in (await one.sent(), await two.sent(), await three.sent())


async def test_two_that_were_lost_are_two_wherever_they_are_repeated(stores: Settings) -> None:
    async with processes(stores, 2) as (one, two):
        lost = [
            await one.answer(attempt, 503) for attempt in (await one.begin(), await one.begin())
        ]
        await two.knows(2)
        found = await asyncio.gather(one.begin(), two.begin())
        assert {attempt.command_id for attempt in found} == set(lost)
        # Each is lost again, and still there.
        await one.answer(found[0], 503)
        await two.answer(found[1], 503)
        assert {await one.sent(), await two.sent()} == set(lost)


async def test_who_hung_up_is_known_elsewhere_while_his_request_is_still_under_way(
    stores: Settings,
) -> None:
    async with processes(stores, 2) as (one, two):
        gone = asyncio.Event()

        async def receive() -> Message:
            await gone.wait()
            return {"type": "http.disconnect"}

        under_way = await one.retries.begin(REQUEST, receive)
        assert await two.sent() != under_way.command_id
        gone.set()
        await two.knows(1)
        assert await two.sent() == under_way.command_id
        # What comes of the first attempt does not matter any more.
        await one.answer(under_way, 200)
        assert under_way.command_id not in (await one.sent(), await two.sent())


async def test_a_process_that_starts_knows_what_was_lost_before(stores: Settings) -> None:
    async with processes(stores, 1) as (one,):
        lost = await one.sent(503)
        two = Process(stores)

        async def told() -> bool:
            with psycopg.connect(stores.database_url) as connection:
                return connection.execute("SELECT FROM lost_answers").fetchone() is not None

        await until(told)
        await two.others.start(two.retries)
        assert await two.sent() == lost
        await two.others.stop()


async def test_a_process_that_stops_tells_its_last_ones(stores: Settings) -> None:
    async with processes(stores, 2) as (one, two):
        lost = await one.sent(503)
        await one.others.stop()
        await two.knows(1)
        assert await two.sent() == lost
        with psycopg.connect(stores.database_url) as connection:
            rows = connection.execute("SELECT name FROM api_processes").fetchall()
        assert rows == [(two.others.name,)]


async def test_a_minute_later_it_is_new_to_all(stores: Settings) -> None:
    async with processes(stores, 2) as (one, two):
        lost = await one.sent(503)
        await two.knows(1)
        with psycopg.connect(stores.database_url) as connection:
            connection.execute("UPDATE lost_answers SET lost_at = lost_at - interval '61 s'")
        assert lost not in (await two.sent(), await one.sent())


@contextlib.asynccontextmanager
async def appending(settings: Settings, process: Process) -> AsyncIterator[Callable[..., Any]]:
    """Appends the report of a new command as a process does, at an instant; gives the command."""
    log = Log(settings.kafka_bootstrap_servers, "test")
    await log.start()

    async def append(at: int) -> str:
        command, mark = new_id("cmd"), process.retries.mark(REQUEST)
        origin = Origin(new_id("ten"), Actor("api_key", "key_1"), command, attempt=mark)
        completed = RunCompleted(completed_at=at, status="success")
        await Telemetry(log).record(origin, new_id("run"), [completed], at=at)
        return command

    yield append
    await log.stop()


async def departed(settings: Settings, process: Process, said_at: int, since: int) -> None:
    """A process has died after a last beat; returns when another one has seen to it."""
    with psycopg.connect(settings.database_url, autocommit=True) as connection:
        row = (process.others.name, said_at, since)
        connection.execute("INSERT INTO api_processes VALUES (%s, 0, now(), %s, %s, now())", row)

        async def forgotten() -> bool:
            found = "SELECT FROM api_processes WHERE name = %s"
            return connection.execute(found, (process.others.name,)).fetchone() is None

        await until(forgotten)


async def test_what_a_dead_process_appended_and_may_not_have_answered_is_told_for_it(
    stores: Settings,
) -> None:
    dead = Process(stores)
    async with processes(stores, 1) as (one,):
        now, _ = dead.retries.unanswered_since()
        async with appending(stores, dead) as append:
            answered, unanswered = await append(now - 2), await append(now - 1)
        async with appending(stores, Process(stores)) as append:
            strange = await append(now)
        await departed(stores, dead, said_at=now, since=now - 1)
        await one.knows(1)
        assert await one.sent() == unanswered
        assert await one.sent() not in (answered, unanswered, strange)


async def test_a_process_that_starts_sees_to_those_that_died_before_it_serves(
    stores: Settings,
) -> None:
    dead, one = Process(stores), Process(stores)
    now, _ = dead.retries.unanswered_since()
    async with processes(stores, 1):
        pass
    async with appending(stores, dead) as append:
        unanswered = await append(now)
    with psycopg.connect(stores.database_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO api_processes VALUES (%s, 0, now(), %s, %s, now() - interval '5 s')",
            (dead.others.name, now, now),
        )
    await one.others.start(one.retries)
    assert await one.sent() == unanswered
    await one.others.stop()


async def test_a_process_that_lost_postgres_and_went_on_is_not_taken_for_dead(
    stores: Settings,
) -> None:
    alive = Process(stores)
    async with processes(stores, 1) as (one,):
        now, _ = alive.retries.unanswered_since()
        async with appending(stores, alive) as append:
            answered = [await append(now + 1), await append(now + 10_000_000)]
        await departed(stores, alive, said_at=now, since=now)
        assert await one.sent() not in answered
        assert one.retries.lost == 0


async def test_without_postgres_requests_go_on_by_what_is_known(
    stores: Settings, stack: Stack
) -> None:
    async with processes(stores, 2) as (one, two):
        lost = await one.sent(503)
        await two.knows(1)
        await asyncio.to_thread(stack.halt, "postgres")
        try:
            assert await two.sent() == lost
            untold = await two.sent(503)
            assert untold != lost
        finally:
            await asyncio.to_thread(stack.launch, "postgres")
        # Told as soon as there is somebody to tell: what was lost, and what was answered.
        await one.knows(2)
        assert await one.sent() == untold
        assert await one.sent() not in (lost, untold)


# Processes of their own.


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two API processes on the same servers, each with a folder of its own, and a third one that
    dies when its second report is on the log."""

    doors: tuple[Settings, Settings]
    doomed: Settings
    dying: RoleProcess
    tenant: str
    headers: dict[str, str]

    async def start(self, door: Settings, agent: str) -> httpx.Response:
        async with httpx.AsyncClient(base_url=door.public_url, timeout=30) as client:
            return await client.post(START, json={"agent_name": agent}, headers=self.headers)

    async def known(self, door: Settings) -> int:
        """How many lost answers a process knows of."""
        async with httpx.AsyncClient(base_url=door.public_url, timeout=30) as client:
            lines = (await client.get("/metrics")).text.splitlines()
        (value,) = (line.split()[1] for line in lines if line.startswith("weir_lost_answers "))
        return int(float(value))

    async def log(self) -> list[oracle.Entry]:
        """What the tenant has reported."""
        servers = self.doors[0].kafka_bootstrap_servers
        found = await asyncio.to_thread(oracle.read_log, servers, ["telemetry"], self.tenant)
        return found["telemetry"]

    async def runs(self, agent: str) -> set[str]:
        """The runs of an agent on the log."""
        return {
            entry.stream_id for entry in await self.log() if entry.fields["agent_name"] == agent
        }

    async def begun_at(self, run: str) -> int:
        """When the report of its start arrived, in microseconds since 1970."""
        (entry,) = (entry for entry in await self.log() if entry.stream_id == run)
        return parse_iso(entry.headers["ce_time"])


def door(shared: Settings, folder: Any) -> Settings:
    """The settings of one more API process."""
    (folder / "clickhouse").mkdir()
    return dataclasses.replace(
        shared,
        port=free_port(),
        public_url="",
        clickhouse_url=f"chdb://{folder / 'clickhouse'}",
        state_dir=str(folder / "state"),
    )


@pytest.fixture(scope="module")
def pair(stores: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    async def provisioned() -> Any:
        async with deciding(stores), connected(stores) as installation:
            return await provision_tenant(
                installation, name="Test", email=f"{new_id('usr')}@weir.test"
            )

    made = asyncio.run(provisioned())
    one, other, doomed = (door(stores, tmp_path_factory.mktemp("door")) for _ in range(3))
    with contextlib.ExitStack() as running:
        roles = [
            running.enter_context(RoleProcess(each, ["api"], failpoint))
            for each, failpoint in ((one, ""), (other, ""), (doomed, "telemetry.appended:2"))
        ]
        for role in roles:
            role.wait_ready()
        headers = {"X-Wax-Key": made.api_key}
        yield Pair((one, other), doomed, roles[2], made.tenant_id, headers)


async def test_a_report_whose_socket_was_cut_counts_once_at_the_other_process(
    pair: Pair, stack: Stack
) -> None:
    one, other = pair.doors
    known, agent = await pair.known(other), new_id("agent")
    for each in pair.doors:
        assert (await pair.start(each, new_id("agent"))).status_code == 200
    body = json.dumps({"agent_name": agent}, separators=(",", ":")).encode()
    await asyncio.to_thread(stack.pause, "kafka")
    try:
        _, wire = await asyncio.open_connection(one.host, one.port)
        head = [f"POST {START} HTTP/1.1", "Host: weir", f"Content-Length: {len(body)}"]
        head += [f"{name}: {value}" for name, value in pair.headers.items()]
        wire.write("\r\n".join([*head, "", ""]).encode() + body)
        await wire.drain()
        await pair.known(one)  # by now it has begun with what came before
        wire.close()

        async def told() -> bool:
            return await pair.known(other) > known

        await until(told)
    finally:
        await asyncio.to_thread(stack.resume, "kafka")
    repeated = await pair.start(other, agent)
    assert repeated.status_code == 200, repeated.text
    assert await pair.runs(agent) == {repeated.json()["run_id"]}


async def test_a_report_whose_process_was_killed_counts_once_at_another(pair: Pair) -> None:
    other = pair.doors[1]
    known, agent = await pair.known(other), new_id("agent")
    answered = (await pair.start(pair.doomed, agent)).raise_for_status().json()["run_id"]
    at = await pair.begun_at(answered)

    async def settled() -> bool:
        """Whether a beat has told that the first one was answered."""
        with psycopg.connect(other.database_url) as connection:
            late = "SELECT FROM api_processes WHERE unanswered_since <= %s"
            return connection.execute(late, (at,)).fetchone() is None

    await until(settled)
    with pytest.raises(httpx.TransportError):
        await pair.start(pair.doomed, agent)
    code = await asyncio.to_thread(pair.dying.process.wait, PATIENCE_SECONDS)
    assert code == -signal.SIGKILL, pair.dying.said()

    async def told() -> bool:
        return await pair.known(other) > known

    await until(told)
    repeated = (await pair.start(other, agent)).raise_for_status().json()["run_id"]
    assert await pair.runs(agent) == {answered, repeated}
    new = (await pair.start(other, agent)).raise_for_status().json()["run_id"]
    assert await pair.runs(agent) == {answered, repeated, new}
    assert len({answered, repeated, new}) == 3


async def test_an_identical_report_after_an_answer_is_new_at_the_other_process(pair: Pair) -> None:
    agent = new_id("agent")
    answers = [await pair.start(each, agent) for each in (*pair.doors, *pair.doors)]
    found = {answer.raise_for_status().json()["run_id"] for answer in answers}
    assert len(found) == 4
    assert await pair.runs(agent) == found
