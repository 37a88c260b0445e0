"""Kafka, by the rules that keep it exact: the only place that builds producers and consumers.

aiokafka 0.14 needs care (each point verified against a real broker):
- after one failed batch an idempotent producer's sequence numbers are off for good, so `Log` throws
  a producer away on any error that isn't a time-out and builds a new one;
- `commit_transaction()` succeeds although an un-awaited send of it failed, so `Transactions.txn()`
  owns begin, gathers every send before the commit, bounds it all by a time-out, and on any error
  discards the producer: what became of the transaction is then asked of the log, never guessed;
- fencing comes from the `transactional.id` alone, and an old client's first send after a commit
  backs off: two knobs bring that from 29 ms to a few.
"""

import asyncio
import contextlib
import logging
import random
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import aiokafka
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError
from aiokafka.producer import sender as aiokafka_sender
from msgspec import Struct

from schemas.envelope import Headers, Position
from schemas.topics import topics

logger = logging.getLogger(__name__)

SEND_TIMEOUT_SECONDS = 5.0
TXN_TIMEOUT_SECONDS = 8.0
FENCE_TIMEOUT_SECONDS = 15.0
MAX_RECORD_BYTES = 1_000_000
# Enough to close a healthy client; a broken one may wait for its broker for ever.
_CLOSE_SECONDS = 5.0
_PENDING_BYTES_MAX = 64 * 1024 * 1024

if aiokafka.__version__.startswith("0.14."):
    # How long the first send of a transaction waits after ConcurrentTransactions, in seconds: the
    # coordinator is still writing the last commit's markers, which takes 1-2 ms, not 20.
    aiokafka_sender.BACKOFF_OVERRIDE = 0.002


class LogUnavailable(Exception):
    """The log did not take the records in time. They may or may not arrive later."""

    retry_after = 2


class TransactionLost(Exception):
    """A transaction's outcome is unknown or it was aborted; its producer is gone."""


class Record(NamedTuple):
    """One record to append; `partition` overrides the key's own."""

    key: bytes
    value: bytes | None
    headers: Headers
    partition: int | None = None


_M = 0x5BD1E995
_MASK = 0xFFFFFFFF


@lru_cache(maxsize=65_536)
def murmur2(data: bytes) -> int:
    """The hash that Kafka's default partitioner uses, as aiokafka has it, a word at a time.

    aiokafka takes 15-20 us for a run's id, byte by byte, for every record; a run reports often.
    """
    length = len(data)
    words = length >> 2
    h = 0x9747B28C ^ length
    for word in struct.unpack_from(f"<{words}I", data):
        k = word * _M & _MASK
        h = (h * _M & _MASK) ^ ((k ^ (k >> 24)) * _M & _MASK)
    rest = data[words << 2 :]
    if rest:
        h = (h ^ int.from_bytes(rest, "little")) * _M & _MASK
    h = (h ^ (h >> 13)) * _M & _MASK
    return h ^ (h >> 15)


def partition_for(key: str | bytes, count: int) -> int:
    """The partition of a key, as Kafka's default partitioner has it (murmur2)."""
    data = key.encode() if isinstance(key, str) else key
    return int((murmur2(data) & 0x7FFFFFFF) % count)


def _partitioner(key: bytes | None, every: Sequence[int], available: Sequence[int]) -> int:
    """Kafka's default partitioner; a record without a key goes anywhere."""
    if key is None:
        return random.choice(available or every)
    return every[partition_for(key, len(every))]


def consumer(bootstrap: str, client_id: str, **options: Any) -> AIOKafkaConsumer:
    """A consumer that reads committed records only and starts where it is told to, never elsewhere.

    Assign partitions and seek before the first poll. Options override the defaults.
    """
    settings: dict[str, Any] = {
        "bootstrap_servers": bootstrap,
        "client_id": client_id,
        "isolation_level": "read_committed",
        "enable_auto_commit": False,
        "auto_offset_reset": "none",
        "max_partition_fetch_bytes": 4 * 1024 * 1024,
        "fetch_max_wait_ms": 500,
        "retry_backoff_ms": 100,
        "metadata_max_age_ms": 60_000,
        "request_timeout_ms": 15_000,
    }
    return AIOKafkaConsumer(**{**settings, **options})


async def stop_consumer(reader: AIOKafkaConsumer) -> None:
    """Close a consumer, broken or not, in seconds; one that was never assigned anything, too."""
    await _settle(reader.stop)


class Log:
    """Appends records with `acks=all`, idempotently, and heals itself.

    linger_ms: how long a record may wait for company; 0 for what somebody waits for.
    """

    def __init__(self, bootstrap: str, client_id: str, linger_ms: int = 0) -> None:
        self._bootstrap, self._client_id, self._linger_ms = bootstrap, client_id, linger_ms
        self._producer: AIOKafkaProducer | None = None
        self._building: asyncio.Lock = asyncio.Lock()
        self._pending_bytes = 0
        self._closers: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Connect. Raises LogUnavailable when no broker answers."""
        await self._healthy(SEND_TIMEOUT_SECONDS)

    async def stop(self) -> None:
        """Flush and close."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await _close(producer)
        for task in list(self._closers):
            with contextlib.suppress(Exception):
                await task

    async def append(
        self,
        topic: str,
        records: Sequence[Record],
        timeout: float | None = SEND_TIMEOUT_SECONDS,
    ) -> list[Position]:
        """Append and wait for the acknowledgement; the positions are in the records' order.

        Records that all name one partition travel as one batch, which costs a fraction.
        Raises LogUnavailable when the broker did not acknowledge within `timeout` seconds (None:
        the caller has a deadline of its own), or when more than 64 MiB already wait: nothing piles
        up without bound.
        """
        size = sum(len(record.value or b"") + len(record.key) + 256 for record in records)
        self._reserve(size)
        producer = None
        try:
            async with asyncio.timeout(timeout):
                producer = await self._healthy(timeout)
                return await _acknowledged(producer, topic, records)
        except TimeoutError as error:
            raise LogUnavailable("the log did not acknowledge in time") from error
        except (KafkaError, AssertionError) as error:
            # aiokafka asserts what it is given, such as that the partition exists.
            if producer is not None:
                self._discard(producer)
            raise LogUnavailable(f"the log refused: {error!r}") from error
        finally:
            self._release(size)

    def _reserve(self, size: int) -> None:
        if self._pending_bytes + size > _PENDING_BYTES_MAX:
            raise LogUnavailable("too many bytes wait for the log")
        self._pending_bytes += size

    def _release(self, size: int) -> None:
        self._pending_bytes -= size

    async def _healthy(self, timeout: float | None) -> AIOKafkaProducer:
        if self._producer is not None:
            return self._producer
        async with self._building:
            if self._producer is None:
                producer = AIOKafkaProducer(
                    bootstrap_servers=self._bootstrap,
                    client_id=self._client_id,
                    enable_idempotence=True,
                    acks="all",
                    partitioner=_partitioner,
                    linger_ms=self._linger_ms,
                    # Before compression, which can add a little: the broker takes 1,048,588.
                    max_batch_size=960 * 1024,
                    max_request_size=MAX_RECORD_BYTES + 48 * 1024,
                    compression_type="lz4",
                    request_timeout_ms=15_000,
                    retry_backoff_ms=20,
                )
                try:
                    async with asyncio.timeout(timeout):
                        await producer.start()
                except BaseException as error:
                    await _close(producer)
                    if isinstance(error, KafkaError | OSError | TimeoutError):
                        raise LogUnavailable("no broker answers") from error
                    raise
                self._producer = producer
        return self._producer

    def _discard(self, producer: AIOKafkaProducer) -> None:
        if self._producer is producer:
            self._producer = None
            task = asyncio.create_task(_close(producer))
            self._closers.add(task)
            task.add_done_callback(self._closers.discard)


async def _close(client: Any) -> None:
    """Close a client that may be broken already."""
    await _settle(client.stop)


async def _settle(close: Callable[[], Awaitable[None]]) -> None:
    """Run a clean-up to its end, at most `_CLOSE_SECONDS`, whatever it raises.

    aiokafka cancels its own tasks and awaits them: one that had not begun to run raises its
    CancelledError here, which would end the loop that cleans up. Only a real cancellation passes.
    """
    task = asyncio.current_task()
    try:
        async with asyncio.timeout(_CLOSE_SECONDS):
            await close()
    except asyncio.CancelledError:
        if task is not None and task.cancelling():
            raise
    except Exception:
        logger.debug("a client did not close cleanly", exc_info=True)


class Tail(Struct, frozen=True):
    """The last batch of an `append`: the future of its first record, and how many it holds."""

    first: "asyncio.Future[Any]"
    count: int

    def next_offset(self) -> int:
        """The offset after the last record. Only once the transaction has committed."""
        return int(self.first.result().offset) + self.count


async def _acknowledged(
    producer: AIOKafkaProducer, topic: str, records: Sequence[Record]
) -> list[Position]:
    """Send records, wait for all, and say where each one is."""
    partitions = {record.partition for record in records}
    partition = partitions.pop()
    if len(records) == 1 or partition is None or partitions:
        futures = [
            await producer.send(
                topic,
                record.value,
                key=record.key,
                headers=record.headers,
                partition=record.partition,
            )
            for record in records
        ]
        found = [await future for future in futures]
        return [Position(topic, item.partition, item.offset) for item in found]
    batches = list(_batches(producer, records))
    firsts = [await producer.send_batch(batch, topic, partition=partition) for batch in batches]
    for first in firsts:
        first.add_done_callback(_heard)
    return [
        Position(topic, partition, (await first).offset + number)
        for batch, first in zip(batches, firsts, strict=True)
        for number in range(batch.record_count())
    ]


def _batches(producer: AIOKafkaProducer, records: Sequence[Record]) -> Iterator[Any]:
    """Records as closed batches of the producer; one record always fits."""
    rest = iter(records)
    record = next(rest, None)
    while record is not None:
        batch = producer.create_batch()
        while record is not None and batch.append(
            timestamp=None, key=record.key, value=record.value, headers=record.headers
        ):
            record = next(rest, None)
        batch.close()
        yield batch


def _heard(sent: "asyncio.Future[Any]") -> None:
    """Somebody raises the first failure of many; the others are the same and need no report."""
    if not sent.cancelled():
        sent.exception()


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
        future.add_done_callback(_heard)
        self._sent.append(future)
        return future  # type: ignore[no-any-return]  # aiokafka is untyped

    async def append(self, topic: str, partition: int, records: Sequence[Record]) -> "Tail":
        """Queue records for one partition, in order: a fraction of the cost of as many `send`s.

        `records` is not empty, and the partition is the same for all whatever they say.
        """
        for batch in _batches(self._producer, records):
            future = await self._producer.send_batch(batch, topic, partition=partition)
            future.add_done_callback(_heard)
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
            await _close(producer)
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
            await _settle(close)
        producer._closed = True

    async def stop(self) -> None:
        """Close between transactions."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await _close(producer)


async def create_topics(bootstrap: str, partitions: int) -> list[str]:
    """Create the topics of `schemas/topics.yaml` that are missing; returns their names.

    Raises LogUnavailable when the broker refuses one.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=15_000)
    await admin.start()
    created = []
    try:
        existing = set(await admin.list_topics())
        for topic in topics().values():
            if topic.name in existing:
                continue
            new = NewTopic(
                topic.name,
                topic.partition_count(partitions),
                replication_factor=-1,  # the broker's default
                replica_assignments={},
                topic_configs=topic.config(),
            )
            answer = await admin.create_topics([new])
            for name, code, message in answer.topic_errors:
                if code == 0:
                    created.append(name)
                elif code != TopicAlreadyExistsError.errno:
                    raise LogUnavailable(f"topic {name} cannot be created: {message}")
    finally:
        await admin.close()
    return created


def header(headers: Sequence[tuple[str, bytes]], name: str) -> str:
    """The value of a header, or an empty string."""
    return next((value.decode() for key, value in headers if key == name), "")


def as_mapping(headers: Sequence[tuple[str, bytes]]) -> Mapping[str, str]:
    """Headers as a mapping of text."""
    return {key: value.decode(errors="replace") for key, value in headers}


async def read_range(
    reader: AIOKafkaConsumer, partition: TopicPartition, start: int, end: int, batch: int = 2000
) -> AsyncIterator[list[Any]]:
    """Batches of the committed records of a partition in [start, end), in order.

    The consumer must be assigned the partition. Offsets are sparse in transactional topics, and a
    range may hold nothing but markers: the end is reached by position, never by count.
    """
    if start >= end:
        return
    reader.seek(partition, start)
    while await reader.position(partition) < end:
        found = await reader.getmany(partition, timeout_ms=200, max_records=batch)
        records = [record for record in found.get(partition, []) if record.offset < end]
        if records:
            yield records


async def bounds(reader: AIOKafkaConsumer, partition: TopicPartition) -> tuple[int, int]:
    """The first offset that is still there and the next one to be written."""
    first = await reader.beginning_offsets([partition])
    last = await reader.end_offsets([partition])
    return first[partition], last[partition]
