"""The sender: posts webhooks, an endpoint's in order, and keeps no memory that the log does not.

One partition of `deliveries` has one sender (a lease). It folds the topic into its tables and its
queues, and for each endpoint whose first webhook is due, in this order:
1. the webhook is posted;
2. what came of it is appended to `deliveries` (and to `deliveries.dlq`, before, if it is dead);
3. that record is read back and folded, and only then is the endpoint's next attempt made.
A crash before 2 repeats the attempt under the same `webhook-id`: at least once. After 2 nothing is
repeated. Endpoints do not wait for each other, but for one of the places in flight, of which no
tenant has all.
"""

import asyncio
import contextlib
import heapq
import logging
import random
from collections import Counter
from typing import Any

import psycopg
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from commands.platform.webhook_endpoint import STREAM, DisableWebhookEndpoint
from infra.clock import Clock
from infra.failpoints import failpoint
from infra.ids import new_id
from infra.kafka import Log, LogUnavailable, Record, bounds, consumer, stop_consumer
from infra.postgres import DatabaseUnavailable, Reads, Row, connect
from projections.platform.webhook_deliveries import TO_SEND
from schemas.avro_derivation import tag_of
from schemas.codec import Codec, Undecodable
from schemas.envelope import SYSTEM, Envelope, from_headers, to_headers
from schemas.platform.webhook import WebhookAttempted, WebhookRedriven, WebhookRequested
from streams.bus import CommandBus, CommandRequest, OutcomeUnknown
from streams.platform.webhook_client import WebhookClient
from streams.platform.webhook_queue import Queue
from streams.platform.webhook_schedule import Answer, Judgement, judge
from streams.platform.webhook_store import EndpointKey, Entry, WebhookStore, create_tables
from streams.store import Superseded

logger = logging.getLogger(__name__)

TOPIC = "deliveries"
DEAD_LETTERS = "deliveries.dlq"
BATCH_MAX = 500
IN_FLIGHT_MAX = 256
IN_FLIGHT_OF_TENANT_MAX = 32
_IDLE_SECONDS = 1.0
_FULL_SECONDS = 0.05
_AGAIN_SECONDS = 1.0
_PRUNE_EVERY_MICROS = 3_600_000_000
_ENABLED_SOON_MICROS = 60_000_000

_FORESEEN = (
    Superseded,
    KafkaError,
    LogUnavailable,
    DatabaseUnavailable,
    psycopg.Error,
    OSError,
    TimeoutError,
)


def about_to_change(row: Row, now: int) -> bool:
    """Whether the decider has yet to write that an endpoint is open, or enabled again.

    row: of TO_SEND; now: microseconds UTC. Nothing is requested of a disabled endpoint: what was
    after it was disabled was of an enabled one. Believed for a minute only: the clocks of two
    deciders may disagree.
    """
    if row["endpoint_status"] != "disabled":
        return row["endpoint_status"] is None
    waited = now - row["since"]
    return bool(row["endpoint_updated_at"] < row["since"] and waited < _ENABLED_SOON_MICROS)


class Places:
    """The places in flight of this process."""

    def __init__(self, all: int = IN_FLIGHT_MAX, of_tenant: int = IN_FLIGHT_OF_TENANT_MAX) -> None:
        self._all, self._of_tenant = all, of_tenant
        self._taken: Counter[str] = Counter()

    def take(self, tenant: str) -> bool:
        """Take one for a tenant, if there is one for it."""
        if self._taken.total() >= self._all or self._taken[tenant] >= self._of_tenant:
            return False
        self._taken[tenant] += 1
        return True

    def give(self, tenant: str) -> None:
        """Give it back."""
        self._taken[tenant] -= 1
        if not self._taken[tenant]:
            del self._taken[tenant]


class PartitionSender:
    """Sends what one partition holds, while it runs. `ready` is true once it has read all of it."""

    def __init__(
        self,
        partition: int,
        *,
        bootstrap: str,
        database: str,
        codec: Codec,
        clock: Clock,
        log: Log,
        bus: CommandBus,
        reads: Reads,
        client: WebhookClient,
        places: Places,
    ) -> None:
        self.partition, self.beats, self.ready = partition, 0, False
        self._bootstrap, self._database, self._codec = bootstrap, database, codec
        self._clock, self._log, self._bus, self._reads = clock, log, bus, reads
        self._client, self._places = client, places
        self._place = TopicPartition(TOPIC, partition)
        self._next = self._pruned_at = 0
        self._queues: dict[EndpointKey, Queue] = {}
        self._due: list[tuple[int, EndpointKey]] = []
        # Endpoints with an attempt on its way; the offset of its record, once it is appended.
        self._flying: dict[EndpointKey, int | None] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Send until cancelled; what goes wrong outside is waited out."""
        delay = 0.1
        while True:
            try:
                await self._own()
            except Exception as error:
                foreseen = isinstance(error, _FORESEEN)
                logger.warning(
                    "webhooks of partition %s start over: %r",
                    self.partition,
                    error,
                    exc_info=not foreseen,
                )
                delay = 0.1 if self.ready else min(2.0, delay * 2)
            self.ready = False
            self.beats += 1
            await asyncio.sleep(delay)

    async def _own(self) -> None:
        """Go on from where the tables are: first read all there is, then send."""
        async with contextlib.AsyncExitStack() as stack:
            connection = await connect(self._database, autocommit=True)
            stack.push_async_callback(connection.close)
            await create_tables(connection)
            store = WebhookStore(connection, self.partition)
            self._next, self._queues = await store.load()
            self._due, self._flying = [], {}
            stack.push_async_callback(self._cancel)
            reader = consumer(self._bootstrap, f"webhooks-{self.partition}", fetch_max_wait_ms=100)
            stack.push_async_callback(stop_consumer, reader)
            await reader.start()
            reader.assign([self._place])
            first, end = await bounds(reader, self._place)
            reader.seek(self._place, max(first, self._next))
            for key in self._queues:
                self._plan(key)
            while True:
                await self._batch(store, reader)
                self.ready = self.ready or await reader.position(self._place) >= end
                if self.ready:
                    self._send_due()

    async def _batch(self, store: WebhookStore, reader: AIOKafkaConsumer) -> None:
        """Fold what there is, waiting for it until something is due."""
        found = await reader.getmany(
            self._place, timeout_ms=self._patience_ms(), max_records=BATCH_MAX
        )
        self.beats += 1
        records = found.get(self._place, [])
        if records:
            end = records[-1].offset + 1
            entries = [entry for record in records if (entry := await self._read(record))]
            changed = await store.apply(self._queues, entries, self._next, end)
            failpoint("webhooks.folded")
            self._next = end
            for key, queue in changed.items():
                if queue.forgettable:
                    self._queues.pop(key, None)
                else:
                    self._queues[key] = queue
                self._landed(key)
        now = self._clock.now()
        if now - self._pruned_at > _PRUNE_EVERY_MICROS:
            self._pruned_at = now
            await store.prune(now)

    async def _read(self, record: Any) -> Entry | None:
        """A record as it is folded; what nobody can read is put aside."""
        try:
            envelope = from_headers(record.headers)
            event = self._codec.decode(record.value)
            if not isinstance(event, WebhookRequested | WebhookRedriven | WebhookAttempted):
                raise Undecodable(f"{envelope.type} is no webhook")
            return Entry(record.offset, envelope.tenant, event)
        except (Undecodable, KeyError, ValueError) as error:
            reason = f"{TOPIC}:{self.partition}:{record.offset}: {error}"
            headers = [*record.headers, ("reason", reason.encode())]
            dead = Record(record.key or b"", record.value, headers)
            await self._log.append(DEAD_LETTERS, [dead])
            logger.error("a webhook cannot be read: %s", reason)
            return None

    # What is due.

    def _patience_ms(self) -> int:
        seconds = _IDLE_SECONDS
        if self._due and self.ready:
            seconds = min(seconds, (self._due[0][0] - self._clock.now()) / 1_000_000)
        return max(0, int(seconds * 1000) + 1)

    def _plan(self, key: EndpointKey, not_before: int = 0) -> None:
        queue = self._queues.get(key)
        if queue is not None and queue.waiting and key not in self._flying:
            heapq.heappush(self._due, (max(queue.due_at, not_before), key))

    def _landed(self, key: EndpointKey) -> None:
        """The endpoint's next attempt may be planned once the record of the last is folded."""
        appended = self._flying.get(key)
        if appended is not None and appended < self._next:
            del self._flying[key]
        self._plan(key)

    def _send_due(self) -> None:
        now = self._clock.now()
        full: list[EndpointKey] = []
        while self._due and self._due[0][0] <= now:
            _, key = heapq.heappop(self._due)
            queue = self._queues.get(key)
            if queue is None or not queue.waiting or key in self._flying or queue.due_at > now:
                continue
            if not self._places.take(key.tenant):
                full.append(key)
                continue
            self._flying[key] = None
            task = asyncio.create_task(self._fly(key, queue), name=f"webhook-{key.endpoint_id}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        for key in full:
            self._plan(key, not_before=now + int(_FULL_SECONDS * 1_000_000))

    async def _cancel(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # One attempt.

    async def _fly(self, key: EndpointKey, queue: Queue) -> None:
        """Make an attempt and say what came of it; on a failure of ours, plan it anew."""
        appended: int | None = None
        try:
            appended = await self._attempt(key, queue)
        except _FORESEEN as error:
            logger.warning("a webhook waits for a server of ours: %r", error)
        except Exception:
            logger.exception("a webhook to %s could not be tried", key.endpoint_id)
        finally:
            self._places.give(key.tenant)
        if appended is None:
            del self._flying[key]
            self._plan(key, self._clock.now() + int(_AGAIN_SECONDS * 1_000_000))
            return
        self._flying[key] = appended
        if appended < self._next:
            self._landed(key)
            self._send_due()

    async def _attempt(self, key: EndpointKey, queue: Queue) -> int | None:
        """The offset of the attempt's record; None when the endpoint is not known yet."""
        first = queue.waiting[0]
        row = await self._reads.one(TO_SEND, *key, first.event_id)
        if row is None:
            answer = Answer(0, error="its body is not kept any more")
            judgement = Judgement("dead")
        elif about_to_change(row, self._clock.now()):
            return None
        elif row["endpoint_status"] != "active":
            answer = Answer(0, error=f"the endpoint is {row['endpoint_status']}")
            judgement = Judgement("dropped")
        else:
            now = self._clock.now()
            retiring = [one for one in row["retiring"] if one["valid_until"] > now]
            seeds = [row["key_seed"], *(one["key_seed"] for one in retiring)]
            answer = await self._client.post(row["url"], seeds, first.event_id, row["body"])
            failpoint("webhooks.posted")
            judgement = judge(answer, queue, self._clock.now(), random.random())
        if judgement.disable:
            await self._disable(key, judgement.disable)
        attempted = WebhookAttempted(
            endpoint_id=key.endpoint_id,
            event_id=first.event_id,
            number=first.attempts + 1,
            outcome=judgement.outcome,
            attempted_at=self._clock.now(),
            duration_ms=answer.duration_ms,
            status_code=answer.status_code,
            error=answer.error or judgement.disable,
            response=answer.response,
            retry_at=judgement.retry_at,
        )
        if judgement.outcome == "dead":
            await self._bury(key, attempted, row)
        return await self._append(key, attempted)

    async def _append(self, key: EndpointKey, attempted: WebhookAttempted) -> int:
        """Say what came of an attempt. Not given up while this process has the partition: who has
        answered already need not be asked again."""
        record = self._record(key, attempted, attempted.attempted_at)
        while True:
            try:
                (position,) = await self._log.append(TOPIC, [record])
                return position.offset
            except LogUnavailable as error:
                logger.warning("an attempt cannot be recorded, trying again: %s", error)
                await asyncio.sleep(_AGAIN_SECONDS)

    async def _bury(self, key: EndpointKey, attempted: WebhookAttempted, row: Row | None) -> None:
        """Put what was not delivered among the dead letters, as it was requested."""
        if row is None:
            return
        undelivered = WebhookRequested(
            endpoint_id=key.endpoint_id,
            event_id=attempted.event_id,
            event_type=row["event_type"],
            body=row["body"],
            requested_at=row["requested_at"],
        )
        record = self._record(key, undelivered, attempted.attempted_at)
        reason = attempted.error or f"the endpoint answered {attempted.status_code}"
        headers = [*record.headers, ("reason", reason.encode())]
        await self._log.append(DEAD_LETTERS, [record._replace(headers=headers, partition=None)])

    def _record(
        self, key: EndpointKey, event: WebhookAttempted | WebhookRequested, at: int
    ) -> Record:
        envelope = Envelope(
            id=new_id("evt"),
            type=tag_of(type(event)),
            tenant=key.tenant,
            stream=f"{STREAM}/{key.endpoint_id}",
            version=0,
            time=at,
            actor=SYSTEM,
            causation_id=event.event_id,
        )
        value = self._codec.encode(event)
        return Record(key.endpoint_id.encode(), value, to_headers(envelope), self.partition)

    async def _disable(self, key: EndpointKey, reason: str) -> None:
        """Have it disabled, and wait until that can be read: what comes behind is dropped."""
        request = CommandRequest(
            tenant=key.tenant,
            stream_id=key.endpoint_id,
            command=DisableWebhookEndpoint(reason),
            actor=SYSTEM,
            command_id=new_id("cmd"),
        )
        try:
            await self._bus.send(request)
        except OutcomeUnknown:
            logger.warning("whether %s is disabled is not known yet", key.endpoint_id)
