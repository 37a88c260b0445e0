"""The usage processor: whatever wakes it, it counts each committed record once.

Faust brings records; what it brings is a hint. The offset in Postgres says where counting stands,
and only records that follow on it without a gap are counted as they are. Any gap (a transaction's
marker, an aborted record, one that was skipped around a rebalance) is read again from the log by a
consumer of our own, read_committed. So nothing depends on Faust's offsets, and dropping the tables
means counting from the log's beginning.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import psycopg
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from commands.billing.budget_window import MarkBudgetReached, budget_window_id
from infra.ids import command_id
from infra.kafka import LogUnavailable, bounds, range_reader, read_range, stop_consumer
from infra.postgres import DatabaseUnavailable, connect
from schemas.codec import Codec, Undecodable
from schemas.envelope import SYSTEM
from streams.billing.ledger import Gap, Ledger, Unsent, create_tables
from streams.bus import CommandBus, CommandRequest

logger = logging.getLogger(__name__)

BATCH_MAX = 500
HALTED_SECONDS = 30.0
_PAUSE_SECONDS_MAX = 2.0
_LONG_MAX = 2**63 - 1
SERVER_AWAY = (
    psycopg.Error,
    DatabaseUnavailable,
    KafkaError,
    LogUnavailable,
    OSError,
    TimeoutError,
)


class UsageMeter:
    """Counts usage. Not to be used from two tasks at once for one partition; a lock sees to it.

    trouble: what is being waited out, "" when nothing is. A server that is away delays everything
    and loses nothing.
    """

    def __init__(self, *, bootstrap: str, database: str, codec: Codec, bus: CommandBus) -> None:
        self._bootstrap, self._database, self._codec, self._bus = bootstrap, database, codec, bus
        self._lock = asyncio.Lock()
        self._ledger: Ledger | None = None
        self._connection: psycopg.AsyncConnection[Any] | None = None
        self._reader: Any = None
        self._next: dict[TopicPartition, int] = {}
        self._halted: dict[TopicPartition, float] = {}
        self.trouble = ""

    async def stop(self) -> None:
        """Close what is open; a batch under way is rolled back, whoever comes next counts it."""
        await self._disconnect()

    async def take(self, partition: TopicPartition, records: Sequence[Any]) -> None:
        """Count records that arrived, in order, and all that the log holds before them.

        Returns when they are counted. Waits out what is away; raises nothing foreseen.
        """
        if not records or self._is_halted(partition):
            return

        async def count() -> None:
            start = await self._stands(partition)
            fresh = [record for record in records if record.offset >= start]
            if not fresh:
                return
            end = fresh[-1].offset + 1
            if end - start == len(fresh):
                await self._apply(partition, start, fresh, end)
            else:
                await self._count_log(partition, end)

        await self._insist(partition, count)

    async def catch_up(self, partition: TopicPartition) -> None:
        """Count all that the log holds now, and send alerts that a process before did not send."""

        async def count() -> None:
            await self._send_alerts(partition)
            _, end = await bounds(await self._reading(partition), partition)
            await self._count_log(partition, end)

        if not self._is_halted(partition):
            await self._insist(partition, count)

    async def stands(self, partition: TopicPartition) -> int:
        """The first offset that is not counted. Raises what Postgres being away makes it raise."""
        async with self._lock, self._fresh_after_errors():
            self._next.pop(partition, None)
            return await self._stands(partition)

    async def uncounted(self, partition: TopicPartition) -> int | None:
        """The offset of the first committed record that is not counted, None when all are.

        None too for a partition that is halted, and while a server is away: that is known, and
        waited out. Raises what a server that is away makes it raise.
        """
        if self.trouble or partition in self._halted:
            return None
        async with self._lock, self._fresh_after_errors():
            start = await self._stands(partition)
            reader = await self._reading(partition)
            _, end = await bounds(reader, partition)
            async for chunk in read_range(reader, partition, start, end, batch=1):
                return int(chunk[0].offset)
            if start < end:
                # Markers only; next time there is less to look at.
                await self._apply(partition, start, (), end)
            return None

    def lets_go(self, partition: TopicPartition) -> None:
        """Forget a partition that another process has now."""
        self._next.pop(partition, None)
        self._halted.pop(partition, None)

    def _is_halted(self, partition: TopicPartition) -> bool:
        since = self._halted.get(partition)
        return since is not None and _now() - since < HALTED_SECONDS

    async def _insist(
        self, partition: TopicPartition, count: Callable[[], Awaitable[None]]
    ) -> None:
        """Do it until it is done; what is away is waited for."""
        pause = 0.1
        while True:
            try:
                async with self._lock, self._fresh_after_errors():
                    await count()
                if self.trouble:
                    logger.info("usage metering goes on")
                self.trouble = ""
                self._halted.pop(partition, None)
                return
            except Gap as gap:
                # Somebody took rows away (a rebuild, a restored backup): count from there.
                self._next[partition] = gap.next_offset
            except Undecodable as error:
                logger.error("%s is halted before a record it can't read: %s", partition, error)
                self._halted[partition] = _now()
                return
            except SERVER_AWAY as error:
                if not self.trouble:
                    logger.warning("usage metering waits: %r", error)
                self.trouble = repr(error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, _PAUSE_SECONDS_MAX)

    async def _count_log(self, partition: TopicPartition, end: int) -> None:
        """Count what the log holds up to `end`, in batches."""
        start = await self._stands(partition)
        if start >= end:
            return
        reader = await self._reading(partition)
        first, _ = await bounds(reader, partition)
        async for chunk in read_range(reader, partition, max(start, first), end, BATCH_MAX):
            after = chunk[-1].offset + 1
            await self._apply(partition, start, chunk, after)
            start = after
        # What is left holds markers and aborted records only.
        await self._apply(partition, start, (), end)

    async def _apply(
        self, partition: TopicPartition, start: int, records: Sequence[Any], end: int
    ) -> None:
        ledger = await self._books()
        alerted = await ledger.apply(partition, start, records, end)
        self._next[partition] = max(end, self._next.get(partition, 0))
        if alerted:
            await self._send_alerts(partition)

    async def _send_alerts(self, partition: TopicPartition) -> None:
        """Post the commands of committed alerts. A crash before `sent` posts one again: its id is
        the same, so the decider answers it with the first outcome."""
        ledger = await self._books()
        for unsent in await ledger.unsent(partition):
            await self._bus.post(mark_command(unsent))
            await ledger.sent(unsent)

    async def _stands(self, partition: TopicPartition) -> int:
        if partition not in self._next:
            self._next[partition] = await (await self._books()).next_offset(partition)
        return self._next[partition]

    async def _books(self) -> Ledger:
        if self._ledger is None:
            self._connection = await connect(self._database, autocommit=True)
            await create_tables(self._connection)
            self._ledger = Ledger(self._connection, self._codec)
        return self._ledger

    async def _reading(self, partition: TopicPartition) -> Any:
        if self._reader is None:
            reader = range_reader(self._bootstrap, "usage-meter")
            try:
                await reader.start()
            except BaseException:
                await stop_consumer(reader)
                raise
            self._reader = reader
        if self._reader.assignment() != {partition}:
            self._reader.assign([partition])
        return self._reader

    @contextlib.asynccontextmanager
    async def _fresh_after_errors(self) -> AsyncIterator[None]:
        """Let go of the clients when something fails with them: the next try has new ones."""
        try:
            yield
        except (Gap, Undecodable):
            raise
        except BaseException:
            await self._disconnect()
            raise

    async def _disconnect(self) -> None:
        reader, self._reader = self._reader, None
        connection, self._connection, self._ledger = self._connection, None, None
        self._next.clear()
        if reader is not None:
            await stop_consumer(reader)
        with contextlib.suppress(Exception):
            if connection is not None:
                await connection.close()


def mark_command(unsent: Unsent) -> CommandRequest:
    """The command of an alert; the same alert, the same command id."""
    alert = unsent.alert
    name = f"{alert.budget_id}@{alert.window_start}/{alert.revision}/{alert.percent}"
    return CommandRequest(
        tenant=unsent.tenant,
        stream_id=budget_window_id(alert.budget_id, alert.window_start),
        command=MarkBudgetReached(
            budget_id=alert.budget_id,
            revision=alert.revision,
            window_start=alert.window_start,
            percent=alert.percent,
            total=min(unsent.total, _LONG_MAX),
        ),
        actor=SYSTEM,
        command_id=command_id(unsent.tenant, name, scope="budget-reached"),
        # Deterministic ids are repeats of themselves, whatever the total was by then.
        fingerprint="budget-reached",
    )


def _now() -> float:
    return asyncio.get_running_loop().time()
