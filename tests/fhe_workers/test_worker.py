"""The consumer of jobs over a consumer in memory: what it takes up, commits, repeats and buries."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, NamedTuple

import msgspec
import pytest
from aiokafka import TopicPartition
from aiokafka.errors import CommitFailedError, KafkaConnectionError
from msgspec import Struct

from fhe_workers.execution import ENGINE_FAILURE
from fhe_workers.worker import TOPIC, Worker
from infra.kafka import Record
from schemas.avro_derivation import derive, tag_of
from schemas.codec import Codec, SchemaVersion
from schemas.envelope import SYSTEM, Envelope, to_headers
from schemas.fhe import EVENTS
from schemas.fhe.evaluation_key import EvaluationKeyDeleted
from schemas.fhe.job import JobCancelled, JobSubmitted

PARTITION = TopicPartition(TOPIC, 0)
CODEC = Codec(
    EVENTS,
    [SchemaVersion(id, tag_of(event), 1, derive(event)) for id, event in enumerate(EVENTS, 1)],
)


class Found(NamedTuple):
    """A record as aiokafka gives it."""

    offset: int
    key: bytes
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


class MemoryJobs:
    """A group member of one partition; `rebalance` takes it away and gives it back."""

    def __init__(self) -> None:
        self.log: list[Found] = []
        self.committed = 0
        self.refuse_commits = self.refuse_start = 0
        self.paused = 0
        self._position = 0
        self._listener: Any = None
        self._more = asyncio.Event()

    def add(self, event: Struct | bytes) -> int:
        """Append an event of job or key 1; returns its offset."""
        headers: Sequence[tuple[str, bytes]] = ()
        value = event if isinstance(event, bytes) else CODEC.encode(event)
        if isinstance(event, Struct):
            stream = "fhe.job/job_1"
            tag = tag_of(type(event))
            headers = to_headers(Envelope("evt_1", tag, "ten_1", stream, 1, 0, SYSTEM))
        self.log.append(Found(len(self.log), b"ek_1", value, tuple(headers)))
        self._more.set()
        return len(self.log) - 1

    async def start(self) -> None:
        if self.refuse_start:
            self.refuse_start -= 1
            raise KafkaConnectionError("no broker")

    async def stop(self) -> None: ...

    def subscribe(self, topics: list[str], listener: Any) -> None:
        self._listener = listener
        self._give = asyncio.ensure_future(listener.on_partitions_assigned([PARTITION]))

    async def rebalance(self) -> None:
        """Lose the partition and get it again; reading goes on from what was committed."""
        await self._listener.on_partitions_revoked([PARTITION])
        self._position = self.committed
        await self._listener.on_partitions_assigned([PARTITION])
        self._more.set()

    async def getmany(self, timeout_ms: int, max_records: int = 500) -> dict[Any, list[Found]]:
        await asyncio.sleep(0)
        found = self.log[self._position : self._position + max_records]
        if not found and timeout_ms:
            self._more.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._more.wait(), timeout_ms / 1000)
            found = self.log[self._position : self._position + max_records]
        if self.paused:
            return {}
        self._position += len(found)
        return {PARTITION: found} if found else {}

    def assignment(self) -> set[TopicPartition]:
        return {PARTITION}

    def pause(self, *_: TopicPartition) -> None:
        self.paused += 1

    def resume(self, *_: TopicPartition) -> None:
        self.paused -= 1

    async def commit(self, offsets: dict[TopicPartition, int]) -> None:
        if self.refuse_commits:
            self.refuse_commits -= 1
            raise CommitFailedError
        self.committed = offsets[PARTITION]

    async def end_offsets(self, partitions: Iterable[TopicPartition]) -> dict[Any, int]:
        return {partition: len(self.log) for partition in partitions}

    async def position(self, _: TopicPartition) -> int:
        return self._position


class SlowExecution:
    """Carries jobs out when told to; `outcomes` says how each ends."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.erased: list[str] = []
        self.outcomes: dict[str, str | Exception] = {}
        self._gates: dict[str, asyncio.Event] = {}
        self.changed = asyncio.Condition()
        self.long: set[str] = set()

    def is_long(self, job: JobSubmitted) -> bool:
        return job.job_id in self.long

    async def carry_out(self, envelope: Envelope, job: JobSubmitted) -> str:
        self.begun.append(job.job_id)
        await self._tell()
        await self._gate(job.job_id).wait()
        outcome = self.outcomes.get(job.job_id, "")
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def erase(self, objects: list[str]) -> None:
        self.erased += objects
        await self._tell()

    def finish(self, *job_ids: str) -> None:
        """Let these jobs end."""
        for job_id in job_ids:
            self._gate(job_id).set()

    def _gate(self, job_id: str) -> asyncio.Event:
        return self._gates.setdefault(job_id, asyncio.Event())

    async def _tell(self) -> None:
        async with self.changed:
            self.changed.notify_all()


class Letters:
    """The dead letters."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    async def append(self, topic: str, records: Sequence[Record]) -> None:
        assert topic == f"{TOPIC}.dlq"
        self.reasons += [dict(record.headers)["reason"].decode() for record in records]


class Rig:
    """A running worker."""

    def __init__(self, capacity: int = 2) -> None:
        self.jobs, self.execution, self.letters = MemoryJobs(), SlowExecution(), Letters()
        self.stop = asyncio.Event()
        execution: Any = self.execution
        self.worker = Worker(
            connect=lambda: self.jobs,
            execution=execution,
            codec=CODEC,
            dead_letters=self.letters,
            capacity=capacity,
        )

    async def until(self, condition: Any) -> None:
        """Wait until something about the execution holds."""
        async with asyncio.timeout(20), self.execution.changed:
            await self.execution.changed.wait_for(condition)

    async def until_committed(self, offset: int) -> None:
        async with asyncio.timeout(20):
            while self.jobs.committed < offset:  # noqa: ASYNC110  # a double tells nobody
                await asyncio.sleep(0.01)
        assert self.jobs.committed == offset


@contextlib.asynccontextmanager
async def working(rig: Rig) -> AsyncIterator[Rig]:
    ready = asyncio.Event()
    running = asyncio.create_task(rig.worker.run(rig.stop, ready.set))
    try:
        async with asyncio.timeout(20):
            await ready.wait()
        yield rig
    finally:
        rig.stop.set()
        await running


def job(job_id: str, key_id: str = "ek_1") -> JobSubmitted:
    return JobSubmitted(job_id, key_id, "ckks-n13", "add", [], [], [f"in/{job_id}"], 0, 2**50)


async def test_what_is_committed_has_ended_and_so_has_everything_before() -> None:
    async with working(Rig()) as rig:
        for name in ("a", "b", "c"):
            rig.jobs.add(job(name))
        await rig.until(lambda: rig.execution.begun == ["a", "b", "c"])
        rig.execution.finish("b", "c")
        rig.jobs.add(job("d"))
        await rig.until(lambda: "d" in rig.execution.begun)
        assert rig.jobs.committed == 0
        rig.execution.finish("a")
        await rig.until_committed(3)
        rig.execution.finish("d")
        await rig.until_committed(4)


async def test_it_takes_up_no_more_than_it_has_room_for_and_stays_a_member() -> None:
    rig = Rig(capacity=1)
    names = [f"job_{number}" for number in range(20)]
    for name in names:
        rig.jobs.add(job(name))
    async with working(rig):
        await rig.until(lambda: len(rig.execution.begun) == 8)
        assert await rig.worker.pending() == {}, "full is not stuck"
        for number in range(20):
            rig.execution.finish(names[number])
            await rig.until(lambda number=number: len(rig.execution.begun) >= min(20, number + 8))
        await rig.until_committed(20)
    assert rig.execution.begun == names


async def test_long_jobs_wait_for_each_other_and_hold_up_nobody() -> None:
    rig = Rig(capacity=1)
    long = [f"long_{number}" for number in range(20)]
    rig.execution.long = set(long)
    async with working(rig):
        for name in (*long, "short"):
            rig.jobs.add(job(name))
        await rig.until(lambda: "short" in rig.execution.begun)
        assert rig.execution.begun == [*long, "short"]
        rig.execution.finish("short", *long[1:])
        rig.jobs.add(job("next"))
        await rig.until(lambda: "next" in rig.execution.begun)
        # What comes before them has not ended, so a crash would have them done again.
        assert rig.jobs.committed == 0
        rig.execution.finish(long[0], "next")
        await rig.until_committed(22)


async def test_a_second_attempt_runs_beside_the_end_of_the_first() -> None:
    async with working(Rig()) as rig:
        rig.jobs.add(job("a"))
        await rig.until(lambda: rig.execution.begun == ["a"])
        rig.jobs.add(JobCancelled("a", "ek_1", 1))
        rig.jobs.add(msgspec.structs.replace(job("a"), attempt=2, own_objects=["in/again"]))
        await rig.until(lambda: rig.execution.begun == ["a", "a"])
        rig.execution.finish("a")
        await rig.until_committed(3)
        assert rig.execution.erased == ["in/a"]


async def test_a_job_that_comes_again_while_it_runs_is_not_run_twice() -> None:
    async with working(Rig()) as rig:
        rig.jobs.add(job("a"))
        await rig.until(lambda: rig.execution.begun == ["a"])
        await rig.jobs.rebalance()
        rig.jobs.add(job("b"))
        await rig.until(lambda: "b" in rig.execution.begun)
        rig.execution.finish("a", "b")
        await rig.until_committed(2)
        assert rig.execution.begun == ["a", "b"]


async def test_a_lost_partition_is_not_committed_for() -> None:
    async with working(Rig()) as rig:
        rig.jobs.add(job("a"))
        await rig.until(lambda: rig.execution.begun == ["a"])
        rig.worker.revoked([PARTITION])
        rig.execution.finish("a")
    assert rig.jobs.committed == 0


async def test_a_commit_that_fails_is_made_good_later() -> None:
    async with working(Rig()) as rig:
        rig.jobs.refuse_commits = 2
        rig.jobs.add(job("a"))
        rig.execution.finish("a")
        await rig.until_committed(1)


async def test_a_cancelled_job_stops_and_its_operands_go() -> None:
    async with working(Rig()) as rig:
        rig.jobs.add(job("a"))
        await rig.until(lambda: rig.execution.begun == ["a"])
        rig.jobs.add(JobCancelled("a", "ek_1", 1))
        rig.jobs.add(JobCancelled("unknown", "ek_1", 1))
        await rig.until(lambda: rig.execution.erased == ["in/a"])
        await rig.until_committed(3)


async def test_a_deleted_key_is_erased_behind_its_jobs() -> None:
    async with working(Rig()) as rig:
        rig.jobs.add(job("a"))
        rig.jobs.add(job("b", key_id="ek_2"))
        rig.jobs.add(EvaluationKeyDeleted("ek_1", ["key/1"], 1))
        await rig.until(lambda: len(rig.execution.begun) == 2)
        assert rig.execution.erased == []
        rig.execution.finish("a")
        # The other key's job still runs.
        await rig.until(lambda: rig.execution.erased == ["key/1"])
        rig.execution.finish("b")


async def test_poison_and_engine_failures_are_put_aside_and_the_rest_goes_on() -> None:
    async with working(Rig()) as rig:
        rig.jobs.add(b"\x00garbage")
        rig.jobs.add(b"")
        rig.execution.outcomes["a"] = ENGINE_FAILURE
        rig.jobs.add(job("a"))
        rig.execution.finish("a")
        await rig.until_committed(3)
    assert len(rig.letters.reasons) == 3
    assert rig.letters.reasons[-1] == f"a: {ENGINE_FAILURE}"


async def test_a_bug_costs_one_job_not_the_partition(caplog: pytest.LogCaptureFixture) -> None:
    async with working(Rig()) as rig:
        rig.execution.outcomes["a"] = RuntimeError("a bug")
        rig.jobs.add(job("a"))
        rig.jobs.add(job("b"))
        rig.execution.finish("a", "b")
        await rig.until_committed(2)
    assert "a bug" in caplog.text
    assert len(rig.letters.reasons) == 1


async def test_it_waits_for_a_broker_that_is_not_there_yet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fhe_workers.worker._RETRY_SECONDS", 0.01)
    rig = Rig()
    rig.jobs.refuse_start = 3
    async with working(rig):
        rig.jobs.add(job("a"))
        rig.execution.finish("a")
        await rig.until_committed(1)


async def test_the_watchdog_sees_records_that_nobody_fetches() -> None:
    async with working(Rig()) as rig:
        assert await rig.worker.pending() == {}
        rig.jobs.paused = 1
        rig.jobs.add(job("a"))
        assert await rig.worker.pending() == {PARTITION: 0}
        rig.jobs.paused = 0
        rig.execution.finish("a")
        await rig.until_committed(1)
        assert await rig.worker.pending() == {}


async def test_stopping_ends_what_can_end_and_leaves_the_rest_to_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fhe_workers.worker._STOP_SECONDS", 0.05)
    async with working(Rig()) as rig:
        rig.jobs.add(job("a"))
        rig.jobs.add(job("b"))
        await rig.until(lambda: len(rig.execution.begun) == 2)
        rig.execution.finish("a")
    # `b` never ended: it is not committed, and its operands are still there.
    assert rig.jobs.committed == 1
    assert rig.execution.erased == []
