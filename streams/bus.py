"""The command bus: commands go out on `commands`, answers come back on `replies`.

A command that nobody waits for (`post`) is acknowledged by Kafka only. One that somebody waits for
(`send`) is answered when its effect is durable in Kafka and readable in Postgres; no answer in time
is `OutcomeUnknown`: ask `GET /commands/{id}`, or send again with the same id, both are safe.
"""

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from msgspec import Struct

from infra.clock import Clock
from infra.ids import new_id
from infra.kafka import LogUnavailable, Record, consumer, stop_consumer
from infra.kafka_batches import BatchingLog
from infra.partitioning import partition_for
from schemas.avro_derivation import tag_of
from schemas.codec import Codec
from schemas.envelope import Actor, Envelope, to_headers
from schemas.topics import topics
from schemas.types import Json

logger = logging.getLogger(__name__)

REPLY_TO = "weir_replyto"
FINGERPRINT = "weir_fingerprint"
TIMER = "weir_timer"


class OutcomeUnknown(Exception):
    """No answer in time: the command may have been, or may yet be, carried out once."""

    retry_after = 2

    def __init__(self, command_id: str) -> None:
        super().__init__(command_id)
        self.command_id = command_id


class Encoded(Struct, frozen=True):
    """A command in its bytes, sent without being read. stream: its decider's stream type."""

    stream: str
    tag: str
    data: bytes


class CommandRequest(Struct, frozen=True, kw_only=True):
    """A command and what surrounds it.

    fingerprint: SHA-256 of the client's request when it gave an Idempotency-Key (or any constant
    for commands whose id is deterministic): then the decider answers a repeat of `command_id` with
    the first answer, and refuses another fingerprint. Empty: `command_id` is fresh.
    timer: `name@due_at` when the scheduler sends it.
    """

    tenant: str
    stream_id: str
    command: Struct
    actor: Actor
    command_id: str
    fingerprint: str = ""
    correlation_id: str = ""
    timer: str = ""


class Reply(Struct, frozen=True, kw_only=True):
    """What became of a command.

    position: the log position that the caller's write reached (`events:2:1045`).
    """

    command_id: str
    status: Literal["accepted", "refused", "failed"]
    code: str = ""
    kind: str = ""
    message: str = ""
    details: Json = "{}"
    answer: Json = "null"
    stream: str = ""
    version: int = 0
    position: str = ""
    replayed: bool = False
    incident: str = ""


class CommandBus(Protocol):
    """Sends commands to the deciders."""

    async def send(self, request: CommandRequest, timeout: float = 5.0) -> Reply:
        """Wait for the answer. Raises OutcomeUnknown or LogUnavailable."""
        ...

    async def post(self, request: CommandRequest) -> None:
        """Return when Kafka has it. Raises LogUnavailable."""
        ...

    async def post_many(self, requests: Sequence[CommandRequest]) -> None:
        """As `post`, in one batch."""
        ...


def to_record(
    request: CommandRequest, stream: str, codec: Codec, now: int, reply_to: str = ""
) -> Record:
    """The record of a command on `commands`; `stream` is the decider's stream type."""
    command = request.command
    if isinstance(command, Encoded):
        tag, data = command.tag, command.data
    else:
        tag, data = tag_of(type(command)), codec.encode(command)
    envelope = Envelope(
        id=request.command_id,
        type=tag,
        tenant=request.tenant,
        stream=f"{stream}/{request.stream_id}",
        version=0,
        time=now,
        actor=request.actor,
        correlation_id=request.correlation_id,
    )
    headers = to_headers(envelope)
    for name, value in (
        (REPLY_TO, reply_to),
        (FINGERPRINT, request.fingerprint),
        (TIMER, request.timer),
    ):
        if value:
            headers.append((name, value.encode()))
    return Record(request.tenant.encode(), data, headers)


class KafkaCommandBus:
    """The bus over Kafka. `streams` maps a command's struct to its decider's stream type."""

    def __init__(
        self, bootstrap: str, codec: Codec, streams: Mapping[type[Struct], str], clock: Clock
    ) -> None:
        self._bootstrap, self._codec, self._streams, self._clock = bootstrap, codec, streams, clock
        self.instance = new_id("api")
        # Which of the reply topic's partitions this process listens to; the decider is told.
        self._partition = partition_for(self.instance, topics()["replies"].partition_count(0))
        self._reply_to = f"{self.instance}/{self._partition}"
        self._log = BatchingLog(bootstrap, f"{self.instance}-commands", linger_ms=0)
        self._waiting: dict[str, list[asyncio.Future[Reply]]] = {}
        self._consumer: AIOKafkaConsumer | None = None
        self._listener: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect and listen for answers. Raises LogUnavailable."""
        await self._log.start()
        replies = consumer(self._bootstrap, f"{self.instance}-replies", fetch_max_wait_ms=250)
        partition = TopicPartition("replies", self._partition)
        try:
            await replies.start()
            replies.assign([partition])
            # Only answers to what is sent from now on matter.
            replies.seek(partition, (await replies.end_offsets([partition]))[partition])
        except KafkaError as error:
            await stop_consumer(replies)
            raise LogUnavailable(repr(error)) from error
        self._consumer = replies
        self._listener = asyncio.create_task(self._listen(replies), name="replies")

    async def stop(self) -> None:
        """Stop listening; whoever still waits gets OutcomeUnknown at its deadline."""
        if self._listener is not None:
            self._listener.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._listener
        if self._consumer is not None:
            await stop_consumer(self._consumer)
        await self._log.stop()

    async def send(self, request: CommandRequest, timeout: float = 5.0) -> Reply:
        """Wait for the answer, `timeout` seconds at most. Raises OutcomeUnknown, LogUnavailable."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Reply] = loop.create_future()
        late = loop.call_later(timeout, _give_up, answer)
        self._waiting.setdefault(request.command_id, []).append(answer)
        try:
            record = self._record(request, self._reply_to)
            await self._log.append("commands", [record], timeout)
            return await answer
        except (LogUnavailable, TimeoutError) as error:
            # Sent perhaps, acknowledged not: the same uncertainty.
            raise OutcomeUnknown(request.command_id) from error
        finally:
            late.cancel()
            waiting = self._waiting[request.command_id]
            waiting.remove(answer)
            if not waiting:
                del self._waiting[request.command_id]

    async def post(self, request: CommandRequest) -> None:
        """Return when Kafka has it. Raises LogUnavailable."""
        await self._log.append("commands", [self._record(request, "")])

    async def post_many(self, requests: Sequence[CommandRequest]) -> None:
        """As `post`, in one batch."""
        await self._log.append("commands", [self._record(request, "") for request in requests])

    def _record(self, request: CommandRequest, reply_to: str) -> Record:
        command = request.command
        stream = command.stream if isinstance(command, Encoded) else self._streams[type(command)]
        return to_record(request, stream, self._codec, self._clock.now(), reply_to)

    async def _listen(self, replies: AIOKafkaConsumer) -> None:
        decoder = msgspec.json.Decoder(Reply)
        mine = self.instance.encode()
        while True:
            try:
                batches = await replies.getmany(timeout_ms=1000)
            except KafkaError:
                logger.warning("replies cannot be read, trying again", exc_info=True)
                await asyncio.sleep(0.2)
                continue
            for records in batches.values():
                for record in records:
                    if record.key != mine:
                        continue
                    reply = decoder.decode(record.value)
                    for answer in self._waiting.get(reply.command_id, ()):
                        if not answer.done():
                            answer.set_result(reply)


def _give_up(answer: "asyncio.Future[Reply]") -> None:
    if not answer.done():
        answer.set_exception(TimeoutError())
        answer.exception()  # whoever waits may have gone meanwhile
