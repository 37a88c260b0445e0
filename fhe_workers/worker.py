"""The consumer of `fhe.jobs`: a group member that never computes in its own process.

A record is committed when its outcome is on the log and everything before it is done, so a job
whose worker is killed runs again elsewhere. While all children are busy the loop goes on polling
with its partitions paused: long jobs never cost the membership of the group.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from aiokafka import ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError

from fhe_workers.execution import ENGINE_FAILURE, INTERNAL_ERROR, Execution, until_answered
from fhe_workers.progress import Progress
from infra.ids import new_id
from infra.kafka import Record, consumer, stop_consumer
from schemas.codec import Codec, Undecodable
from schemas.envelope import Envelope, from_headers
from schemas.fhe.evaluation_key import EvaluationKeyDeleted
from schemas.fhe.job import JobCancelled, JobSubmitted

logger = logging.getLogger(__name__)

TOPIC, DEAD_LETTERS, GROUP = "fhe.jobs", "fhe.jobs.dlq", "fhe-workers"

_IDLE_MILLISECONDS = 250
_STOP_SECONDS = 5.0
_COMMIT_SECONDS = 0.25
_RETRY_SECONDS = 1.0
_FULL_SECONDS = 20.0
# So many jobs are under way for each child beside the one that it computes: the next one is there
# in time, and reports of those that have ended can wait for each other.
_AHEAD = 7
# Long jobs that wait for each other, beside those; beyond them they hold up the others after all.
_ASIDE_MAX = 256


class DeadLetters(Protocol):
    """Where records go that no worker could do."""

    async def append(self, topic: str, records: Sequence[Record]) -> Any:
        """Append and wait for the acknowledgement. Raises LogUnavailable."""
        ...


def jobs_consumer(bootstrap: str, group: str = GROUP) -> Any:
    """A member of the workers' group; after a kill its jobs move on within some seconds."""
    return consumer(
        bootstrap,
        new_id("fhe-worker"),
        group_id=group,
        # A new group begins with whatever waits; an old job is past its deadline and skipped.
        auto_offset_reset="earliest",
        session_timeout_ms=6_000,
        heartbeat_interval_ms=1_500,
        max_poll_interval_ms=300_000,
    )


class _Running:
    """An attempt at a job that a task of this process is at."""

    def __init__(self, job: JobSubmitted, task: "asyncio.Task[Any]") -> None:
        self.job_id, self.key_id, self._task = job.job_id, job.key_id, task
        self.is_cancelled = False
        self.ended = asyncio.Event()

    def cancel(self) -> None:
        """Its client does not want it any more."""
        if not self.is_cancelled:
            self.is_cancelled = True
            self._task.cancel()

    def outlives_cancelling(self) -> bool:
        """Whether the CancelledError that the task has caught is the client's alone, so that the
        task goes on; else somebody is ending the worker."""
        return self.is_cancelled and not self._task.uncancel()


class Worker:
    """One process's part of the jobs.

    connect() makes an unstarted consumer, see `jobs_consumer`. capacity: the number of children.
    """

    def __init__(
        self,
        *,
        connect: Callable[[], Any],
        execution: Execution,
        codec: Codec,
        dead_letters: DeadLetters,
        capacity: int,
    ) -> None:
        self._connect, self._execution, self._codec = connect, execution, codec
        self._jobs: Any = None
        self._dead_letters, self._limit = dead_letters, capacity * (1 + _AHEAD)
        # Full, it waits for some room, not for the first: to poll costs more than to wait.
        self._enough_room_at = self._limit - capacity
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._progress: dict[TopicPartition, Progress] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        # Jobs that are long and take no place from others; only so many of them.
        self._aside: set[asyncio.Task[None]] = set()
        self._running: dict[tuple[str, int], _Running] = {}
        self._commit_at = 0.0
        self._assigned = asyncio.Event()

    async def run(self, stop: asyncio.Event, ready: Callable[[], None]) -> None:
        """Work until `stop` is set; waits for a broker that is not there yet.

        On stopping, jobs get a few seconds to end; what is left runs again elsewhere.
        """
        stopped = asyncio.ensure_future(stop.wait())
        stopped.add_done_callback(lambda _: self._has_room.set())
        try:
            if not await self._connected(stopped):
                return
            self._jobs.subscribe([TOPIC], listener=_Listener(self))
            while not self._assigned.is_set() and not stop.is_set():
                await self._take_up()
            ready()
            while not stop.is_set():
                await self._take_up()
                if len(self._tasks) >= self._limit:
                    self._has_room.clear()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_FULL_SECONDS):
                            await self._has_room.wait()
                    self._has_room.set()
                await self._commit()
            await self._wind_up()
        finally:
            stopped.cancel()
            unfinished = self._tasks | self._aside
            for task in unfinished:
                task.cancel()
            await asyncio.gather(*unfinished, return_exceptions=True)
            if self._jobs is not None:
                await stop_consumer(self._jobs)

    async def pending(self) -> Mapping[Hashable, int]:
        """What the watchdog sees: per partition, the position that records wait behind.

        Nothing while there is no room for more. Raises KafkaError when the broker is away.
        """
        waiting: dict[Hashable, int] = {}
        is_full = len(self._tasks) >= self._limit or not self._has_room.is_set()
        if self._jobs is None or is_full:
            return waiting
        for partition, end in (await self._jobs.end_offsets(self._jobs.assignment())).items():
            position = await self._jobs.position(partition)
            if position < end:
                waiting[partition] = position
        return waiting

    async def _connected(self, stopped: "asyncio.Future[Any]") -> bool:
        """Join the group, as often as it takes; False when asked to stop meanwhile."""
        while not stopped.done():
            jobs = self._connect()
            try:
                await jobs.start()
            except (KafkaError, OSError) as error:
                logger.warning("waiting for the broker: %s", error)
                await stop_consumer(jobs)
                await asyncio.wait({stopped}, timeout=_RETRY_SECONDS)
                continue
            self._jobs = jobs
            return True
        return False

    def assigned(self, partitions: Iterable[TopicPartition]) -> None:
        """Partitions are ours from now on."""
        for partition in partitions:
            self._progress.setdefault(partition, Progress())
        self._assigned.set()

    def revoked(self, partitions: Iterable[TopicPartition]) -> None:
        """Partitions go to somebody else, who does their unfinished jobs again."""
        for partition in partitions:
            self._progress.pop(partition, None)

    async def _take_up(self) -> None:
        """Poll once, for as many records as there is room; with none, only to stay a member."""
        room = self._limit - len(self._tasks)
        try:
            if room > 0:
                batches = await self._jobs.getmany(timeout_ms=_IDLE_MILLISECONDS, max_records=room)
            else:
                assigned = self._jobs.assignment()
                self._jobs.pause(*assigned)
                batches = await self._jobs.getmany(timeout_ms=0)
                self._jobs.resume(*assigned)
        except (KafkaError, IllegalStateError):
            logger.warning("the jobs cannot be read, trying again", exc_info=True)
            await asyncio.sleep(_IDLE_MILLISECONDS / 1000)
            return
        for partition, records in batches.items():
            # Records may come before the listener has run; they are ours all the same.
            progress = self._progress.setdefault(partition, Progress())
            for record in records:
                progress.begin(record.offset)
                task = asyncio.create_task(self._attend(record, progress))
                self._tasks.add(task)
                task.add_done_callback(self._finished)

    def _step_aside(self, task: "asyncio.Task[Any]") -> None:
        if len(self._aside) < _ASIDE_MAX:
            self._aside.add(task)
            self._leave(task)

    def _finished(self, task: "asyncio.Task[None]") -> None:
        self._aside.discard(task)
        self._leave(task)

    def _leave(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if len(self._tasks) <= self._enough_room_at:
            self._has_room.set()

    async def _attend(self, record: Any, progress: Progress) -> None:
        """See a record through to its end, whatever it is: one bad record stops nothing."""
        try:
            envelope, event = from_headers(record.headers), self._codec.decode(record.value)
        except (KeyError, ValueError, Undecodable) as error:
            logger.error("a job cannot be decoded: %s", error)
            await self._bury(record, f"undecodable: {error}")
        else:
            try:
                await self._handle(record, envelope, event)
            except Exception as error:
                logger.exception("a record of the jobs failed")
                await self._bury(record, f"{INTERNAL_ERROR}: {error!r}")
        progress.end(record.offset)

    async def _handle(self, record: Any, envelope: Envelope, event: Any) -> None:
        match event:
            case JobSubmitted():
                await self._do(record, envelope, event)
            case JobCancelled():
                for job in [job for job in self._running.values() if job.job_id == event.job_id]:
                    job.cancel()
            case EvaluationKeyDeleted():
                # Jobs of this key came before its deletion; they are done with the key first.
                for job in [job for job in self._running.values() if job.key_id == event.key_id]:
                    await job.ended.wait()
                await self._execution.erase(event.objects)
            case _:
                await self._bury(record, f"no event of a job: {envelope.type}")

    async def _do(self, record: Any, envelope: Envelope, job: JobSubmitted) -> None:
        attempt = job.job_id, job.attempt
        known = self._running.get(attempt)
        if known is not None:
            # It came again after a rebalance, and this process is at it already.
            await known.ended.wait()
            return
        task = asyncio.current_task()
        assert task is not None
        running = self._running[attempt] = _Running(job, task)
        if self._execution.is_long(job):
            self._step_aside(task)
        failure = ""
        try:
            failure = await self._execution.carry_out(envelope, job)
        except asyncio.CancelledError:
            if not running.outlives_cancelling():
                raise
        finally:
            del self._running[attempt]
            running.ended.set()
        if running.is_cancelled:
            await self._execution.erase(job.own_objects)
        elif failure in (ENGINE_FAILURE, INTERNAL_ERROR):
            await self._bury(record, f"{job.job_id}: {failure}")

    async def _bury(self, record: Any, reason: str) -> None:
        headers = [*record.headers, ("reason", reason.encode())]
        letter = Record(record.key, record.value, headers)
        await until_answered(partial(self._dead_letters.append, DEAD_LETTERS, [letter]))

    async def _commit(self, at_once: bool = False) -> None:
        now = asyncio.get_running_loop().time()
        if now < self._commit_at and not at_once:
            return
        self._commit_at = now + _COMMIT_SECONDS
        offsets = {
            partition: offset
            for partition, progress in self._progress.items()
            if (offset := progress.take_committable()) is not None
        }
        if not offsets:
            return
        try:
            await self._jobs.commit(offsets)
        except (CommitFailedError, IllegalStateError, KafkaError) as error:
            # Done again by whoever has the partitions now, or committed with the next ones.
            logger.info("offsets not committed", extra={"error": repr(error)})
            for partition, offset in offsets.items():
                if partition in self._progress:
                    self._progress[partition].give_back(offset)

    async def _wind_up(self) -> None:
        if unfinished := self._tasks | self._aside:
            await asyncio.wait(unfinished, timeout=_STOP_SECONDS)
        await self._commit(at_once=True)


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka is untyped
    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        self._worker.revoked(revoked)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        self._worker.assigned(assigned)
