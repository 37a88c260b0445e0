"""Reads a stretch of one partition for listeners that resume: pulled, bounded, shared.

A listener that comes back asks for what lies between its last position and the live tail. A few
consumers serve all of them in turns, one batch at a time, so that a thousand clients that reconnect
at once cost a queue and no thousand connections to the broker.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from infra.kafka import LogUnavailable, stop_consumer

READ_TIMEOUT_SECONDS = 5.0
BATCH_RECORDS = 256


class Truncated(Exception):
    """The log no longer holds (or does not yet hold) the offset that was asked for."""


class Bounds(NamedTuple):
    """Offsets of a partition: the first that is kept, and the next to be committed."""

    first: int
    end: int


class Stretch(NamedTuple):
    """Records read, and the offset to read from next (past what was aborted or control)."""

    records: list[Any]
    next_offset: int


class Replay:
    """`size` consumers that read batches from given offsets. `connect()` makes an unstarted one."""

    def __init__(self, connect: Callable[[], Any], size: int = 4) -> None:
        self._connect = connect
        self._slots = asyncio.Semaphore(size)
        self._idle: list[Any] = []

    async def stop(self) -> None:
        """Close every consumer that is not in use; those in use close when they are done."""
        idle, self._idle = self._idle, []
        for reader in idle:
            await close(reader)

    async def bounds(self, partition: TopicPartition) -> Bounds:
        """What the partition holds, as a read_committed reader sees it. Raises LogUnavailable."""

        async def ask(reader: Any) -> Bounds:
            first = (await reader.beginning_offsets([partition]))[partition]
            end = (await reader.end_offsets([partition]))[partition]
            return Bounds(first, end)

        bounds = await self._with_reader(ask)
        assert isinstance(bounds, Bounds)
        return bounds

    async def read(self, partition: TopicPartition, offset: int) -> Stretch:
        """The next batch at `offset`, in order; perhaps empty while `next_offset` moves on.

        Raises Truncated when the log does not hold the offset, LogUnavailable after 5 seconds.
        """

        async def fetch(reader: Any) -> Stretch:
            # A reader that goes on where it stood keeps what it has fetched ahead.
            if reader.assignment() != {partition} or await reader.position(partition) != offset:
                reader.assign([partition])
                reader.seek(partition, offset)
            found = await reader.getmany(timeout_ms=1000, max_records=BATCH_RECORDS)
            return Stretch(found.get(partition, []), await reader.position(partition))

        stretch = await self._with_reader(fetch)
        assert isinstance(stretch, Stretch)
        return stretch

    async def _with_reader(self, use: Callable[[Any], Any]) -> Any:
        """Run `use(reader)` with a consumer of its own; one that failed is thrown away."""
        async with self._slots:
            reader = self._idle.pop() if self._idle else None
            try:
                async with asyncio.timeout(READ_TIMEOUT_SECONDS):
                    if reader is None:
                        reader = self._connect()
                        await reader.start()
                    result = await use(reader)
            except OffsetOutOfRangeError as error:
                await close(reader)
                raise Truncated(str(error)) from error
            except (KafkaError, TimeoutError, OSError) as error:
                await close(reader)
                raise LogUnavailable("the log did not answer in time") from error
            except BaseException:
                await close(reader)
                raise
            self._idle.append(reader)
            return result


async def close(reader: Any) -> None:
    """Close a consumer that may be broken or was never started."""
    if reader is not None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READ_TIMEOUT_SECONDS):
                await stop_consumer(reader)
