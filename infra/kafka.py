"""Kafka, by the rules that keep it exact: consumers, topics, and the log that is appended to.

Only this module and `infra.kafka_transactions` build producers and consumers. aiokafka 0.14 needs
care (verified against a real broker): after one failed batch an idempotent producer's sequence
numbers are off for good, so `Log` throws a producer away on any error that isn't a time-out and
builds a new one.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError

from infra.partitioning import partitioner
from schemas.envelope import Headers, Position
from schemas.topics import topics

logger = logging.getLogger(__name__)

SEND_TIMEOUT_SECONDS = 5.0
MAX_RECORD_BYTES = 1_000_000
# Enough to close a healthy client; a broken one may wait for its broker for ever.
CLOSE_SECONDS = 5.0
_PENDING_BYTES_MAX = 64 * 1024 * 1024


class LogUnavailable(Exception):
    """The log did not take the records in time. They may or may not arrive later."""

    retry_after = 2


class Record(NamedTuple):
    """One record to append; `partition` overrides the key's own."""

    key: bytes
    value: bytes | None
    headers: Headers
    partition: int | None = None


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


def range_reader(bootstrap: str, client_id: str) -> AIOKafkaConsumer:
    """A consumer for those who read ranges of the log, one partition after the other.

    A broker answers the requests of a connection in their order, so a fetch that waits at the end
    of a range would hold up all that is asked about the next: this one's hardly waits.
    """
    return consumer(bootstrap, client_id, fetch_max_wait_ms=20)


async def stop_consumer(reader: AIOKafkaConsumer) -> None:
    """Close a consumer, broken or not, in seconds; one that was never assigned anything, too."""
    await settle(reader.stop)


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
            await close_client(producer)
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
                    partitioner=partitioner,
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
                    await close_client(producer)
                    if isinstance(error, KafkaError | OSError | TimeoutError):
                        raise LogUnavailable("no broker answers") from error
                    raise
                self._producer = producer
        return self._producer

    def _discard(self, producer: AIOKafkaProducer) -> None:
        if self._producer is producer:
            self._producer = None
            task = asyncio.create_task(close_client(producer))
            self._closers.add(task)
            task.add_done_callback(self._closers.discard)


async def close_client(client: Any) -> None:
    """Close a client that may be broken already."""
    await settle(client.stop)


async def settle(close: Callable[[], Awaitable[None]]) -> None:
    """Run a clean-up to its end, at most `CLOSE_SECONDS`, whatever it raises.

    aiokafka cancels its own tasks and awaits them: one that had not begun to run raises its
    CancelledError here, which would end the loop that cleans up. Only a real cancellation passes.
    """
    task = asyncio.current_task()
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await close()
    except asyncio.CancelledError:
        if task is not None and task.cancelling():
            raise
    except Exception:
        logger.debug("a client did not close cleanly", exc_info=True)


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
    batches = list(batches_of(producer, records))
    firsts = [await producer.send_batch(batch, topic, partition=partition) for batch in batches]
    for first in firsts:
        first.add_done_callback(heard)
    return [
        Position(topic, partition, (await first).offset + number)
        for batch, first in zip(batches, firsts, strict=True)
        for number in range(batch.record_count())
    ]


def batches_of(producer: AIOKafkaProducer, records: Sequence[Record]) -> Iterator[Any]:
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


def heard(sent: "asyncio.Future[Any]") -> None:
    """Somebody raises the first failure of many; the others are the same and need no report."""
    if not sent.cancelled():
        sent.exception()


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
