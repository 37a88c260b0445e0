"""Reports share a send while jobs end at about the same time, and never wait for nothing."""

import asyncio
from collections.abc import Sequence

import pytest

from commands.fhe.job_state import RecordJobFailure
from fhe_workers.reporting import Reporter
from infra.kafka import LogUnavailable
from schemas.envelope import SYSTEM
from streams.bus import CommandRequest


class Sends:
    """The command bus; every send is one list. Acknowledged while `acknowledging` is set."""

    def __init__(self) -> None:
        self.sends: list[list[str]] = []
        self.failing = False
        self.acknowledging = asyncio.Event()
        self.acknowledging.set()

    async def post_many(self, requests: Sequence[CommandRequest]) -> None:
        self.sends.append([request.command_id for request in requests])
        await self.acknowledging.wait()
        if self.failing:
            raise LogUnavailable("no broker")


def report(name: str) -> CommandRequest:
    return CommandRequest(
        tenant="ten_1",
        stream_id=name,
        command=RecordJobFailure("x", "y"),
        actor=SYSTEM,
        command_id=name,
    )


async def job(reporter: Reporter, name: str, ends: asyncio.Event) -> None:
    with reporter.expecting():
        await ends.wait()
        await reporter.post(report(name))


@pytest.fixture(autouse=True)
def no_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here a report goes because it should, not because it has waited long enough."""
    monkeypatch.setattr("fhe_workers.reporting._LINGER_SECONDS", 3600)


async def test_a_report_alone_goes_at_once() -> None:
    sends = Sends()
    reporter = Reporter(sends)
    with reporter.expecting():
        await reporter.post(report("a"))
    with reporter.expecting():
        await reporter.post(report("b"))
    assert sends.sends == [["a"], ["b"]]


async def test_reports_of_jobs_that_end_together_share_a_send() -> None:
    sends, ends = Sends(), asyncio.Event()
    reporter = Reporter(sends)
    running = [asyncio.create_task(job(reporter, name, ends)) for name in "abc"]
    await asyncio.sleep(0)
    ends.set()
    await asyncio.gather(*running)
    assert sends.sends == [["a", "b", "c"]]


async def test_nothing_is_reported_before_the_log_has_it() -> None:
    sends, ends = Sends(), asyncio.Event()
    sends.acknowledging.clear()
    ends.set()
    running = asyncio.create_task(job(Reporter(sends), "a", ends))
    while not sends.sends:  # noqa: ASYNC110  # it is told by nobody
        await asyncio.sleep(0)
    assert not running.done()
    sends.acknowledging.set()
    await running


async def test_a_job_that_ends_without_a_report_holds_nobody_up() -> None:
    sends, ends = Sends(), asyncio.Event()
    reporter = Reporter(sends)
    cancelled = asyncio.create_task(job(reporter, "a", asyncio.Event()))
    running = asyncio.create_task(job(reporter, "b", ends))
    ends.set()
    await asyncio.sleep(0.01)
    assert sends.sends == []
    cancelled.cancel()
    await running
    assert sends.sends == [["b"]]


async def test_the_report_of_a_cancelled_job_does_not_go() -> None:
    sends, ends = Sends(), asyncio.Event()
    reporter = Reporter(sends)
    ends.set()
    with reporter.expecting():
        cancelled = asyncio.create_task(job(reporter, "a", ends))
        kept = asyncio.create_task(job(reporter, "b", ends))
        await asyncio.sleep(0.01)
        cancelled.cancel()
    await kept
    assert sends.sends == [["b"]]


async def test_a_long_job_holds_a_report_up_for_moments_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fhe_workers.reporting._LINGER_SECONDS", 0.001)
    sends = Sends()
    reporter = Reporter(sends)
    with reporter.expecting(), reporter.expecting():
        await reporter.post(report("a"))
    assert sends.sends == [["a"]]


async def test_many_reports_do_not_wait_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fhe_workers.reporting._TOGETHER_MAX", 2)
    sends, ends = Sends(), asyncio.Event()
    ends.set()
    reporter = Reporter(sends)
    with reporter.expecting():
        await asyncio.gather(*(job(reporter, name, ends) for name in "ab"))
    assert sends.sends == [["a", "b"]]


async def test_a_log_that_is_away_is_told_to_each() -> None:
    sends, ends = Sends(), asyncio.Event()
    sends.failing = True
    ends.set()
    reporter = Reporter(sends)
    found = await asyncio.gather(
        *(job(reporter, name, ends) for name in "ab"), return_exceptions=True
    )
    assert [type(error) for error in found] == [LogUnavailable, LogUnavailable]
    sends.failing = False
    with reporter.expecting():
        await reporter.post(report("a"))
    assert sends.sends[-1] == ["a"]
