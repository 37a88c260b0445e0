"""Children may die; the parent, the other jobs and the answer do not."""

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import psutil
import pytest
import uvloop

from fhe_workers.child_process import InPlace, PoolLimits
from fhe_workers.keys import load_keys
from fhe_workers.messages import CIPHER, PLAIN, ChildLimits, Work
from fhe_workers.pool import EngineFailed, Pool, Result
from fhe_workers.refusals import JobRefused
from fhe_workers.region import OPERANDS_MAX
from schemas.fhe.parameters import CIPHERTEXT_BYTES_MAX, CKKS_N13
from tests.fhe_workers.clients import Client
from tests.fhe_workers.mutations import MUTATIONS

_BOTH = (CIPHER, CIPHER)
Outcome = asyncio.Task[Result]


@pytest.fixture
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    """The loop that the role runs on: loops watch processes in their own ways."""
    return uvloop.EventLoopPolicy()


def _work(operation: str = "multiply", kinds: tuple[str, ...] = _BOTH, name: str = "key-1") -> Work:
    needs_key = operation == "multiply" and PLAIN not in kinds
    return Work("job-1", operation, "ckks-n13", name, kinds, 20, needs_key)


class KeyStore:
    """Hands out the key and counts how often it was asked."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.asked = 0

    async def __call__(self) -> list[bytes]:
        self.asked += 1
        return [self._client.relin]


def _is_right(alice: Client, data: bytes) -> bool:
    return bool(np.abs(alice.decrypt(data)[:8] - 0.25).max() < 1e-6)


@pytest.fixture
def half(alice: Client) -> bytes:
    return alice.encrypt(np.full(8, 0.5))


async def test_a_key_is_fetched_once_and_then_hot(alice: Client, half: bytes) -> None:
    source = KeyStore(alice)
    async with Pool(PoolLimits(children=1)) as pool:
        first = await pool.run(_work(), [half, half], source)
        second = await pool.run(_work(), [half, half], source)
    assert _is_right(alice, first.data) and _is_right(alice, second.data)
    assert (first.computed.key_was_loaded, second.computed.key_was_loaded) == (False, True)
    assert source.asked == 1
    assert (first.computed.level, first.tries) == (1, 1)


async def test_jobs_go_to_the_child_that_has_their_key(alice: Client, half: bytes) -> None:
    source = KeyStore(alice)
    async with Pool(PoolLimits(children=2)) as pool:
        for _ in range(3):
            for name in ("key-1", "key-2"):
                await pool.run(_work(name=name), [half, half], source)
    assert source.asked == 2


async def test_what_needs_no_key_asks_for_none(alice: Client, half: bytes) -> None:
    source = KeyStore(alice)
    quarter = np.array([0.25] * 8, dtype="<f8").tobytes()
    async with Pool(PoolLimits(children=1)) as pool:
        result = await pool.run(_work("add", (CIPHER, PLAIN)), [half, quarter], source)
    assert np.abs(alice.decrypt(result.data)[:8] - 0.75).max() < 1e-6
    assert source.asked == 0


async def test_a_job_whose_child_is_killed_is_done_by_the_next(alice: Client, half: bytes) -> None:
    async with Pool(PoolLimits(children=1)) as pool:
        killed: list[int] = []

        async def kill_then_answer() -> list[bytes]:
            if not killed:
                killed.extend(pool.pids)
                os.kill(killed[0], signal.SIGKILL)
            return [alice.relin]

        result = await pool.run(_work(), [half, half], kill_then_answer)
        assert _is_right(alice, result.data)
        assert result.tries == 2
        assert killed and killed != pool.pids


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGSEGV])
async def test_a_job_that_kills_two_children_fails_and_the_pool_lives_on(
    alice: Client, half: bytes, sent: signal.Signals
) -> None:
    async with Pool(PoolLimits(children=1)) as pool:

        async def kill_again() -> list[bytes]:
            os.kill(pool.pids[0], sent)
            return [alice.relin]

        with pytest.raises(EngineFailed, match=sent.name):
            await pool.run(_work(), [half, half], kill_again)
        result = await pool.run(_work(), [half, half], KeyStore(alice))
        assert _is_right(alice, result.data)


async def test_a_child_killed_while_it_computes(alice: Client, half: bytes) -> None:
    source = KeyStore(alice)
    async with Pool(PoolLimits(children=1)) as pool:
        await pool.run(_work(), [half, half], source)
        # Stopped, it has the job and cannot answer: the kill is certain to be in the middle.
        [pid] = pool.pids
        os.kill(pid, signal.SIGSTOP)
        running = asyncio.create_task(pool.run(_work(), [half, half], source))
        await asyncio.sleep(0)
        os.kill(pid, signal.SIGKILL)
        result = await running
        assert _is_right(alice, result.data) and result.tries == 2


async def test_jobs_beside_a_dying_one_are_undisturbed(alice: Client, half: bytes) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    source = KeyStore(alice)
    async with Pool(PoolLimits(children=2)) as pool:

        async def one(number: int) -> str:
            async def perhaps_kill() -> list[bytes]:
                if rng.random() < 0.4:
                    os.kill(rng.choice(pool.pids), signal.SIGKILL)
                return await source()

            try:
                work = _work(name=f"key-{number}")
                result = await pool.run(work, [half, half], perhaps_kill)
            except EngineFailed:
                return "failed"
            return "right" if _is_right(alice, result.data) else "wrong"

        outcomes = await asyncio.gather(*(one(number) for number in range(12)))
        assert set(outcomes) <= {"right", "failed"} and "right" in outcomes
        assert _is_right(alice, (await pool.run(_work(), [half, half], source)).data)


async def test_a_job_over_its_memory_fails_and_the_parent_lives(alice: Client, half: bytes) -> None:
    # Enough to start and to load the engine, too little for a key and its context.
    for megabytes in (100, 150, 200, 250, 300):
        limits = PoolLimits(children=1, child=ChildLimits(address_space_bytes=megabytes * 1024**2))
        async with Pool(limits) as pool:
            try:
                result = await pool.run(_work(), [half, half], KeyStore(alice))
            except EngineFailed:
                continue
            assert _is_right(alice, result.data)


async def test_a_job_over_its_wall_time_is_killed_not_waited_for(
    alice: Client, half: bytes
) -> None:
    async with Pool(PoolLimits(children=1, wall_seconds_max=0.001)) as pool:
        with pytest.raises(EngineFailed, match="took too long"):
            await pool.run(_work(), [half, half], KeyStore(alice))


def test_the_kernel_ends_a_job_over_its_processor_time() -> None:
    spin = "from fhe_workers.child import _limit_cpu\n_limit_cpu(0)\nwhile True: pass\n"
    ended = subprocess.run([sys.executable, "-c", spin], check=False, timeout=60)
    assert ended.returncode == -signal.SIGXCPU


async def test_a_cancelled_job_frees_its_child(alice: Client, half: bytes) -> None:
    async with Pool(PoolLimits(children=1)) as pool:
        asked = asyncio.Event()

        async def never() -> list[bytes]:
            asked.set()
            await asyncio.Event().wait()
            return []

        running = asyncio.create_task(pool.run(_work(), [half, half], never))
        await asked.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        result = await pool.run(_work(), [half, half], KeyStore(alice))
        assert _is_right(alice, result.data)


async def test_a_key_that_cannot_be_fetched_is_no_death(alice: Client, half: bytes) -> None:
    async with Pool(PoolLimits(children=1)) as pool:

        async def unreachable() -> list[bytes]:
            raise ConnectionError("the object store is gone")

        with pytest.raises(ConnectionError):
            await pool.run(_work(), [half, half], unreachable)
        result = await pool.run(_work(), [half, half], KeyStore(alice))
        assert result.tries == 1


async def test_operands_are_written_in_place(alice: Client, half: bytes) -> None:
    async def write(places: Sequence[memoryview]) -> None:
        for place in places:
            place[:] = half

    async with Pool(PoolLimits(children=1)) as pool:
        operands = InPlace((len(half), len(half)), write)
        result = await pool.run(_work(), operands, KeyStore(alice))
    assert _is_right(alice, result.data)


async def test_operands_that_cannot_be_written_cost_no_child(alice: Client, half: bytes) -> None:
    async with Pool(PoolLimits(children=1)) as pool:

        async def unreachable(_: Sequence[memoryview]) -> None:
            raise ConnectionError("the object store is gone")

        before = pool.pids
        with pytest.raises(ConnectionError):
            await pool.run(_work(), InPlace((8, 8), unreachable), KeyStore(alice))
        for lengths in ((CIPHERTEXT_BYTES_MAX + 1, 8), (8,) * (OPERANDS_MAX + 1)):
            with pytest.raises(JobRefused):
                await pool.run(_work(), InPlace(lengths, unreachable), KeyStore(alice))
        result = await pool.run(_work(), [half, half], KeyStore(alice))
        assert (result.tries, pool.pids) == (1, before)


class Held:
    """A key that comes when it is let go."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.asked, self.let_go = asyncio.Event(), asyncio.Event()

    async def __call__(self) -> list[bytes]:
        self.asked.set()
        await self.let_go.wait()
        return [self._client.relin]


class Written:
    """Operands that tell when they are put into place."""

    def __init__(self, *data: bytes) -> None:
        self._data, self.there = data, asyncio.Event()

    async def _write(self, places: Sequence[memoryview]) -> None:
        for place, data in zip(places, self._data, strict=True):
            place[:] = data
        self.there.set()

    @property
    def in_place(self) -> InPlace:
        return InPlace(tuple(len(data) for data in self._data), self._write)


async def test_the_next_job_s_operands_are_there_before_the_first_has_ended(
    alice: Client, half: bytes
) -> None:
    quarter = alice.encrypt(np.full(8, 0.25))
    async with Pool(PoolLimits(children=1)) as pool:
        held, ahead = Held(alice), Written(quarter, half)
        first = asyncio.create_task(pool.run(_work(), [half, half], held))
        await held.asked.wait()
        second = asyncio.create_task(pool.run(_work(), ahead.in_place, held))
        await ahead.there.wait()
        assert not first.done()
        held.let_go.set()
        assert _is_right(alice, (await first).data)
        result = await second
        assert np.abs(alice.decrypt(result.data)[:8] - 0.125).max() < 1e-6
        assert result.tries == 1


async def test_a_death_does_not_count_for_the_job_that_waits_behind(
    alice: Client, half: bytes
) -> None:
    async with Pool(PoolLimits(children=1)) as pool:
        held, ahead = Held(alice), Written(half, half)
        first = asyncio.create_task(pool.run(_work(), [half, half], held))
        await held.asked.wait()
        second = asyncio.create_task(pool.run(_work(), ahead.in_place, held))
        await ahead.there.wait()
        os.kill(pool.pids[0], signal.SIGKILL)
        held.let_go.set()
        results = [await first, await second]
        assert [result.tries for result in results] == [2, 1]
        assert all(_is_right(alice, result.data) for result in results)


async def test_a_job_that_waits_goes_to_whoever_is_free_first(alice: Client, half: bytes) -> None:
    async with Pool(PoolLimits(children=2)) as pool:
        long, short, ahead = Held(alice), Held(alice), Written(half, half)
        first = asyncio.create_task(pool.run(_work(name="key-1"), [half, half], long))
        await long.asked.wait()
        second = asyncio.create_task(pool.run(_work(name="key-2"), [half, half], short))
        await short.asked.wait()
        third = asyncio.create_task(pool.run(_work(name="key-2"), ahead.in_place, short))
        await ahead.there.wait()
        short.let_go.set()
        assert _is_right(alice, (await second).data)
        assert _is_right(alice, (await third).data)
        assert not first.done()
        long.let_go.set()
        assert _is_right(alice, (await first).data)


async def test_a_job_that_waits_can_be_cancelled_or_fail(alice: Client, half: bytes) -> None:
    async def unreachable(_: Sequence[memoryview]) -> None:
        raise ConnectionError("the object store is gone")

    async with Pool(PoolLimits(children=1)) as pool:
        held, ahead = Held(alice), Written(half, half)
        before = pool.pids
        first = asyncio.create_task(pool.run(_work(), [half, half], held))
        await held.asked.wait()
        second = asyncio.create_task(pool.run(_work(), ahead.in_place, held))
        await ahead.there.wait()
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        with pytest.raises(ConnectionError):
            await pool.run(_work(), InPlace((8, 8), unreachable), held)
        with pytest.raises(JobRefused):
            await pool.run(_work(), InPlace((8,) * (OPERANDS_MAX + 1), unreachable), held)
        last = Written(half, half)
        third = asyncio.create_task(pool.run(_work(), last.in_place, held))
        await last.there.wait()
        assert not first.done()
        held.let_go.set()
        assert _is_right(alice, (await first).data)
        assert _is_right(alice, (await third).data)
        assert pool.pids == before


class Standing:
    """One child that has its keys and stands still, at `first`, with `second` sent ahead to it."""

    def __init__(self, pool: Pool, source: KeyStore) -> None:
        self.pool, self.source = pool, source
        [self.pid] = pool.pids

    async def __call__(self, first: Work, second: Work, half: bytes) -> tuple[Outcome, Outcome]:
        os.kill(self.pid, signal.SIGSTOP)
        tasks = []
        for work in (first, second):
            operands = Written(half, half)
            tasks.append(asyncio.create_task(self.pool.run(work, operands.in_place, self.source)))
            await operands.there.wait()
        for _ in range(10):
            await asyncio.sleep(0)
        return tasks[0], tasks[1]


async def test_a_death_does_not_count_for_the_job_that_was_sent_ahead(
    alice: Client, half: bytes
) -> None:
    source = KeyStore(alice)
    async with Pool(PoolLimits(children=1)) as pool:
        await pool.run(_work(), [half, half], source)
        stand = Standing(pool, source)
        tasks = await stand(_work(), _work(), half)
        os.kill(stand.pid, signal.SIGKILL)
        results = await asyncio.gather(*tasks)
        assert [result.tries for result in results] == [2, 1]
        assert all(_is_right(alice, result.data) for result in results)


async def test_a_job_that_was_sent_ahead_can_be_cancelled(alice: Client, half: bytes) -> None:
    source, quarter = KeyStore(alice), alice.encrypt(np.full(8, 0.25))
    async with Pool(PoolLimits(children=1)) as pool:
        await pool.run(_work(), [half, half], source)
        stand = Standing(pool, source)
        first, second = await stand(_work(), _work(), quarter)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        third = asyncio.create_task(pool.run(_work(), [half, half], source))
        os.kill(stand.pid, signal.SIGCONT)
        assert np.abs(alice.decrypt((await first).data)[:8] - 0.0625).max() < 1e-6
        result = await third
        assert _is_right(alice, result.data) and result.tries == 1
        # It was at the cancelled job, whose answer nobody would have read.
        assert pool.pids != [stand.pid]


async def test_a_job_sent_ahead_is_not_taken_for_the_key_that_was_asked_for(
    alice: Client, half: bytes
) -> None:
    source = KeyStore(alice)
    one_key = ChildLimits(cache_bytes=1)
    async with Pool(PoolLimits(children=1, child=one_key)) as pool:
        for name in ("key-1", "key-2"):
            await pool.run(_work(name=name), [half, half], source)
        stand = Standing(pool, source)
        tasks = await stand(_work(name="key-2"), _work(name="key-1"), half)
        others = [
            asyncio.create_task(pool.run(_work(name=f"key-{n}"), [half, half], source))
            for n in (2, 1, 2)
        ]
        os.kill(stand.pid, signal.SIGCONT)
        results = await asyncio.gather(*tasks, *others)
        assert all(_is_right(alice, result.data) for result in results)
        assert {result.tries for result in results} == {1}
        assert pool.pids == [stand.pid]


async def test_no_job_gets_another_s_operands_or_result(alice: Client, half: bytes) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    source = KeyStore(alice)
    numbers = [rng.uniform(-1, 1) for _ in range(60)]
    operands = [alice.encrypt(np.full(8, number)) for number in numbers]
    async with Pool(PoolLimits(children=2)) as pool:

        async def one(index: int) -> str:
            async def disturb() -> list[bytes]:
                if rng.random() < 0.5:
                    os.kill(rng.choice(pool.pids), signal.SIGKILL)
                return await source()

            key = f"key-{index % 7}" if rng.random() < 0.3 else "key-0"
            given = Written(operands[index], half)
            work = Work(f"job-{index}", "multiply", "ckks-n13", key, _BOTH, 20, needs_key=True)
            try:
                result = await pool.run(work, given.in_place, disturb)
            except EngineFailed:
                return "failed"
            found = alice.decrypt(result.data)[:8]
            return "right" if np.abs(found - numbers[index] / 2).max() < 1e-6 else "wrong"

        tasks = [asyncio.create_task(one(index)) for index in range(len(numbers))]
        for task in rng.sample(tasks, 10):
            await asyncio.wait(tasks, timeout=0.05)
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        told = {outcome for outcome in outcomes if isinstance(outcome, str)}
        assert told <= {"right", "failed"} and "right" in told
        assert all(isinstance(outcome, str | asyncio.CancelledError) for outcome in outcomes), (
            outcomes
        )
        # Nothing stays behind that would hold a child up.
        left = [pool.run(_work(), [half, half], source) for _ in range(6)]
        assert all(_is_right(alice, result.data) for result in await asyncio.gather(*left))


async def test_a_worn_out_child_is_replaced(alice: Client, half: bytes) -> None:
    source = KeyStore(alice)
    async with Pool(PoolLimits(children=1, jobs_per_child_max=2)) as pool:
        used = set()
        for _ in range(5):
            used.update(pool.pids)
            await pool.run(_work(), [half, half], source)
        used.update(pool.pids)
    assert len(used) >= 2 and source.asked == 3


async def test_a_child_that_has_grown_is_replaced(alice: Client, half: bytes) -> None:
    """The engine gives no memory back: a new process does, and fetches its keys anew."""
    source = KeyStore(alice)
    async with Pool(PoolLimits(children=1, resident_bytes_max=1)) as pool:
        first = pool.pids
        await pool.run(_work(), [half, half], source)
        again = await pool.run(_work(), [half, half], source)
        assert pool.pids != first
    assert source.asked == 2 and _is_right(alice, again.data)


async def test_hostile_bytes_never_cost_a_child(alice: Client, half: bytes) -> None:
    """Nor memory beyond its cache, which is full after a few keys here."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    room = ChildLimits(cache_bytes=4 * load_keys(CKKS_N13, [alice.relin]).resident_bytes)
    early = 0
    async with Pool(PoolLimits(children=1, child=room)) as pool:
        before = pool.pids
        child = psutil.Process(before[0])
        for number in range(300):
            mutate = MUTATIONS[number % len(MUTATIONS)]
            early = child.memory_info().rss if number == 150 else early
            key, operand = alice.relin, half
            if number % 3:
                operand = mutate(half, rng)
            else:
                key = mutate(alice.relin, rng)

            async def source(parts: bytes = key) -> list[bytes]:
                return [parts]

            try:
                await pool.run(_work(name=f"key-{number % 3 or number}"), [half, operand], source)
            except JobRefused as error:
                assert error.reason in {"ciphertext_invalid", "key_invalid"}
        assert pool.pids == before
        # Twice a context at most, for one that is being made; measured, nothing.
        assert child.memory_info().rss - early < 40 * 1024**2


async def test_a_child_has_no_credentials(
    alice: Client, half: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://secret")
    async with Pool(PoolLimits(children=1)) as pool:
        [pid] = pool.pids
        with open(f"/proc/{pid}/environ", "rb") as environ:  # noqa: ASYNC230, PTH123
            assert b"DATABASE_URL" not in environ.read()


async def test_no_child_outlives_its_pool() -> None:
    async with Pool(PoolLimits(children=2)) as pool:
        pids = pool.pids
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
