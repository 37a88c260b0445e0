"""The transactional producer, by the rules that keep it exact.

aiokafka 0.14 needs care (each point verified against a real broker):
- `commit_transaction()` succeeds although an un-awaited send of it failed, so `Transactions.txn()`
  owns begin, gathers every send before the commit, bounds it all by a time-out, and on any error
  discards the producer: what became of the transaction is then asked of the log, never guessed;
- fencing comes from the `transactional.id` alone, and an old client's first send after a commit
  backs off: two knobs bring that from 29 ms to a few.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import aiokafka
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.producer import sender as aiokafka_sender
from msgspec import Struct

from infra.kafka import MAX_RECORD_BYTES, Record, batches_of, close_client, heard, settle

TXN_TIMEOUT_SECONDS = 8.0
FENCE_TIMEOUT_SECONDS = 15.0

if aiokafka.__version__.startswith("0.14."):
    # How long the first send of a transaction waits after ConcurrentTransactions, in seconds: the
    # coordinator is still writing the last commit's markers, which takes 1-2 ms, not 20.
    aiokafka_sender.BACKOFF_OVERRIDE = 0.002


class TransactionLost(Exception):
    """A transaction's outcome is unknown or it was aborted; its producer is gone."""


class Tail(Struct, frozen=True):
    """The last batch of an `append`: the future of its first record, and how many it holds."""

    first: "asyncio.Future[Any]"
    count: int

    def next_offset(self) -> int:
        """The offset after the last record. Only once the transaction has committed."""
        return int(self.first.result().offset) + self.count


class Txn:
    """One open transaction; `send` queues, the commit waits for all."""

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self._producer = producer
        self._sent: list[asyncio.Future[Any]] = []

    async def send(self, topic: str, record: Record) -> "asyncio.Future[Any]":
        """Queue a record; its future gives the offset once the transaction has committed."""
        future = await self._producer.send(
            topic,
            record.value,
            key=record.key,
            headers=record.headers,
            partition=record.partition,
        )
        future.add_done_callback(heard)
        self._sent.append(future)
        return future  # type: ignore[no-any-return]  # aiokafka is untyped

    async def append(self, topic: str, partition: int, records: Sequence[Record]) -> "Tail":
        """Queue records for one partition, in order: a fraction of the cost of as many `send`s.

        `records` is not empty, and the partition is the same for all whatever they say.
        """
        for batch in batches_of(self._producer, records):
            future = await self._producer.send_batch(batch, topic, partition=partition)
            future.add_done_callback(heard)
            self._sent.append(future)
        return Tail(future, batch.record_count())

    async def settle(self) -> None:
        """Wait for every send; the first failure is raised."""
        if self._sent:
            await asyncio.gather(*self._sent)


class Transactions:
    """The transactional producer of one partition's owner; starting it fences the one before."""

    def __init__(self, bootstrap: str, transactional_id: str) -> None:
        self._bootstrap, self.transactional_id = bootstrap, transactional_id
        self._producer: AIOKafkaProducer | None = None

    async def fence(self) -> None:
        """InitProducerId: aborts or finishes what the last owner left open, and shuts it out.

        Raises TransactionLost when the broker does not answer in time.
        """
        await self.discard()
        producer = AIOKafkaProducer(
            bootstrap_servers=self._bootstrap,
            client_id=self.transactional_id,
            transactional_id=self.transactional_id,
            transaction_timeout_ms=15_000,
            acks="all",
            linger_ms=0,
            max_batch_size=1024 * 1024,
            max_request_size=MAX_RECORD_BYTES + 48 * 1024,
            request_timeout_ms=15_000,
            retry_backoff_ms=3,
        )
        try:
            async with asyncio.timeout(FENCE_TIMEOUT_SECONDS):
                await producer.start()
        except BaseException as error:
            await close_client(producer)
            if isinstance(error, KafkaError | OSError | TimeoutError):
                raise TransactionLost("no broker answers") from error
            raise
        self._producer = producer

    @contextlib.asynccontextmanager
    async def txn(self) -> AsyncIterator[Txn]:
        """A transaction that commits when the block ends, or raises TransactionLost.

        After TransactionLost the outcome is unknown: `fence()` anew, then read what the log holds.
        """
        producer = self._producer
        if producer is None:
            raise TransactionLost("not fenced in")
        try:
            async with asyncio.timeout(TXN_TIMEOUT_SECONDS):
                await producer.begin_transaction()
                txn = Txn(producer)
                yield txn
                await txn.settle()
                await producer.commit_transaction()
        except (KafkaError, TimeoutError, OSError) as error:
            await self.discard()
            raise TransactionLost(repr(error)) from error
        except BaseException:
            await self.discard()
            raise

    async def discard(self) -> None:
        """Throw the producer away; the broker times an open transaction out."""
        producer, self._producer = self._producer, None
        if producer is None:
            return
        # A producer in mid-transaction would wait for its coordinator when stopped: cut it short.
        for close in (producer._sender.close, producer.client.close):
            await settle(close)
        producer._closed = True

    async def stop(self) -> None:
        """Close between transactions."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await close_client(producer)
