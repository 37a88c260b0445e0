"""A job ends in one report, whatever goes wrong on the way."""

from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from commands.fhe.job_state import RecordJobFailure, RecordJobResult
from fhe_workers.bootstrapping import Bootstrapper
from fhe_workers.child_process import PoolLimits
from fhe_workers.execution import ENGINE_FAILURE, INTERNAL_ERROR, Execution
from fhe_workers.pool import EngineFailed, Pool, Result
from fhe_workers.refusals import JobRefused
from infra.clock import ManualClock
from infra.kafka import LogUnavailable
from infra.objects import Objects, ObjectsUnavailable
from schemas.envelope import SYSTEM, Envelope
from schemas.fhe.evaluation_key import StoredPart
from schemas.fhe.job import JobSubmitted, Operand
from streams.bus import CommandRequest
from tests.fhe_workers.clients import Client

ENVELOPE = Envelope("evt_1", "x", "ten_1", "fhe.job/job_1", 1, 0, SYSTEM, correlation_id="req_1")


class Reports:
    """The command bus; the first `failures` posts find no broker."""

    def __init__(self, failures: int = 0) -> None:
        self.requests: list[CommandRequest] = []
        self.failures = failures

    async def post_many(self, requests: Sequence[CommandRequest]) -> None:
        if self.failures:
            self.failures -= 1
            raise LogUnavailable("no broker")
        self.requests += requests


class BrokenPool(Pool):
    """A pool whose every job ends in `error`."""

    def __init__(self, error: Exception) -> None:
        super().__init__(PoolLimits(children=1))
        self._error = error

    async def run(
        self,
        work: Any,
        operands: Sequence[Any],
        key_source: Callable[[], Awaitable[list[bytes]]],
        progress: Callable[[int, int], None],
    ) -> Result:
        raise self._error


class Rig:
    """A job over a real store; `job` multiplies 0.5 by itself."""

    def __init__(self, alice: Client, objects: Objects) -> None:
        self.objects, self.clock, self.reports = objects, ManualClock(), Reports()
        self.alice = alice

    async def job(self) -> JobSubmitted:
        data, key = self.alice.encrypt(np.full(8, 0.5)), self.alice.relin
        operands = [Operand("cipher", "in/a", _digest(data), len(data), 0, 2.0**40)] * 2
        await self.objects.put("in/a", data)
        await self.objects.put("key/relin", key)
        part = StoredPart("relin", "key/relin", _digest(key), len(key))
        return JobSubmitted(
            "job_1", "ek_1", "ckks-n13", "multiply", operands, [part], ["in/a"], 0, 2**57
        )

    def execution(self, pool: Pool) -> Execution:
        return Execution(
            pool=pool,
            objects=self.objects,
            reports=self.reports,
            clock=self.clock,
            bootstrapper=Bootstrapper(None),
        )

    @property
    def report(self) -> Any:
        [request] = self.reports.requests
        assert (request.tenant, request.stream_id) == ("ten_1", "job_1")
        assert request.correlation_id == "req_1"
        return request.command


def _digest(data: bytes) -> str:
    return sha256(data).hexdigest()


@pytest.fixture(params=["afar", "in place"])
def rig(request: pytest.FixtureRequest, alice: Client, tmp_path: Path) -> Rig:
    """With a store that operands are fetched from, and one that they are read from in place."""
    if request.param == "afar":
        return Rig(alice, Objects("memory:///"))
    return Rig(alice, Objects(tmp_path.as_uri(), in_place=True))


async def test_a_result_is_stored_reported_and_its_inputs_are_gone(rig: Rig) -> None:
    async with Pool(PoolLimits(children=1)) as pool:
        assert await rig.execution(pool).carry_out(ENVELOPE, await rig.job()) == ""
    report = rig.report
    assert isinstance(report, RecordJobResult)
    result = report.result
    data = await rig.objects.get(result.object, size=result.size_bytes, digest=result.sha256)
    assert np.abs(rig.alice.decrypt(data)[:8] - 0.25).max() < 1e-6
    assert (result.kind, result.level, report.tries) == ("cipher", 1, 1)
    assert not await rig.objects.exists("in/a")
    assert await rig.objects.exists("key/relin")


async def test_a_job_done_twice_reports_under_one_command_id(rig: Rig) -> None:
    job = await rig.job()
    async with Pool(PoolLimits(children=1)) as pool:
        await rig.execution(pool).carry_out(ENVELOPE, job)
        # Its inputs are gone now, so the repeat can only fail: the decider knows better.
        assert await rig.execution(pool).carry_out(ENVELOPE, job) == "input_missing"
    first, second = rig.reports.requests
    assert first.command_id == second.command_id
    assert first.fingerprint == second.fingerprint != ""


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (EngineFailed("the engine died twice"), ENGINE_FAILURE),
        (JobRefused("transparent_result", "it would not hide its value"), "transparent_result"),
        (RuntimeError("a bug"), INTERNAL_ERROR),
    ],
)
async def test_what_ends_without_a_result_is_reported_with_its_reason(
    rig: Rig, error: Exception, reason: str
) -> None:
    failure = await rig.execution(BrokenPool(error)).carry_out(ENVELOPE, await rig.job())
    assert failure == reason
    assert isinstance(rig.report, RecordJobFailure)
    assert rig.report.reason == reason
    assert "a bug" not in rig.report.message


async def test_altered_bytes_are_not_computed_with(rig: Rig) -> None:
    job = await rig.job()
    async with Pool(PoolLimits(children=1)) as pool:
        await rig.objects.put("in/a", b"something else")
        assert await rig.execution(pool).carry_out(ENVELOPE, job) == "input_corrupt"
        job = await rig.job()
        await rig.objects.put("key/relin", rig.alice.relin[:-1] + b"!")
        assert await rig.execution(pool).carry_out(ENVELOPE, job) == "input_corrupt"
        job = await rig.job()
        beyond = rig.alice.encrypt(np.ones(8))[:113] + b"\xff" * (job.operands[0].size_bytes - 113)
        await rig.objects.put("in/a", beyond)
        assert await rig.execution(pool).carry_out(ENVELOPE, job) == "ciphertext_invalid"


async def test_a_log_and_a_store_that_come_back_cost_time_only(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fhe_workers.execution._FIRST_PAUSE_SECONDS", 0.001)
    job, away = await rig.job(), 2
    rig.reports.failures = 2
    read = "fill" if rig.objects.in_place else "view"
    answer = getattr(rig.objects, read)

    async def sometimes(*asked: Any, **size: int) -> Any:
        nonlocal away
        if away:
            away -= 1
            raise ObjectsUnavailable("no answer")
        return await answer(*asked, **size)

    monkeypatch.setattr(rig.objects, read, sometimes)
    async with Pool(PoolLimits(children=1)) as pool:
        assert await rig.execution(pool).carry_out(ENVELOPE, job) == ""
    assert isinstance(rig.report, RecordJobResult)


async def test_a_job_past_its_deadline_is_left_to_its_timer(rig: Rig) -> None:
    job = await rig.job()
    rig.clock = ManualClock(job.deadline)
    pool = BrokenPool(RuntimeError("not to be run"))
    assert await rig.execution(pool).carry_out(ENVELOPE, job) == "deadline_exceeded"
    assert rig.reports.requests == []
