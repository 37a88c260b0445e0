"""A process manager's way through `events`: what it is interested in, at least once, in order.

It reads in a consumer group of its own and commits behind what is handled, so a crash anywhere
repeats the last events. Handling must therefore be safe to repeat: a command whose id follows from
the event is.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

import psycopg
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from msgspec import Struct

from infra.clickhouse import AnalyticsUnavailable
from infra.kafka import LogUnavailable, consumer, header, stop_consumer
from infra.objects import ObjectsUnavailable
from infra.postgres import DatabaseUnavailable
from schemas.avro_derivation import tag_of
from schemas.codec import Codec, Undecodable
from schemas.envelope import Envelope, from_headers

logger = logging.getLogger(__name__)

# What passes by itself: the follower starts over, and tries until it succeeds.
FORESEEN = (
    LogUnavailable,
    ObjectsUnavailable,
    DatabaseUnavailable,
    AnalyticsUnavailable,
    KafkaError,
    psycopg.errors.UndefinedTable,  # the deciders make it when they start
)
_POLL_MS = 1_000
_RECORDS_MAX = 500


class Followed(NamedTuple):
    """An event, and where it lies on `events`."""

    envelope: Envelope
    event: Any
    partition: int
    offset: int


Handle = Callable[[Sequence[Followed]], Awaitable[None]]


def of_types(*events: type[Struct]) -> Callable[[str], bool]:
    """What `wants` is for whoever wants events of these types."""
    return frozenset(map(tag_of, events)).__contains__


def one_by_one(handle: Callable[[Envelope, Any], Awaitable[None]]) -> Handle:
    """What `handle` is for whoever takes events singly."""

    async def handle_all(events: Sequence[Followed]) -> None:
        for one in events:
            await handle(one.envelope, one.event)

    return handle_all


async def _nothing() -> None:
    return


class Follower:
    """Hands the events whose type it `wants` to `handle`, a batch at a time, until cancelled;
    processes of one group share the partitions.

    between: called after each look at the log, whether anything was there or not.
    longest_ms: how long the handling of one batch may take before Kafka gives the partitions away.
    waits_out: the errors of handling after which it starts over; others end it.
    """

    def __init__(
        self,
        *,
        bootstrap: str,
        group: str,
        codec: Codec,
        wants: Callable[[str], bool],
        handle: Handle,
        between: Callable[[], Awaitable[None]] = _nothing,
        longest_ms: int = 300_000,
        waits_out: tuple[type[Exception], ...] = FORESEEN,
    ) -> None:
        self._bootstrap, self._group, self._codec = bootstrap, group, codec
        self._wants, self._handle, self._between = wants, handle, between
        self._longest_ms, self._waits_out = longest_ms, waits_out

    async def run(self) -> None:
        """Follow the log; what goes wrong outside is waited out."""
        delay = 0.2
        while True:
            reader = consumer(
                self._bootstrap,
                self._group,
                group_id=self._group,
                auto_offset_reset="earliest",
                max_poll_interval_ms=self._longest_ms,
                session_timeout_ms=10_000,
                rebalance_timeout_ms=60_000,
                fetch_max_wait_ms=100,
            )
            try:
                await reader.start()
                reader.subscribe(["events"])
                while True:
                    await self._batch(reader)
                    await self._between()
                    delay = 0.2
            except self._waits_out as error:
                unforeseen = not isinstance(error, FORESEEN)
                logger.warning("%s starts over: %r", self._group, error, exc_info=unforeseen)
            finally:
                await stop_consumer(reader)
            await asyncio.sleep(delay)
            delay = min(delay * 2, 5.0)

    async def _batch(self, reader: AIOKafkaConsumer) -> None:
        found = await reader.getmany(timeout_ms=_POLL_MS, max_records=_RECORDS_MAX)
        records = [record for batch in found.values() for record in batch]
        events = [one for record in records if (one := self._read(record)) is not None]
        if events:
            await self._handle(events)
        if found:
            await reader.commit()

    def _read(self, record: Any) -> Followed | None:
        if not self._wants(header(record.headers, "ce_type")):
            return None
        try:
            envelope, event = from_headers(record.headers), self._codec.decode(record.value)
        except (Undecodable, KeyError, ValueError) as error:
            # Whoever wrote it knows more than this release: not ours to fail.
            logger.warning("%s cannot read a record: %r", self._group, error)
            return None
        return Followed(envelope, event, record.partition, record.offset)
