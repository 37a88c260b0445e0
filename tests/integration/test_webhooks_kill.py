"""Webhooks whose sender is killed, frozen or not alone: none is lost, and each keeps its order."""

import asyncio
import random
import signal

import pytest

from infra.config import Settings
from tests.faults.departed import forget_the_dead
from tests.faults.roles import RoleProcess
from tests.integration.test_failpoints_roles import death
from tests.integration.webhook_rig import Hooked, Received, answer, hooked, until
from tests.loops import read_topic


def in_order(received: list[Received]) -> list[str]:
    """The ids as a receiver that dedupes sees them. Raises AssertionError when one comes late."""
    seen: list[str] = []
    for request in received:
        if request.id in seen:
            assert request.id == seen[-1], "a repeat is of the last only"
        else:
            seen.append(request.id)
    return seen


@pytest.mark.parametrize(
    ("point", "received"),
    [("fan_out.posted:1", 1), ("webhooks.posted:1", 2), ("webhooks.folded:2", 1)],
)
async def test_a_streams_role_that_dies_here_loses_no_webhook(
    settings: Settings, point: str, received: int
) -> None:
    async with hooked(settings) as it:
        url = it.receiver.endpoint()
        watcher = await it.watch(url)
        with RoleProcess(it.settings, ["streams"], point) as dying:
            dead = asyncio.create_task(death(dying))
            await it.signal("one")
            await dead
        await forget_the_dead(it.settings)
        with RoleProcess(it.settings, ["streams"]):
            await it.signal("two")
            found = await it.until_statuses(watcher["id"], ["delivered"] * 2)
        got = it.receiver.at(url)
        assert in_order(got) == [one["event_id"] for one in found]
        assert len(got) == 1 + received
        for request in got:
            request.verified(watcher["webhook_secret"])
        kinds = [
            headers["ce_type"]
            for headers, _ in await read_topic(it.settings, "events", it.waitroom.tenant)
        ]
        assert kinds.count("approvals.watcher_triggered.v1") == 2
        assert kinds.count("platform.webhook_requested.v1") == 2


async def test_a_frozen_sender_that_wakes_up_changes_nothing(settings: Settings) -> None:
    async with hooked(settings) as it:
        url = it.receiver.endpoint()
        watcher = await it.watch(url)
        with RoleProcess(it.settings, ["streams"], "webhooks.posted:1:SIGSTOP") as frozen:
            await it.signal("one")
            await it.receiver.until(url, 1)
            await until(lambda: asyncio.to_thread(frozen.is_frozen), bool)
            await forget_the_dead(it.settings)
            with RoleProcess(it.settings, ["streams"]):
                # Its lease has run out, and the other makes the attempt again.
                await it.signal("two")
                before = await it.until_statuses(watcher["id"], ["delivered"] * 2)
                frozen.signal(signal.SIGCONT)
                attempts = "SELECT count(*) AS n FROM webhook_attempts_v1 WHERE endpoint_id = %s"
                reads = it.waitroom.services.reads

                async def acted() -> bool:
                    """It says what came of its attempt, too late, or has seen that others do."""
                    told = await reads.one(attempts, watcher["id"])
                    has_ended = frozen.process.poll() is not None
                    return told == {"n": 3} or "is let go" in frozen.said() or has_ended

                await until(acted, bool)
                await it.signal("three")
                after = await it.until_statuses(watcher["id"], ["delivered"] * 3)
        assert [one["attempt_count"] for one in after] == [1, 1, 1]
        assert [one["event_id"] for one in after[:2]] == [one["event_id"] for one in before]
        got = [request.id for request in it.receiver.at(url)]
        assert list(dict.fromkeys(got)) == [one["event_id"] for one in after]


async def test_two_senders_that_are_killed_at_random_lose_nothing(settings: Settings) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    async with hooked(settings) as it:
        urls = [it.receiver.endpoint(), it.receiver.endpoint(answer(503), answer(204))]
        ids = [(await it.watch(url))["id"] for url in urls]
        count = 0
        for _ in range(2):
            with (
                RoleProcess(it.settings, ["streams"]) as first,
                RoleProcess(it.settings, ["streams"]) as second,
            ):
                for role in (first, second):
                    await asyncio.to_thread(role.wait_ready)
                for _ in range(dice.randrange(5, 15)):
                    count += 1
                    await it.signal(f"n{count}")
                victims = dice.choice([(first,), (first, second)])
                for role in victims:
                    role.signal(signal.SIGKILL)
                count += 1
                await it.signal(f"n{count}")
        with RoleProcess(it.settings, ["streams"]):
            await judge(it, dict(zip(ids, urls, strict=True)), count)


async def judge(it: Hooked, watchers: dict[str, str], count: int) -> None:
    """Every signal was delivered to every endpoint, the first time in the order of the log."""
    for id, url in watchers.items():
        found = await it.until_statuses(id, ["delivered"] * count)
        got = [request.id for request in it.receiver.at(url)]
        assert list(dict.fromkeys(got)) == [one["event_id"] for one in found]
        names = [one["body"]["data"]["type"] for one in found]
        assert names == [f"n{number}" for number in range(1, count + 1)]
