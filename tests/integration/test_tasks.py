"""Tasks on real Kafka and Postgres: one claim wins, and none is lost with its agent."""

import asyncio
import itertools
from typing import Any

import psycopg
import pytest

from infra.config import Settings
from projections.approvals import messages, tasks
from projections.runner import create_table
from schemas.approvals.task import TaskClaimed, TaskReleased
from tests.integration.test_approvals import (
    PATIENCE,
    LaterClock,
    RealWaitroom,
    real_waitroom,
    timers_fire,
)
from tests.loops import read_topic

FIRST = (2**63 - 1, "")


async def found(it: RealWaitroom, id: str) -> dict[str, Any]:
    """A task as people see it."""
    answer = await it.person_calls("GET", f"/v1/check-ins/{id}")
    assert answer.status_code == 200, answer.text
    item: dict[str, Any] = answer.json()["data"]
    return item


async def free_again(it: RealWaitroom, id: str) -> None:
    """Wait until nobody has the task."""
    async with asyncio.timeout(PATIENCE):
        while (await found(it, id))["claimed"]:
            await it.status(id, wait=1)


async def test_many_agents_claim_at_once_and_one_wins(settings: Settings) -> None:
    async with real_waitroom(settings) as it:
        await it.room()
        agents = [await it.agent(f"Agent {number}") for number in range(8)]
        for _ in range(3):
            id = (await it.task())["id"]
            answers = await asyncio.gather(*(it.acts(agent, "claim", id) for agent in agents))
            (won,) = [answer.json()["data"] for answer in answers if answer.status_code == 200]
            lost = [answer.json()["error"] for answer in answers if answer.status_code == 409]
            assert len(lost) == 7
            assert {error["details"]["claimed_by"] for error in lost} == {won["agent_id"]}
            assert won.items() <= (await found(it, id)).items()
        log = await read_topic(it.services.settings, "events", it.tenant)
        assert sum(isinstance(event, TaskClaimed) for _, event in log) == 3


async def test_a_claim_returns_when_its_agent_gives_no_sign_of_life(settings: Settings) -> None:
    clock = LaterClock(0)
    async with real_waitroom(settings, clock) as it:
        await it.room(policies={"claim_minutes": 1})
        robby, marvin = await it.agent(), await it.agent("Marvin")
        silent, busy, ended = [(await it.task())["id"] for _ in range(3)]
        for id in (silent, busy, ended):
            assert (await it.acts(robby, "claim", id)).status_code == 200
        assert (await it.person_calls("POST", f"/v1/check-ins/{ended}/approve")).status_code == 200
        before = (await found(it, busy))["claim_expires_at"]
        clock.seconds = 40  # for the decider more than half of the lease is over
        sign = await it.acts(robby, "messages", busy, {"body": "still at it"})
        assert sign.status_code == 201
        assert (await found(it, busy))["claim_expires_at"] > before
        async with timers_fire(it, 75):
            await free_again(it, silent)
        kept = await found(it, busy)
        assert (kept["status"], kept["agent_name"]) == ("in_progress", "Robby")
        # The agent is gone for good, and with it its signs of life.
        await it.person_calls("DELETE", f"/v1/agents/{kept['agent_id']}")
        async with timers_fire(it, 150):
            await free_again(it, busy)
        assert (await it.acts(marvin, "claim", busy)).status_code == 200
        assert (await it.status(ended))["status"] == "approved"
        log = await read_topic(it.services.settings, "events", it.tenant)
        released = [event for _, event in log if isinstance(event, TaskReleased)]
        assert [event.cause for event in released] == ["lease", "lease"]


async def test_a_task_is_followed_on_the_real_log(settings: Settings) -> None:
    async with real_waitroom(settings) as it:
        await it.room()
        robby, marvin = await it.agent(), await it.agent("Marvin")
        async with it.stream("/v1/rooms/payments/events", marvin) as reader:
            await reader.until("retry:")
            id = (await it.task())["id"]
            await it.acts(robby, "claim", id)
            await it.acts(robby, "help", id, {"body": "which day?"})
            await reader.until("check_in.help_requested")
            assert (await it.acts(marvin, "join", id)).status_code == 200
            await it.acts(marvin, "messages", id, {"body": "Tuesday"})
            await it.acts(robby, "release", id)
            text = await reader.until("check_in.released")
        told = [line.split(": ")[1] for line in text.splitlines() if line.startswith("event: ")]
        assert told == [
            f"check_in.{what}"
            for what in ("created", "claimed", "help_requested", "message", "released")
        ]
        (message,) = (await found(it, id))["messages"]
        assert (message["body"], message["author_name"]) == ("Tuesday", "Marvin")


FILTERS = [
    dict(pairs)
    for first in (("room_id", "room_7"), ("agent_id", "agt_7"))
    for size in range(3)
    for rest in itertools.combinations([("status", "in_progress"), ("claimed", True)], size)
    for pairs in [[first, *rest]]
    if first[0] == "room_id" or ("claimed", True) not in rest
]


def named(filters: dict[str, Any]) -> str:
    return "-".join(filters)


@pytest.fixture(scope="module")
def many_tasks(stack: Any) -> Any:
    """A database with 40,000 tasks, most of them over, and 40,000 messages of 100 threads."""
    url = stack.settings.database_url
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE many_tasks")
    with psycopg.connect(f"{url.rpartition('/')[0]}/many_tasks", autocommit=True) as connection:
        for view in (tasks.TASKS, messages.MESSAGES):
            for sql in create_table(view):
                connection.execute(sql.encode())
        connection.execute(
            f"""INSERT INTO {tasks.TASKS.table} (tenant, id, room_id, agent_id, status, claimed,
posted_at) SELECT 'ten_1', 'task_' || n, 'room_' || n % 20, 'agt_' || n % 20,
CASE WHEN n % 500 < 20 THEN 'in_progress' ELSE 'approved' END, true, n
FROM generate_series(1, 40000) AS n""".encode()
        )
        connection.execute(
            f"""INSERT INTO {messages.MESSAGES.table} (tenant, check_in_id, number)
SELECT 'ten_1', 'task_' || n % 100, n / 100 FROM generate_series(0, 39999) AS n""".encode()
        )
        connection.execute(b"ANALYZE")
        yield connection


def plan(connection: Any, sql: str, parameters: Any) -> str:
    rows = connection.execute(f"EXPLAIN {sql}".encode(), parameters).fetchall()
    return "\n".join(row[0] for row in rows)


@pytest.mark.parametrize("filters", FILTERS, ids=named)
def test_a_page_of_tasks_is_read_from_an_index_in_its_order(
    many_tasks: Any, filters: dict[str, Any]
) -> None:
    sql, parameters = tasks.page("ten_1", filters, FIRST, 51)
    told = plan(many_tasks, sql, parameters)
    assert "Index Scan" in told, told
    assert "Sort" not in told, told
    assert len(many_tasks.execute(sql.encode(), parameters).fetchall()) == 51


def test_a_page_of_a_thread_is_read_from_its_key_in_its_order(many_tasks: Any) -> None:
    told = plan(many_tasks, messages.PAGE, ("ten_1", "task_7", 100, 51))
    assert "Index Scan" in told, told
    assert "Sort" not in told, told
