"""The decider loop: one writer per partition of `commands`.

For each batch, in this order:
1. read whatever commands are there (group commit), load the states they need, decide, evolve;
2. ONE Kafka transaction: events, audit, copies (billing, fhe.jobs), outcomes. The outcome of a
   command carries its offset, so how far the commands are done commits with their effects;
3. ONE Postgres transaction: states, look-ups, outcomes, timers, read models and the checkpoint, by
   compare-and-set;
4. replies.
A crash before 2 costs nothing: the commands are read again. Between 2 and 3: the next owner folds
what the log holds beyond the checkpoint (`_recover`), replies included. After 3: the caller gets
503 and the same answer to its retry. A process that lost its partition cannot commit in 2 (its
transactional id is fenced) and, should it be past 2, cannot write in 3 (the checkpoint has moved).
"""

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import msgspec
import psycopg
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from msgspec import Struct

from infra.clock import Clock
from infra.ids import new_id
from infra.kafka import (
    Log,
    LogUnavailable,
    Record,
    TransactionLost,
    Transactions,
    Txn,
    bounds,
    consumer,
    header,
    read_range,
    stop_consumer,
)
from infra.leases import Leases
from infra.postgres import DatabaseUnavailable, connect
from projections import VIEWS
from projections.runner import apply, reduce_all
from schemas.avro_derivation import tag_of
from schemas.codec import Codec, Undecodable
from schemas.envelope import SYSTEM, Envelope, from_headers, to_headers
from schemas.platform.audit import AuditRecorded
from schemas.platform.audit_chain import Link
from schemas.platform.outcome import CommandHandled
from schemas.topics import copy_targets
from streams.bus import FINGERPRINT, REPLY_TO, TIMER, Reply
from streams.deciding import (
    Effects,
    Incoming,
    LookupKey,
    Recorded,
    Registry,
    StateKey,
    Workspace,
    looked_up,
    needs_of,
    needs_of_fold,
)
from streams.store import Checkpoint, Store, Superseded, create_tables

logger = logging.getLogger(__name__)

BATCH_MAX = 500
FOLD_BATCH = 2000
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

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """The most recently used entries, at most `size`. A miss says nothing: ask the store."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: OrderedDict[K, V] = OrderedDict()

    def pick(self, keys: Iterable[K]) -> tuple[dict[K, V], set[K]]:
        """What is known of the keys, and which are not."""
        known: dict[K, V] = {}
        missing: set[K] = set()
        for key in keys:
            if key in self._entries:
                known[key] = self._entries[key]
                self._entries.move_to_end(key)
            else:
                missing.add(key)
        return known, missing

    def update(self, entries: Mapping[K, V]) -> None:
        """Remember entries as the newest, and forget the oldest beyond the size."""
        for key, value in entries.items():
            self._entries[key] = value
            self._entries.move_to_end(key)
        while len(self._entries) > self._size:
            self._entries.popitem(last=False)


class Memory:
    """What an owner remembers between batches, so that a hot tenant costs no query."""

    def __init__(self) -> None:
        self.states: Recent[StateKey, tuple[int, Any]] = Recent(50_000)
        self.lookups: Recent[LookupKey, str | None] = Recent(50_000)
        self.outcomes: Recent[tuple[str, str], CommandHandled | None] = Recent(20_000)
        self.heads: Recent[str, Link | None] = Recent(20_000)

    def merge(self, effects: Effects) -> None:
        """Remember what a batch changed, once it is durable."""
        self.states.update(effects.states)
        self.lookups.update(effects.lookups)
        self.heads.update(dict(effects.heads))
        self.outcomes.update(
            {(t, o.command_id): o for t, o in effects.outcomes if o.fingerprint and not o.replay}
        )


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
        self.alive_at = 0.0
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
        try:
            # The order matters: once fenced, nothing of an older owner can appear any more.
            await self._transactions.fence()
            async with contextlib.AsyncExitStack() as stack:
                connection = await connect(self._database, autocommit=True)
                stack.push_async_callback(_close, connection)
                store = Store(connection, self.partition, self._registry, self._codec)
                self._checkpoint = await store.checkpoint()
                await self._recover(store, connection)
                commands = consumer(self._bootstrap, f"decider-{self.partition}-commands")
                stack.push_async_callback(stop_consumer, commands)
                await commands.start()
                commands.assign([self._commands])
                first, _ = await bounds(commands, self._commands)
                commands.seek(self._commands, max(first, self._checkpoint.commands_next))
                self._consumer, self.ready = commands, True
                logger.info("partition %s is decided here", self.partition)
                while True:
                    await self._batch(store, commands)
        finally:
            self._was_ready, self.ready, self._consumer = self.ready, False, None
            await self._transactions.discard()

    # Deciding.

    async def _batch(self, store: Store, commands: AIOKafkaConsumer) -> None:
        found = await commands.getmany(self._commands, timeout_ms=1000, max_records=BATCH_MAX)
        self._beat()
        records = found.get(self._commands)
        now = self._clock.now()
        if not records:
            if now - self._pruned_at > _PRUNE_EVERY_MICROS:
                self._pruned_at = now
                await store.prune(now)
            return
        batch = [self._incoming(record) for record in records]
        workspace = await self._workspace(store, batch)
        for incoming in batch:
            workspace.handle(incoming, now)
        effects = workspace.effects
        sent = await self._commit(effects)
        after = Checkpoint(
            commands_next=batch[-1].offset + 1,
            events_next=sent.get("events", self._checkpoint.events_next),
            outcomes_next=sent["outcomes"],
            audit_next=sent.get("audit", self._checkpoint.audit_next),
        )
        await store.apply(effects, self._checkpoint, after)
        self._checkpoint = after
        self._memory.merge(effects)
        self._reply(effects.outcomes)

    def _incoming(self, record: Any) -> Incoming:
        try:
            envelope = from_headers(record.headers)
        except (KeyError, ValueError) as error:
            # Not even an envelope: it belongs to nobody, and is put aside for us.
            tenant = (record.key or b"_unknown").decode(errors="replace")
            nameless = f"cmd_offset_{self.partition}_{record.offset}"
            envelope = Envelope(
                nameless, "platform.unreadable.v1", tenant, "platform.unreadable/0", 0, 0, SYSTEM
            )
            return self._poison(record, envelope, f"no envelope: {error!r}")
        try:
            command = self._codec.decode(record.value)
            if type(command) not in self._registry.by_command:
                raise Undecodable(f"{envelope.type} has no decider")
        except Undecodable as error:
            return self._poison(record, envelope, str(error))
        return Incoming(
            record.offset,
            envelope,
            command,
            fingerprint=header(record.headers, FINGERPRINT),
            reply_to=header(record.headers, REPLY_TO),
            timer=header(record.headers, TIMER),
            key=record.key or b"",
            raw=record.value or b"",
        )

    def _poison(self, record: Any, envelope: Envelope, error: str) -> Incoming:
        return Incoming(
            record.offset,
            envelope,
            None,
            reply_to=header(record.headers, REPLY_TO),
            timer=header(record.headers, TIMER),
            key=record.key or b"",
            raw=record.value or b"",
            error=error,
        )

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

    async def _commit(self, effects: Effects) -> dict[str, int]:
        """Write a batch to Kafka; returns the next offset of each own topic that it wrote to."""
        last: dict[str, asyncio.Future[Any]] = {}
        async with self._transactions.txn() as txn:
            for recorded in effects.events:
                last["events"] = await self._send_event(txn, recorded)
            for record in effects.audit:
                last["audit"] = await txn.send("audit", self._audit_record(record))
            for tenant, outcome in effects.outcomes:
                last["outcomes"] = await txn.send("outcomes", self._outcome_record(tenant, outcome))
            for dead in effects.dead:
                headers = [("reason", dead.reason.encode()), ("incident", dead.incident.encode())]
                await txn.send("commands.dlq", Record(dead.key, dead.raw, headers))
        return {topic: future.result().offset + 1 for topic, future in last.items()}

    async def _send_event(self, txn: Txn, recorded: Recorded) -> "asyncio.Future[Any]":
        envelope, event = recorded
        key, value, headers = envelope.tenant.encode(), self._codec.encode(event), None
        headers = to_headers(envelope)
        for topic in copy_targets(envelope.type):
            if topic.copy_key is None:
                copy = Record(key, value, headers, self.partition)
            else:
                copy = Record(str(getattr(event, topic.copy_key)).encode(), value, headers)
            await txn.send(topic.name, copy)
        return await txn.send("events", Record(key, value, headers, self.partition))

    def _audit_record(self, record: AuditRecorded) -> Record:
        envelope = Envelope(
            id=f"aud_{record.tenant}_{record.seq}",
            type=tag_of(AuditRecorded),
            tenant=record.tenant,
            stream=f"platform.audit/{record.tenant}",
            version=record.seq,
            time=record.at,
            actor=SYSTEM,
            correlation_id=record.correlation_id,
            causation_id=record.command_id,
        )
        return self._own_record(envelope, record)

    def _outcome_record(self, tenant: str, outcome: CommandHandled) -> Record:
        envelope = Envelope(
            id=outcome.command_id,
            type=tag_of(CommandHandled),
            tenant=tenant,
            stream=outcome.stream,
            version=outcome.version,
            time=outcome.at,
            actor=SYSTEM,
        )
        return self._own_record(envelope, outcome)

    def _own_record(self, envelope: Envelope, value: Struct) -> Record:
        return Record(
            envelope.tenant.encode(),
            self._codec.encode(value),
            to_headers(envelope),
            self.partition,
        )

    def _reply(self, outcomes: Iterable[tuple[str, CommandHandled]]) -> None:
        """Answer who waits. Not awaited: a lost answer is a 503 whose retry is safe."""
        position = f"events:{self.partition}:{max(0, self._checkpoint.events_next - 1)}"
        records = [_reply_record(outcome, position) for _, outcome in outcomes if outcome.reply_to]
        if records:
            task = asyncio.create_task(self._send_replies(records))
            self._replying.add(task)
            task.add_done_callback(self._replying.discard)

    async def _send_replies(self, records: Sequence[Record]) -> None:
        try:
            await self._replies.append("replies", records)
        except LogUnavailable:
            logger.warning("%s answers could not be sent", len(records))

    # Recovering.

    async def _recover(self, store: Store, connection: psycopg.AsyncConnection[Any]) -> None:
        reader = consumer(self._bootstrap, f"decider-{self.partition}-recovery")
        try:
            await reader.start()
            partitions = [
                TopicPartition(topic, self.partition) for topic in ("events", "outcomes", "audit")
            ]
            reader.assign(partitions)
            for partition in partitions:
                reader.pause(partition)
            await self._fill_views(reader, connection)
            await self._replay(reader, store, "events", self._fold_events)
            await self._replay(reader, store, "audit", self._fold_audit)
            await self._replay(reader, store, "outcomes", self._fold_outcomes)
        finally:
            await stop_consumer(reader)

    async def _replay(
        self,
        reader: AIOKafkaConsumer,
        store: Store,
        topic: str,
        fold: "Callable[[Store, Sequence[Any]], Any]",
    ) -> None:
        """Fold a topic from the checkpoint to its end, a batch and a checkpoint at a time."""
        partition = TopicPartition(topic, self.partition)
        first, end = await bounds(reader, partition)
        field = f"{topic}_next"
        start = max(first, getattr(self._checkpoint, field))
        reader.resume(partition)
        async for records in read_range(reader, partition, start, end, FOLD_BATCH):
            self._beat()
            effects = await fold(store, records)
            after = msgspec.structs.replace(self._checkpoint, **{field: records[-1].offset + 1})
            commands_next = max(
                (outcome.command_offset + 1 for _, outcome in effects.outcomes),
                default=after.commands_next,
            )
            after = msgspec.structs.replace(
                after, commands_next=max(after.commands_next, commands_next)
            )
            await store.apply(effects, self._checkpoint, after)
            self._checkpoint = after
            self._memory.merge(effects)
            recent = self._clock.now() - REPLY_AGAIN_MICROS
            self._reply((t, o) for t, o in effects.outcomes if o.at > recent)
        reader.pause(partition)

    async def _fold_events(self, store: Store, records: Sequence[Any]) -> Effects:
        events = [self._recorded(record) for record in records]
        events = [item for item in events if _stream_of(item) in self._registry.by_stream]
        states = await self._states(store, needs_of_fold(self._registry, events))
        workspace = self._folding(states)
        workspace.fold(events, (), ())
        return workspace.effects

    async def _fold_audit(self, store: Store, records: Sequence[Any]) -> Effects:
        workspace = self._folding({})
        workspace.fold((), [self._codec.decode(record.value) for record in records], ())
        return workspace.effects

    async def _fold_outcomes(self, store: Store, records: Sequence[Any]) -> Effects:
        workspace = self._folding({})
        outcomes = [
            (from_headers(record.headers).tenant, self._codec.decode(record.value))
            for record in records
        ]
        workspace.fold((), (), outcomes)
        return workspace.effects

    def _folding(self, states: Mapping[StateKey, tuple[int, Any]]) -> Workspace:
        return Workspace(
            registry=self._registry,
            states=states,
            lookups={},
            outcomes={},
            heads={},
            new_id=new_id,
        )

    def _recorded(self, record: Any) -> Recorded:
        return Recorded(from_headers(record.headers), self._codec.decode(record.value))

    async def _fill_views(
        self, reader: AIOKafkaConsumer, connection: psycopg.AsyncConnection[Any]
    ) -> None:
        """Fill a view's new version with this partition's history up to the checkpoint."""
        cursor = await connection.execute(
            "SELECT view_table FROM view_fills WHERE partition = %s", (self.partition,)
        )
        filled = {row["view_table"] for row in await cursor.fetchall()}
        partition = TopicPartition("events", self.partition)
        for view in VIEWS:
            if view.table in filled:
                continue
            if self._checkpoint.events_next > 0:
                first, _ = await bounds(reader, partition)
                reader.resume(partition)
                end = self._checkpoint.events_next
                async for records in read_range(reader, partition, first, end, FOLD_BATCH):
                    self._beat()
                    pairs = reduce_all([view], [self._recorded(record) for record in records])
                    async with connection.transaction():
                        await apply(connection, pairs)
                reader.pause(partition)
            await connection.execute(
                "INSERT INTO view_fills VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
                (view.table, self.partition, self._checkpoint.events_next),
            )

    def _beat(self) -> None:
        self.alive_at = asyncio.get_running_loop().time()


def _stream_of(item: Recorded) -> str:
    return item.envelope.stream.partition("/")[0]


def _reply_record(outcome: CommandHandled, position: str) -> Record:
    instance, _, partition = outcome.reply_to.partition("/")
    reply = Reply(
        command_id=outcome.command_id,
        status=outcome.status,
        code=outcome.code,
        kind=outcome.kind,
        message=outcome.message,
        details=outcome.details,
        answer=outcome.answer,
        stream=outcome.stream,
        version=outcome.version,
        position=position,
        replayed=outcome.replay,
        incident=outcome.incident,
    )
    return Record(instance.encode(), msgspec.json.encode(reply), [], int(partition))


async def _close(connection: psycopg.AsyncConnection[Any]) -> None:
    with contextlib.suppress(psycopg.Error):
        await connection.close()


class DeciderRole:
    """The partitions that this process leases, each with its own loop."""

    def __init__(
        self,
        *,
        bootstrap: str,
        database: str,
        partitions: int,
        registry: Registry,
        codec: Codec,
        clock: Clock,
        owner: str,
    ) -> None:
        self._bootstrap, self._database = bootstrap, database
        self._registry, self._codec, self._clock = registry, codec, clock
        self._leases = Leases(database, "decider", partitions, owner)
        self._replies = Log(bootstrap, f"{owner}-replies")
        self._loops: dict[int, PartitionDecider] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}

    @property
    def loops(self) -> Mapping[int, PartitionDecider]:
        """The partitions run here."""
        return self._loops

    async def serving(self) -> None:
        """Return once every partition leased here is decided (and the leases are settled)."""
        while not self._loops or not all(loop.ready for loop in self._loops.values()):
            await asyncio.sleep(0.02)
            if self._leases.settled and not self._leases.held:
                return  # others hold them all: this process is the spare

    async def run(self) -> None:
        """Run until cancelled."""
        await self._prepare()
        await self._leases.start()
        try:
            while True:
                await self._follow_leases()
                async with self._leases.changed:
                    await self._leases.changed.wait_for(
                        lambda: self._leases.held != set(self._tasks)
                    )
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)
            await self._leases.stop()
            await self._replies.stop()

    async def _prepare(self) -> None:
        while True:
            try:
                connection = await connect(self._database, autocommit=True)
                try:
                    await create_tables(connection)
                finally:
                    await _close(connection)
                return
            except (DatabaseUnavailable, psycopg.OperationalError) as error:
                logger.warning("waiting for Postgres: %s", error)
                await asyncio.sleep(0.5)

    async def _follow_leases(self) -> None:
        held = self._leases.held
        for partition in set(self._tasks) - held:
            task = self._tasks.pop(partition)
            del self._loops[partition]
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        for partition in held - set(self._tasks):
            loop = PartitionDecider(
                partition,
                bootstrap=self._bootstrap,
                database=self._database,
                registry=self._registry,
                codec=self._codec,
                clock=self._clock,
                replies=self._replies,
            )
            self._loops[partition] = loop
            self._tasks[partition] = asyncio.create_task(loop.run(), name=f"decider-{partition}")
