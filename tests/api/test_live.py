"""The live hub: who gets what, joining without loss or repeat, outages, slow readers."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiokafka import TopicPartition

from api import live
from api.live import LiveHub, TooManyListeners
from api.subscription import QUEUE_MAX, BadPosition, LiveEvent, Resync, Subscription
from infra.kafka import LogUnavailable
from schemas.codec import Codec
from tests.api.fake_log import FakeLog, dispatched

PATIENCE = 5.0


@asynccontextmanager
async def running(log: FakeLog) -> AsyncIterator[LiveHub]:
    hub = LiveHub(log.consumer, Codec([], []))
    await hub.start()
    try:
        yield hub
    finally:
        await hub.stop()


async def offsets(subscription: Subscription, count: int) -> list[int]:
    """The offsets of the next `count` events."""
    found: list[int] = []
    async with asyncio.timeout(PATIENCE):
        while len(found) < count:
            for item in await subscription.batch(1.0):
                assert isinstance(item, LiveEvent)
                found.append(item.position.offset)
    return found


async def first(subscription: Subscription) -> LiveEvent | Resync:
    async with asyncio.timeout(PATIENCE):
        while True:
            if items := await subscription.batch(1.0, limit=1):
                return items[0]


def other_tenant(hub: LiveHub, tenant: str) -> str:
    """A tenant in the same partition."""
    mine = hub.partition_of(tenant)
    names = (f"ten_{number}" for number in range(1000))
    return next(name for name in names if name != tenant and hub.partition_of(name) == mine)


async def test_a_listener_gets_its_tenants_events_from_now_on() -> None:
    log = FakeLog()
    async with running(log) as hub:
        partition = hub.partition_of("ten_a")
        await log.append(partition, "ten_a")
        await dispatched(hub, log, partition)
        async with await hub.subscribe("ten_a") as mine:
            await log.append(partition, other_tenant(hub, "ten_a"))
            await log.append(partition, "ten_a")
            assert await offsets(mine, 1) == [2]


async def test_a_predicate_narrows_and_one_that_fails_wants_nothing() -> None:
    log = FakeLog()
    async with running(log) as hub:
        partition = hub.partition_of("ten_a")

        def picky(event: LiveEvent) -> bool:
            if event.type == "test.broken.v1":
                raise ValueError("cannot judge this")
            return event.type == "test.wanted.v1"

        async with await hub.subscribe("ten_a", wants=picky) as mine:
            for type in ("test.broken.v1", "test.other.v1", "test.wanted.v1"):
                await log.append(partition, "ten_a", type)
            assert await offsets(mine, 1) == [2]


async def test_one_more_listener_costs_nothing_on_the_log() -> None:
    log = FakeLog()
    async with running(log) as hub:
        opened = log.opened
        listeners = [await hub.subscribe("ten_a") for _ in range(200)]
        await log.append(hub.partition_of("ten_a"), "ten_a")
        assert [await offsets(listener, 1) for listener in listeners] == [[0]] * 200
        assert log.opened == opened


async def test_callbacks_see_every_record_and_a_failing_one_harms_nobody() -> None:
    log = FakeLog()
    async with running(log) as hub:
        seen: list[str] = []

        def failing(event: LiveEvent) -> None:
            raise RuntimeError("a cache with a bug")

        hub.on_event(failing)
        hub.on_event(lambda event: seen.append(event.tenant))
        for tenant in ("ten_a", "ten_b"):
            await log.append(hub.partition_of(tenant), tenant)
            await dispatched(hub, log, hub.partition_of(tenant))
        assert seen == ["ten_a", "ten_b"]


async def write(
    log: FakeLog, partition: TopicPartition, dice: random.Random, written: list[int]
) -> None:
    """Append some records of two tenants, with gaps; `written` gets the offsets of ten_a's."""
    for _ in range(dice.randrange(1, 400)):
        tenant = dice.choice(["ten_a", "ten_a", "ten_b"])
        offset = await log.append(partition, tenant, gap=dice.choice([0, 0, 1, 3]))
        if tenant == "ten_a":
            written.append(offset)
        if dice.random() < 0.3:
            await asyncio.sleep(0)


async def test_resuming_joins_log_and_tail_without_loss_or_repeat() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    for _ in range(20):
        log, expected, found = FakeLog(partitions=1), list[int](), list[int]()
        async with running(log) as hub:
            partition = hub.partition_of("ten_a")
            await write(log, partition, dice, expected)
            after = dice.randrange(-1, log.end[partition])
            writer = asyncio.create_task(write(log, partition, dice, expected))
            # A client that loses its connection every now and then.
            position = f"events:0:{after}"
            async with asyncio.timeout(PATIENCE):
                while not writer.done() or found[-1:] != expected[-1:]:
                    async with await hub.subscribe("ten_a", after=position) as mine:
                        for _ in range(dice.randrange(1, 12)):
                            for item in await mine.batch(0.001, limit=dice.randrange(1, 40)):
                                found.append(item.position.offset)
                                position = str(item.position)
                            checkpoint = mine.checkpoint()
                            if checkpoint is not None and dice.random() < 0.5:
                                position = str(checkpoint)
            await writer
            assert found == [offset for offset in expected if offset > after]


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "events",
        "events:1",
        "events:one:2",
        "billing:{mine}:1",
        "events:{other}:1",
        "events:{mine}:-2",
        "events:{mine}:99999999999999999999",
        "a:events:{mine}:1",
    ],
)
async def test_what_is_no_position_of_this_stream_is_refused(text: str) -> None:
    log = FakeLog()
    async with running(log) as hub:
        mine = hub.partition_of("ten_a").partition
        with pytest.raises(BadPosition):
            other = (mine + 1) % log.partitions
            await hub.subscribe("ten_a", after=text.format(mine=mine, other=other))
        assert hub.listeners == 0


async def test_a_position_older_than_the_log_is_told_to_resync_and_goes_on_live() -> None:
    log = FakeLog()
    async with running(log) as hub:
        partition = hub.partition_of("ten_a")
        for _ in range(10):
            await log.append(partition, "ten_a")
        await dispatched(hub, log, partition)
        log.forget(partition, before=8)
        async with await hub.subscribe("ten_a", after=f"events:{partition.partition}:3") as mine:
            item = await first(mine)
            assert isinstance(item, Resync)
            assert item.position.offset == 9
            await log.append(partition, "ten_a")
            assert await offsets(mine, 1) == [10]


async def test_a_position_that_the_log_has_never_reached_is_told_to_resync() -> None:
    log = FakeLog()
    async with running(log) as hub:
        number = hub.partition_of("ten_a").partition
        async with await hub.subscribe("ten_a", after=f"events:{number}:500") as mine:
            assert isinstance(await first(mine), Resync)


async def test_an_outage_ends_nobody_and_leaves_no_gap() -> None:
    log = FakeLog()
    async with running(log) as hub:
        partition = hub.partition_of("ten_a")
        async with await hub.subscribe("ten_a") as mine:
            await log.append(partition, "ten_a")
            assert await offsets(mine, 1) == [0]
            await log.set_up(False)
            # Written by others while this process can't reach the broker.
            await log.append(partition, "ten_a")
            with pytest.raises(LogUnavailable):
                await hub.subscribe("ten_a", after=f"events:{partition.partition}:-1")
            await log.set_up(True)
            await log.append(partition, "ten_a")
            assert await offsets(mine, 2) == [1, 2]


async def test_records_lost_to_retention_during_an_outage_are_owned_up_to() -> None:
    log = FakeLog()
    async with running(log) as hub:
        partition = hub.partition_of("ten_a")
        forgotten: list[bool] = []
        hub.on_gap(lambda: forgotten.append(True))
        async with await hub.subscribe("ten_a") as mine:
            await log.set_up(False)
            for _ in range(5):
                await log.append(partition, "ten_a")
            log.forget(partition, before=4)
            await log.set_up(True)
            assert isinstance(await first(mine), Resync)
            assert forgotten
            await log.append(partition, "ten_a")
            assert await offsets(mine, 1) == [5]


async def test_a_slow_reader_is_let_go_and_resumes_where_it_was() -> None:
    log = FakeLog()
    async with running(log) as hub:
        partition = hub.partition_of("ten_a")
        slow, quick = await hub.subscribe("ten_a"), await hub.subscribe("ten_a")
        total = QUEUE_MAX + 50
        reading = asyncio.create_task(offsets(quick, total))
        for _ in range(total):
            await log.append(partition, "ten_a")
            await dispatched(hub, log, partition)
        assert await reading == list(range(total))
        assert slow.ended == "slow reader"
        assert slow.checkpoint() is None
        got = await offsets(slow, QUEUE_MAX)
        after = f"events:{partition.partition}:{got[-1]}"
        async with await hub.subscribe("ten_a", after=after) as again:
            assert got + await offsets(again, 50) == list(range(total))


async def test_a_revoked_credential_ends_its_listeners_only() -> None:
    log = FakeLog()
    async with running(log) as hub:
        one = await hub.subscribe("ten_a", credential="key_1")
        two = await hub.subscribe("ten_a", credential="key_2")
        hub.revoke("key_1")
        assert (one.ended, two.ended) == ("credential revoked", "")
        assert hub.listeners == 1


async def test_all_listeners_of_a_user_end_when_all_sessions_do() -> None:
    async with running(FakeLog()) as hub:
        one = await hub.subscribe("ten_a", credential="ses_1", holder="usr_1")
        two = await hub.subscribe("ten_a", credential="ses_2", holder="usr_2")
        hub.revoke("usr_1")
        assert (one.ended, two.ended) == ("credential revoked", "")


async def test_listeners_are_limited_per_tenant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "LISTENERS_PER_TENANT_MAX", 2)
    log = FakeLog()
    async with running(log) as hub:
        async with await hub.subscribe("ten_a"), await hub.subscribe("ten_a"):
            with pytest.raises(TooManyListeners):
                await hub.subscribe("ten_a")
            async with await hub.subscribe("ten_b"):
                assert hub.listeners == 3
        async with await hub.subscribe("ten_a"):
            assert hub.listeners == 1


async def test_no_broker_at_the_start_is_said_so() -> None:
    log = FakeLog()
    log.up = False
    with pytest.raises(LogUnavailable):
        await LiveHub(log.consumer, Codec([], [])).start()
