"""A process manager's way through `events`: each event of one type, at least once, in order.

It reads in a consumer group of its own and commits behind what is handled, so a crash anywhere
repeats the last events. Handling must therefore be safe to repeat: a command whose id follows from
the event is.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from msgspec import Struct

from infra.kafka import LogUnavailable, consumer, header, stop_consumer
from infra.objects import ObjectsUnavailable
from infra.postgres import DatabaseUnavailable
from schemas.avro_derivation import tag_of
from schemas.codec import Codec, Undecodable
from schemas.envelope import Envelope, from_headers

logger = logging.getLogger(__name__)

Handle = Callable[[Envelope, Any], Awaitable[None]]

# What passes by itself: the follower starts over, and tries until it succeeds.
FORESEEN = (
    LogUnavailable,
    ObjectsUnavailable,
    DatabaseUnavailable,
    KafkaError,
    psycopg.errors.UndefinedTable,  # the deciders make it when they start
)
_POLL_MS = 1_000
_RECORDS_MAX = 2_000


class Follower:
    """Hands every event of type `event` to `handle`, until cancelled; processes of one group share
    the partitions.

    longest_ms: how long the handling of one batch may take before Kafka gives the partitions away.
    """

    def __init__(
        self,
        *,
        bootstrap: str,
        group: str,
        codec: Codec,
        event: type[Struct],
        handle: Handle,
        longest_ms: int = 300_000,
    ) -> None:
        self._bootstrap, self._group, self._codec = bootstrap, group, codec
        self._type, self._handle, self._longest_ms = tag_of(event), handle, longest_ms

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
            )
            try:
                await reader.start()
                reader.subscribe(["events"])
                delay = 0.2
                while True:
                    await self._batch(reader)
            except FORESEEN as error:
                logger.warning("%s starts over: %r", self._group, error)
            finally:
                await stop_consumer(reader)
            await asyncio.sleep(delay)
            delay = min(delay * 2, 5.0)

    async def _batch(self, reader: AIOKafkaConsumer) -> None:
        found = await reader.getmany(timeout_ms=_POLL_MS, max_records=_RECORDS_MAX)
        for records in found.values():
            for record in records:
                if header(record.headers, "ce_type") == self._type:
                    await self._read(record)
        if found:
            await reader.commit()

    async def _read(self, record: Any) -> None:
        try:
            envelope, event = from_headers(record.headers), self._codec.decode(record.value)
        except (Undecodable, KeyError, ValueError) as error:
            # Whoever wrote it knows more than this release: not ours to fail.
            logger.warning("%s cannot read a record: %r", self._group, error)
            return
        await self._handle(envelope, event)
