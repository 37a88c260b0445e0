"""The live hub: one tail of the log per API process, shared by everybody who wants to know.

It follows the topics `events` and `billing` from their end, read_committed, and hands each record
to the caches that must forget (`on_event`) and to the listeners of its tenant (`subscribe`). One
more listener costs nothing on the log. A listener's queue is bounded: who reads too slowly is let
go and resumes by its last position, from the log, without loss or repeat.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from api.replay import Replay, Stretch, close
from api.subscription import BadPosition, LiveEvent, Subscription, Wants, everything
from infra.kafka import LogUnavailable
from infra.partitioning import partition_for
from schemas.codec import Codec
from schemas.envelope import Position

logger = logging.getLogger(__name__)

LISTENERS_MAX = 5_000
LISTENERS_PER_TENANT_MAX = 1_000
_TIMEOUT_SECONDS = 10.0
_QUIET_SECONDS = 10.0


class TooManyListeners(Exception):
    """This process or this tenant has as many open streams as it may have."""


class LiveHub:
    """The tail and its listeners. `connect()` makes an unstarted consumer (infra.kafka.consumer).

    All of it runs on one event loop.
    """

    def __init__(
        self,
        connect: Callable[[], Any],
        codec: Codec,
        topics: Collection[str] = ("events", "billing"),
    ) -> None:
        self.codec = codec
        self._connect, self._topics = connect, tuple(topics)
        self._replay = Replay(connect)
        self._next: dict[TopicPartition, int] = {}
        self._counts: dict[str, int] = {}
        self._callbacks: list[Callable[[LiveEvent], None]] = []
        self._gap_callbacks: list[Callable[[], None]] = []
        self._open: set[Subscription] = set()
        self._live: dict[tuple[TopicPartition, str], set[Subscription]] = {}
        self._per_tenant: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None

    def on_event(self, callback: Callable[[LiveEvent], None]) -> None:
        """Call for every record of the topics, in order, on the event loop; must not block."""
        self._callbacks.append(callback)

    def on_gap(self, callback: Callable[[], None]) -> None:
        """Call when records were lost to this process (retention): caches must forget all."""
        self._gap_callbacks.append(callback)

    async def start(self) -> None:
        """Find the end of the log and follow it. Raises LogUnavailable.

        Every record committed after this returns is dispatched.
        """
        tail = await self._open_tail()
        self._task = asyncio.create_task(self._run(tail), name="live tail")

    async def stop(self) -> None:
        """End every listener and the tail."""
        self.end_all("shutdown")
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._replay.stop()

    def end_all(self, reason: str) -> None:
        """End every listener, so that a server that is told to stop need not wait for them."""
        for subscription in list(self._open):
            subscription.end(reason)

    def revoke(self, credential: str) -> None:
        """End the listeners that came with this key or session, or with any of this user's."""
        named = [item for item in self._open if credential in (item.credential, item.holder)]
        for subscription in named:
            subscription.end("credential revoked")

    def partition_of(self, key: str, topic: str = "events") -> TopicPartition:
        """Where the records of a tenant (of its root, for a sub-tenant) are."""
        return TopicPartition(topic, partition_for(key, self._counts[topic]))

    async def subscribe(
        self,
        tenant: str,
        *,
        topic: str = "events",
        wants: Wants = everything,
        after: str | None = None,
        credential: str = "",
        holder: str = "",
        key: str = "",
    ) -> Subscription:
        """Listen to a tenant's records from now on, or from behind the position `after`.

        credential: the id of the key or session that asks; holder: of the user or agent behind it.
        key: the records' key when it isn't the tenant (a sub-tenant's root). Raises BadPosition,
        TooManyListeners, and LogUnavailable when a position can't be looked up.
        """
        mine = self._per_tenant.get(tenant, 0)
        if len(self._open) >= LISTENERS_MAX or mine >= LISTENERS_PER_TENANT_MAX:
            raise TooManyListeners(f"{mine} streams of this tenant are open")
        partition = self.partition_of(key or tenant, topic)
        offset = _offset(after, partition) if after else None
        subscription = Subscription(
            self, tenant, partition, wants, credential=credential, holder=holder
        )
        self._open.add(subscription)
        self._per_tenant[tenant] = mine + 1
        try:
            # Who left off where the tail stands now needs no question to the broker.
            known = offset is None or offset + 1 == self._next[partition]
            subscription.start(offset, None if known else await self._replay.bounds(partition))
        except BaseException:
            self.detach(subscription)
            raise
        return subscription

    def attach(self, subscription: Subscription) -> None:
        """Hand it the live records of its tenant, unless it has ended."""
        if subscription in self._open:
            place = (subscription.partition, subscription.tenant)
            self._live.setdefault(place, set()).add(subscription)

    def detach(self, subscription: Subscription) -> None:
        """Forget a listener; twice is once."""
        if subscription not in self._open:
            return
        self._open.remove(subscription)
        left = self._per_tenant[subscription.tenant] - 1
        self._per_tenant[subscription.tenant] = left
        if not left:
            del self._per_tenant[subscription.tenant]
        place = (subscription.partition, subscription.tenant)
        if place in self._live:
            self._live[place].discard(subscription)
            if not self._live[place]:
                del self._live[place]

    def next_offset(self, partition: TopicPartition) -> int:
        """The first offset that was not yet dispatched."""
        return self._next[partition]

    async def read(self, partition: TopicPartition, offset: int) -> Stretch:
        """A batch of the log for a listener that is behind. Raises Truncated, LogUnavailable."""
        return await self._replay.read(partition, offset)

    @property
    def listeners(self) -> int:
        """How many are listening."""
        return len(self._open)

    async def _open_tail(self) -> Any:
        """A consumer that stands where dispatch stopped, or at the end the first time."""
        tail = self._connect()
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                await tail.start()
                # Asking for one partition's end makes the client learn all of the topic's.
                await tail.end_offsets([TopicPartition(topic, 0) for topic in self._topics])
                for topic in self._topics:
                    self._counts[topic] = len(tail.partitions_for_topic(topic))
                partitions = [
                    TopicPartition(topic, number)
                    for topic in self._topics
                    for number in range(self._counts[topic])
                ]
                unknown = [item for item in partitions if item not in self._next]
                if unknown:
                    self._next.update(await tail.end_offsets(unknown))
                tail.assign(partitions)
                for partition in partitions:
                    tail.seek(partition, self._next[partition])
        except (KafkaError, TimeoutError, OSError) as error:
            await close(tail)
            raise LogUnavailable(f"the log has no tail to follow: {error!r}") from error
        except BaseException:
            await close(tail)
            raise
        return tail

    async def _run(self, tail: Any) -> None:
        """Follow for ever: a consumer that fails is replaced, dispatch goes on where it was."""
        pause = 0.1
        while True:
            try:
                if tail is None:
                    tail = await self._open_tail()
                    pause = 0.1
                await self._follow(tail)
            except OffsetOutOfRangeError as error:
                logger.error("the tail lost records: %r", error)
                await self._skip_lost(tail)
            except (KafkaError, LogUnavailable, TimeoutError, OSError) as error:
                logger.warning("the tail is away, next try in %.1f s: %r", pause, error)
            except Exception:
                logger.exception("the tail failed, next try in %.1f s", pause)
            finally:
                await close(tail)
            tail = None
            await asyncio.sleep(pause)
            pause = min(pause * 2, 5.0)

    async def _follow(self, tail: Any) -> None:
        """Dispatch until something fails; a consumer that is stuck counts as failed."""
        clock = asyncio.get_running_loop().time
        quiet_since = clock()
        stood: dict[TopicPartition, int] = {}
        while True:
            found = await tail.getmany(timeout_ms=1000)
            for records in found.values():
                for record in records:
                    self._dispatch(record)
            if found:
                quiet_since, stood = clock(), {}
            elif clock() - quiet_since > _QUIET_SECONDS:
                stands = await self._behind(tail)
                stuck = {item: at for item, at in stands.items() if stood.get(item) == at}
                if stuck:
                    raise TimeoutError(f"nothing comes although there is more: {stuck}")
                quiet_since, stood = clock(), stands

    async def _behind(self, tail: Any) -> dict[TopicPartition, int]:
        """The position in each partition that has more to read (aborted records count as read)."""
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            ends = await tail.end_offsets(list(self._next))
            positions = {item: await tail.position(item) for item in ends}
        return {item: at for item, at in positions.items() if at < ends[item]}

    async def _skip_lost(self, tail: Any) -> None:
        """Go on at the first record that is left; whoever depended on the lost ones is told."""
        with contextlib.suppress(KafkaError, TimeoutError, OSError):
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                firsts = await tail.beginning_offsets(list(self._next))
                ends = await tail.end_offsets(list(self._next))
                for partition, offset in list(self._next.items()):
                    if not firsts[partition] <= offset <= ends[partition]:
                        self._next[partition] = ends[partition]
                        self._tell_lost(partition)

    def _tell_lost(self, partition: TopicPartition) -> None:
        for subscription in list(self._open):
            if subscription.partition == partition:
                subscription.lose("records were lost to retention")
        for callback in self._gap_callbacks:
            callback()

    def _dispatch(self, record: Any) -> None:
        """Hand one record to everybody. Never suspends: `subscribe` depends on it."""
        event = LiveEvent(record, self.codec)
        for callback in self._callbacks:
            try:
                callback(event)
            except Exception:
                logger.exception("a callback failed on %s at %s", event.type, event.position)
        partition = TopicPartition(record.topic, record.partition)
        for subscription in list(self._live.get((partition, event.tenant), ())):
            subscription.offer(event)
        self._next[partition] = record.offset + 1


def _offset(text: str, partition: TopicPartition) -> int:
    """The offset of a position in this partition; -1 is before its first. Raises BadPosition."""
    try:
        position = Position.parse(text)
    except ValueError as error:
        raise BadPosition("a position is `topic:partition:offset`") from error
    if (position.topic, position.partition) != tuple(partition):
        raise BadPosition("the position belongs to another stream")
    if not -1 <= position.offset < 2**63 - 1:
        raise BadPosition("the position's offset is out of range")
    return position.offset
