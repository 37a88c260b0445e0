"""The decider loop: one writer per partition of `commands`.

For each batch, in this order:
1. read whatever commands are there (group commit), load the states they need, decide, evolve;
2. ONE Kafka transaction: events, audit, copies (billing, fhe.jobs), outcomes. The outcome of a
   command carries its offset, so how far the commands are done commits with their effects;
3. ONE Postgres transaction: states, look-ups, outcomes, timers, read models and the checkpoint, by
   compare-and-set;
4. replies.
While Postgres writes one batch (3, 4), the next one is decided (1, 2): what the first has changed
is in memory by then, and batches reach Postgres one at a time, in order.
A crash before 2 costs nothing: the commands are read again. Between 2 and 3: the next owner folds
what the log holds beyond the checkpoint (`Recovery`), replies included. After 3: the caller gets
503 and the same answer to its retry. A process that lost its partition cannot commit in 2 (its
transactional id is fenced) and, should it be past 2, cannot write in 3 (the checkpoint has moved).
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, NamedTuple

import psycopg
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from infra.clock import Clock
from infra.failpoints import failpoint
from infra.ids import new_id
from infra.kafka import Log, LogUnavailable, Record, bounds, consumer, stop_consumer
from infra.kafka_transactions import Tail, TransactionLost, Transactions
from infra.postgres import DatabaseUnavailable, connect
from schemas.codec import Codec
from schemas.platform.outcome import CommandHandled
from streams.deciding import Registry, Workspace
from streams.effects import Effects, Incoming, StateKey
from streams.incoming import read_command
from streams.memory import Memory
from streams.needs import looked_up, needs_of
from streams.records import dead_record, keyed_copies_of, records_of, reply_record
from streams.recovery import Recovery
from streams.store import Checkpoint, Store, Superseded
from streams.writes import Writes

logger = logging.getLogger(__name__)

BATCH_MAX = 500
# Answers recovered from the log are sent again while somebody may still wait for them.
REPLY_AGAIN_MICROS = 60_000_000
_PRUNE_EVERY_MICROS = 600_000_000

# What losing a broker, a database or a partition looks like.
_FORESEEN = (
    TransactionLost,
    Superseded,
    KafkaError,
    LogUnavailable,
    DatabaseUnavailable,
    psycopg.Error,
    OSError,
    TimeoutError,
)


class _Decided(NamedTuple):
    """A batch that is on the log: what Postgres and who waits have still to hear of it."""

    writes: Writes
    before: Checkpoint
    after: Checkpoint
    outcomes: Sequence[tuple[str, CommandHandled]]


class PartitionDecider:
    """Owns one partition while it runs. `ready` is true once it decides."""

    def __init__(
        self,
        partition: int,
        *,
        bootstrap: str,
        database: str,
        registry: Registry,
        codec: Codec,
        clock: Clock,
        replies: Log,
    ) -> None:
        self.partition = partition
        self.ready = self._was_ready = False
        self.beats = 0
        self._bootstrap, self._database = bootstrap, database
        self._registry, self._codec, self._clock, self._replies = registry, codec, clock, replies
        self._transactions = Transactions(bootstrap, f"decider-{partition}")
        self._commands = TopicPartition("commands", partition)
        self._checkpoint = Checkpoint()
        self._memory = Memory()
        self._consumer: AIOKafkaConsumer | None = None
        self._pruned_at = 0
        self._replying: set[asyncio.Task[None]] = set()

    @property
    def lag(self) -> int:
        """Commands on the log that are not decided yet, as far as the last fetch knows."""
        if self._consumer is None or not self.ready:
            return 0
        highwater = self._consumer.highwater(self._commands) or 0
        return max(0, highwater - self._checkpoint.commands_next)

    async def run(self) -> None:
        """Own the partition until cancelled; what goes wrong outside is waited out."""
        delay = 0.1
        while True:
            try:
                await self._own()
            except Exception as error:
                # Foreseen or not, the way back is the same: fence, fold, go on.
                foreseen = isinstance(error, _FORESEEN)
                logger.warning(
                    "partition %s starts over: %r", self.partition, error, exc_info=not foreseen
                )
                delay = 0.1 if self._was_ready else min(2.0, delay * 2)
            self._beat()
            await asyncio.sleep(delay)

    async def _own(self) -> None:
        """Fence, fold what the log holds beyond the checkpoint, then decide."""
        self._memory = Memory()
        self._beat()
        try:
            # The order matters: once fenced, nothing of an older owner can appear any more.
            await self._transactions.fence()
            async with contextlib.AsyncExitStack() as stack:
                writing, reading = [
                    await stack.enter_async_context(self._connected()) for _ in range(2)
                ]
                store = Store(writing, self.partition, self._registry, self._codec)
                self._checkpoint = await store.checkpoint()
                recovery = Recovery(
                    bootstrap=self._bootstrap,
                    partition=self.partition,
                    registry=self._registry,
                    codec=self._codec,
                    store=store,
                    connection=writing,
                    folded=self._folded,
                )
                self._checkpoint = await recovery.run(self._checkpoint)
                commands = consumer(self._bootstrap, f"decider-{self.partition}-commands")
                stack.push_async_callback(stop_consumer, commands)
                await commands.start()
                commands.assign([self._commands])
                first, _ = await bounds(commands, self._commands)
                commands.seek(self._commands, max(first, self._checkpoint.commands_next))
                self._consumer, self.ready = commands, True
                logger.info("partition %s is decided here", self.partition)
                beside = Store(reading, self.partition, self._registry, self._codec)
                await self._decide(store, beside, commands)
        finally:
            self._was_ready, self.ready, self._consumer = self.ready, False, None
            await self._transactions.discard()

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        connection = await connect(self._database, autocommit=True)
        try:
            yield connection
        finally:
            with contextlib.suppress(psycopg.Error):
                await connection.close()

    # Deciding.

    async def _decide(self, store: Store, beside: Store, commands: AIOKafkaConsumer) -> None:
        """Decide one batch while `store` writes the one before; `beside` reads meanwhile."""
        applying: asyncio.Task[None] | None = None
        try:
            while True:
                decided = await self._batch(beside, commands)
                if applying is not None and (decided is not None or applying.done()):
                    await applying
                    applying = None
                if decided is not None:
                    applying = asyncio.create_task(self._apply(store, decided))
        finally:
            if applying is not None:
                applying.cancel()
                await asyncio.gather(applying, return_exceptions=True)

    async def _batch(self, store: Store, commands: AIOKafkaConsumer) -> _Decided | None:
        """The next batch, decided and on the log; None when there was nothing for a second."""
        found = await commands.getmany(self._commands, timeout_ms=1000, max_records=BATCH_MAX)
        self._beat()
        records = found.get(self._commands)
        now = self._clock.now()
        if not records:
            if now - self._pruned_at > _PRUNE_EVERY_MICROS:
                self._pruned_at = now
                await store.prune(now)
            return None
        failpoint("decider.read")
        known = self._registry.by_command
        batch = [read_command(record, self.partition, self._codec, known) for record in records]
        workspace = await self._workspace(store, batch)
        for incoming in batch:
            workspace.handle(incoming, now)
        effects, before = workspace.effects, self._checkpoint
        sent, writes = await self._commit(store, effects)
        failpoint("decider.committed")
        self._checkpoint = Checkpoint(
            commands_next=batch[-1].offset + 1,
            events_next=sent.get("events", before.events_next),
            outcomes_next=sent["outcomes"],
            audit_next=sent.get("audit", before.audit_next),
        )
        self._memory.merge(effects)
        return _Decided(writes, before, self._checkpoint, effects.outcomes)

    async def _apply(self, store: Store, decided: _Decided) -> None:
        """Bring a batch to Postgres, then answer those who wait for it."""
        await store.apply(decided.writes, decided.before, decided.after)
        failpoint("decider.applied")
        self._reply(decided.outcomes, decided.after)

    async def _workspace(self, store: Store, batch: Sequence[Incoming]) -> Workspace:
        needs = needs_of(self._registry, batch)
        memory = self._memory
        lookups, missing_lookups = memory.lookups.pick(needs.lookups)
        if missing_lookups:
            fresh = await store.lookups(missing_lookups)
            memory.lookups.update(fresh)
            lookups |= fresh
        wanted = needs.states | looked_up(self._registry, batch, lookups)
        outcomes, missing_outcomes = memory.outcomes.pick(needs.outcomes)
        if missing_outcomes:
            stored = await store.outcomes(missing_outcomes)
            known = {key: stored.get(key) for key in missing_outcomes}
            memory.outcomes.update(known)
            outcomes |= known
        heads, missing_heads = memory.heads.pick(needs.heads)
        if missing_heads:
            found = await store.heads(missing_heads)
            ends = {tenant: found.get(tenant) for tenant in missing_heads}
            memory.heads.update(ends)
            heads |= ends
        return Workspace(
            registry=self._registry,
            states=await self._states(store, wanted),
            lookups=lookups,
            outcomes={key: value for key, value in outcomes.items() if value is not None},
            heads={key: value for key, value in heads.items() if value is not None},
            new_id=new_id,
        )

    async def _states(
        self, store: Store, wanted: Iterable[StateKey]
    ) -> dict[StateKey, tuple[int, Any]]:
        states, missing = self._memory.states.pick(wanted)
        if missing:
            stored = await store.states(missing)
            # A stream that never was is remembered as such.
            fresh = {
                key: stored.get(key) or (0, self._registry.by_stream[key[1]].initial)
                for key in missing
            }
            self._memory.states.update(fresh)
            states |= fresh
        return states

    # Writing.

    async def _commit(self, store: Store, effects: Effects) -> tuple[dict[str, int], Writes]:
        """Write a batch to Kafka; returns the next offset of each own topic that it wrote to, and
        what is to be written to Postgres then, made ready while the broker works."""
        tails: dict[str, Tail] = {}
        async with self._transactions.txn() as txn:
            for topic, found in records_of(effects, self._codec).items():
                tails[topic] = await txn.append(topic, self.partition, found)
            for topic, record in keyed_copies_of(effects, self._codec):
                await txn.send(topic, record)
            for dead in effects.dead:
                await txn.send("commands.dlq", dead_record(dead))
            failpoint("decider.sent")
            writes = store.writes(effects)
        return {topic: tail.next_offset() for topic, tail in tails.items()}, writes

    def _reply(self, outcomes: Iterable[tuple[str, CommandHandled]], reached: Checkpoint) -> None:
        """Answer who waits. Not awaited: a lost answer is a 503 whose retry is safe."""
        position = f"events:{self.partition}:{max(0, reached.events_next - 1)}"
        waiting: dict[int | None, list[Record]] = {}
        for _, outcome in outcomes:
            if outcome.reply_to:
                record = reply_record(outcome, position)
                waiting.setdefault(record.partition, []).append(record)
        for records in waiting.values():
            task = asyncio.create_task(self._send_replies(records))
            self._replying.add(task)
            task.add_done_callback(self._replying.discard)

    async def _send_replies(self, records: Sequence[Record]) -> None:
        try:
            await self._replies.append("replies", records)
        except LogUnavailable:
            logger.warning("%s answers could not be sent", len(records))

    def _folded(self, effects: Effects, checkpoint: Checkpoint) -> None:
        """A chunk of the log was recovered; who waits for one of its commands is answered."""
        self._beat()
        self._checkpoint = checkpoint
        recent = self._clock.now() - REPLY_AGAIN_MICROS
        self._reply(((t, o) for t, o in effects.outcomes if o.at > recent), checkpoint)

    def _beat(self) -> None:
        """Tell the watchdog that this loop still moves."""
        self.beats += 1
