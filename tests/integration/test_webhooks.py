"""Webhooks on real servers: signed, in order, at least once, whatever the receiver does."""

import asyncio
import dataclasses
import json
import os
import subprocess
import sys
from urllib.parse import urlsplit

import psycopg
import pytest
from aiokafka import TopicPartition
from standardwebhooks import WebhookVerificationError

from infra.config import Settings
from infra.kafka import (
    Log,
    Record,
    as_mapping,
    bounds,
    consumer,
    read_range,
    stop_consumer,
)
from infra.partitioning import partition_for
from projections.platform.webhook_deliveries import ATTEMPTS, DELIVERIES, OFFSETS, QUEUES
from streams.platform import webhook_client
from tests.integration.test_approvals import LaterClock
from tests.integration.webhook_rig import (
    answer,
    delivering,
    endless,
    hang,
    hooked,
    until,
)
from tests.loops import read_topic


async def test_a_signal_reaches_the_watchers_it_matches_signed_and_once(
    settings: Settings,
) -> None:
    async with hooked(settings) as it, delivering(it.settings):
        url, other = it.receiver.endpoint(), it.receiver.endpoint()
        watcher = await it.watch(url, filter={"payload.env": ["prod", "staging"]})
        await it.watch(other, filter={"type": "nothing"})
        await it.signal("deploy", env="dev")
        signal = await it.signal("deploy", env="prod")
        (received,) = await it.receiver.until(url, 1)
        body = received.verified(watcher["webhook_secret"])
        assert (body["type"], body["data"]["signal_id"]) == ("signal.broadcast", signal)
        assert body["data"]["payload"] == {"env": "prod"}
        (delivery,) = await it.until_statuses(watcher["id"], ["delivered"])
        assert delivery["event_id"] == received.id
        assert [one["status_code"] for one in delivery["attempts"]] == [204]
        assert (await it.watcher(watcher["id"]))["last_event_id"] == received.id
        assert it.receiver.at(other) == []
        assert len(it.receiver.at(url)) == 1


async def test_what_fails_is_tried_again_before_what_came_later(settings: Settings) -> None:
    async with hooked(settings) as it, delivering(it.settings):
        url, healthy = (
            it.receiver.endpoint(answer(500, b"broken"), answer(204)),
            (it.receiver.endpoint()),
        )
        watcher = await it.watch(url)
        await it.watch(healthy)
        for name in ("one", "two", "three"):
            await it.signal(name)
        await it.receiver.until(healthy, 3)
        assert len(it.receiver.at(url)) == 1  # five seconds are not over yet
        got = await it.receiver.until(url, 4)
        names = [one.verified(watcher["webhook_secret"])["data"]["type"] for one in got]
        assert names == ["one", "one", "two", "three"]
        assert got[0].id == got[1].id
        first, *_ = await it.until_statuses(watcher["id"], ["delivered"] * 3)
        tried = [(one["outcome"], one["status_code"], one["response"]) for one in first["attempts"]]
        assert tried == [("failed", 500, "broken"), ("delivered", 204, "")]


def together(partitions: int, first: str, id: str) -> bool:
    """Whether two endpoints are on one partition of `deliveries`."""
    return partition_for(first, partitions) == partition_for(id, partitions)


async def test_an_endpoint_that_hangs_holds_up_no_other_not_even_in_its_partition(
    settings: Settings,
) -> None:
    async with hooked(settings) as it, delivering(it.settings):
        slow = it.receiver.endpoint(hang)
        first = (await it.watch(slow))["id"]
        url = it.receiver.endpoint()
        while not together(settings.partitions, first, (await it.watch(url))["id"]):
            url = it.receiver.endpoint()
        for number in range(3):
            await it.signal(f"n{number}")
        got = await it.receiver.until(url, 3)
        assert [one.body.count(f'"n{number}"') for number, one in enumerate(got)] == [1, 1, 1]
        assert len(await it.receiver.until(slow, 1)) == 1


async def test_410_disables_the_watcher_and_drops_what_waits(settings: Settings) -> None:
    async with hooked(settings) as it, delivering(it.settings):
        url = it.receiver.endpoint(answer(410))
        watcher = await it.watch(url)
        for number in range(3):
            await it.signal(f"n{number}")
        disabled = await it.until_disabled(watcher["id"])
        assert disabled["status_reason"].endswith("410 Gone")
        await it.signal("later")
        # Decided after the signal: what comes behind it was never going to be sent.
        other = it.receiver.endpoint()
        await it.watch(other)
        await it.signal("last")
        await it.receiver.until(other, 1)
        found = await it.deliveries(watcher["id"])
        assert {one["status"] for one in found} == {"dropped"}
        assert len(it.receiver.at(url)) == 1


async def test_an_endpoint_that_is_enabled_again_gets_what_comes_signed_with_both_secrets(
    settings: Settings,
) -> None:
    async with hooked(settings) as it, delivering(it.settings):
        url = it.receiver.endpoint(answer(410))
        watcher = await it.watch(url)
        path = f"/v1/watchers/{watcher['id']}"
        await it.signal("dropped")
        await it.until_disabled(watcher["id"])
        it.receiver.behave(url)
        rotated = await it.waitroom.call("POST", f"{path}/rotate-secret", it.agent)
        secrets = [watcher["webhook_secret"], rotated.json()["data"]["webhook_secret"]]
        assert (await it.waitroom.person_calls("POST", f"{path}/enable")).status_code == 200
        await it.signal("later")
        *_, later = await it.receiver.until(url, 2)
        for secret in secrets:
            assert later.verified(secret)["data"]["type"] == "later"
        assert len(later.headers["webhook-signature"].split(" ")) == 2
        # What was dropped comes when somebody asks for it, and by then only the new secret signs.
        await it.waitroom.call("POST", f"{path}/rotate-secret", it.agent, {"overlap_hours": 0})
        (dropped, _) = await it.until_statuses(watcher["id"], ["dropped", "delivered"])
        again = f"{path}/deliveries/{dropped['event_id']}/redeliver"
        assert (await it.waitroom.person_calls("POST", again)).status_code == 202
        *_, last = await it.receiver.until(url, 3)
        assert len(last.headers["webhook-signature"].split(" ")) == 1
        for secret in secrets:
            with pytest.raises(WebhookVerificationError):
                last.verified(secret)


async def test_what_a_receiver_must_not_do_to_us(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No redirect is followed, no body is read to its end, nobody is waited for for long."""
    monkeypatch.setattr(webhook_client, "TOTAL_SECONDS", 2.0)
    async with hooked(settings) as it, delivering(it.settings):
        elsewhere = it.receiver.endpoint()
        urls = {
            "redirect": it.receiver.endpoint(answer(307, location=elsewhere)),
            "endless": it.receiver.endpoint(endless),
            "hanging": it.receiver.endpoint(hang),
            "huge": it.receiver.endpoint(answer(200, b"y" * 5_000_000)),
            "compressed": it.receiver.endpoint(answer(200, b"\x1f\x8b", content_encoding="gzip")),
            "nobody": "http://127.0.0.1:9/hook",
            "nowhere": "http://nowhere.invalid/hook",
        }
        ids = {name: (await it.watch(url))["id"] for name, url in urls.items()}
        await it.signal("x")
        attempts = {name: await it.until_tried(id) for name, id in ids.items()}
        codes = {name: attempt["status_code"] for name, attempt in attempts.items()}
        assert codes == {
            "redirect": 307,
            "endless": 500,
            "hanging": None,
            "huge": 200,
            "compressed": 200,
            "nobody": None,
            "nowhere": None,
        }
        assert it.receiver.at(elsewhere) == []
        assert attempts["hanging"]["error"] == "no answer within 2 s"
        assert attempts["endless"]["response"] == "x" * 1024
        assert attempts["huge"]["outcome"] == "delivered"
        assert all(attempt["duration_ms"] < 10_000 for attempt in attempts.values())


async def test_our_own_network_is_not_reached_by_any_name(settings: Settings) -> None:
    async with hooked(settings) as it:
        port = urlsplit(it.receiver.endpoint()).port
        strict = dataclasses.replace(it.settings, egress_allow=())
        async with delivering(strict):
            urls = [f"http://localhost:{port}/x", f"http://2130706433:{port}/x"]
            ids = [(await it.watch(url))["id"] for url in urls]
            await it.signal("x")
            for id in ids:
                assert "is not a public address" in (await it.until_tried(id))["error"]
        assert it.receiver.got == []


async def test_what_no_attempt_delivers_is_dead_and_can_be_redriven(settings: Settings) -> None:
    async with hooked(settings) as it:
        url = it.receiver.endpoint(answer(500, b"broken"))
        watcher = await it.watch(url)
        # A sender whose clock is a day and a half ahead: the first attempt is the last.
        async with delivering(it.settings, clock=LaterClock(36 * 3600)):
            await it.signal("one")
            await it.signal("two")
            dead = await it.until_statuses(watcher["id"], ["dead", "dead"])
        assert [len(one["attempts"]) for one in dead] == [1, 1]
        letters = await read_topic(it.settings, "deliveries.dlq", it.waitroom.tenant)
        assert [event.event_id for _, event in letters] == [one["event_id"] for one in dead]
        assert letters[0][0]["reason"] == "the endpoint answered 500"
        assert json.loads(letters[0][1].body) == dead[0]["body"]
        it.receiver.behave(url)
        async with delivering(it.settings):
            path = f"/v1/watchers/{watcher['id']}/deliveries/{dead[1]['event_id']}/redeliver"
            assert (await it.waitroom.person_calls("POST", path)).status_code == 202
            got = await it.receiver.until(url, 3)
            assert got[2].id == dead[1]["event_id"]
            got[2].verified(watcher["webhook_secret"])
            await it.until_statuses(watcher["id"], ["dead", "delivered"])
            command = [sys.executable, "-m", "infra.cli", "webhooks", "redrive"]
            command += ["--tenant", it.waitroom.tenant]
            for count in ("1", "0"):
                done = await asyncio.to_thread(
                    subprocess.run,
                    command,
                    env={**os.environ, **it.settings.to_env()},
                    capture_output=True,
                    text=True,
                    check=True,
                )
                assert done.stdout.strip() == f"{count} webhooks will be sent again"
                await it.until_statuses(watcher["id"], ["delivered", "delivered"])
            assert [one.id for one in it.receiver.at(url)[3:]] == [dead[0]["event_id"]]


async def test_a_removed_watcher_gets_nothing_more(settings: Settings) -> None:
    async with hooked(settings) as it, delivering(it.settings):
        url = it.receiver.endpoint(answer(500), answer(204))
        watcher = await it.watch(url)
        await it.signal("one")
        await it.receiver.until(url, 1)
        removed = await it.waitroom.call("DELETE", f"/v1/watchers/{watcher['id']}", it.agent)
        assert removed.status_code == 200
        await it.signal("two")
        rows = "SELECT status FROM webhook_deliveries_v1 WHERE endpoint_id = %s"
        reads = it.waitroom.services.reads
        dropped = [{"status": "dropped"}]
        await until(lambda: reads.all(rows, watcher["id"]), lambda found: found == dropped)
        assert len(it.receiver.at(url)) == 1


async def test_tables_that_were_lost_come_back_and_nothing_is_sent_twice(
    settings: Settings,
) -> None:
    async with hooked(settings) as it:
        good, bad = it.receiver.endpoint(), it.receiver.endpoint(answer(410))
        ids = [(await it.watch(url))["id"] for url in (good, bad)]
        async with delivering(it.settings):
            for number in range(5):
                await it.signal(f"n{number}")
            await it.until_statuses(ids[0], ["delivered"] * 5)
            await it.until_disabled(ids[1])
            before = [await it.deliveries(id) for id in ids]
        sent = len(it.receiver.got)
        async with await psycopg.AsyncConnection.connect(
            it.settings.database_url, autocommit=True
        ) as connection:
            for table in (DELIVERIES, ATTEMPTS, QUEUES, OFFSETS):
                await connection.execute(f"DROP TABLE {table}".encode())
        async with delivering(it.settings):
            assert [await it.deliveries(id) for id in ids] == before
            await it.signal("after")
            await it.until_statuses(ids[0], ["delivered"] * 6)
        assert len(it.receiver.got) == sent + 1


async def dead_letters(settings: Settings, key: str) -> list[dict[str, str]]:
    """The headers of the dead letters under a key, whatever their values are."""
    reader = consumer(settings.kafka_bootstrap_servers, "test-reader")
    await reader.start()
    found = []
    try:
        place = TopicPartition("deliveries.dlq", 0)
        reader.assign([place])
        async for records in read_range(reader, place, *await bounds(reader, place)):
            found += [as_mapping(one.headers) for one in records if one.key == key.encode()]
    finally:
        await stop_consumer(reader)
    return [dict(headers) for headers in found]


async def test_what_cannot_be_read_is_put_aside_and_the_rest_goes_on(settings: Settings) -> None:
    async with hooked(settings) as it, delivering(it.settings):
        url = it.receiver.endpoint()
        watcher = await it.watch(url)
        log = Log(it.settings.kafka_bootstrap_servers, "test")
        rubbish = Record(watcher["id"].encode(), b"rubbish", [("ce_tenant", b"nobody")])
        await log.append("deliveries", [rubbish])
        await log.stop()
        await it.signal("behind it")
        await it.receiver.until(url, 1)
        (letter,) = await dead_letters(it.settings, watcher["id"])
        assert letter["reason"].startswith("deliveries:")
