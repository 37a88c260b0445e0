"""The table of LLM calls made anew by replay, while the live one serves: `--only rebuild`.

N records of four calls lie on the log and in the table. Then the product's own rebuild reads the
log from its beginning, fills a table beside, compares the two and lets them change places, while
the analytics loop goes on, calls keep coming in, and somebody keeps asking what they add up to.
"""

import asyncio
import contextlib
import random
import statistics
import time
from collections.abc import AsyncIterator

from bench.analytics import ACTOR, TENANT, append, events, looping
from bench.figure import Figure
from bench.servers import servers
from infra.clickhouse import ClickHouse
from infra.config import Settings
from infra.ids import Signer, new_id
from infra.kafka import Log, create_topics
from infra.memory import tune_arrow, tune_collector
from projections.observability.llm_call_list import Selection
from projections.observability.llm_call_sums import aggregates
from projections.observability.llm_calls import LLM_CALLS
from schemas.envelope import Position
from schemas.observability.run import LlmCall, LlmCallsRecorded
from streams.rebuild_clickhouse import QUERY_SECONDS, ClickHouseRebuild
from streams.runtime import codec, person_keys
from streams.telemetry import Origin, Telemetry
from tests.api.harness import SECRET

RECORDS_PER_SECOND = 5_000
PAUSE_SECONDS = 0.05


class Reader:
    """Asks for the totals again and again. spent: seconds; seen: the calls of the last answer;
    went_back: by how many an answer was behind the one before, at most."""

    def __init__(self, clickhouse: ClickHouse) -> None:
        self._clickhouse = clickhouse
        self.spent: list[float] = []
        self.seen = 0
        self.went_back = 0

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            began = time.perf_counter()
            (row,) = await self._clickhouse.query(*aggregates(Selection(tenant=TENANT)))
            self.spent.append(time.perf_counter() - began)
            self.went_back = max(self.went_back, self.seen - row["calls"])
            self.seen = row["calls"]
            await asyncio.sleep(PAUSE_SECONDS)


class Writer:
    """Reports a run with a call again and again. reported: how many."""

    def __init__(self, log: Log) -> None:
        self._telemetry = Telemetry(log)
        self.reported = 0
        self.ends: dict[int, Position] = {}

    async def run(self) -> None:
        """Until cancelled."""
        signer = Signer(SECRET)
        while True:
            event = LlmCallsRecorded(
                calls=[LlmCall(id="call", model="m", tokens_in=1, tokens_out=1)]
            )
            origin = Origin(TENANT, ACTOR, new_id("cmd"))
            position = await self._telemetry.record(origin, signer.run_id(TENANT), [event])
            self.reported, self.ends[position.partition] = self.reported + 1, position
            await asyncio.sleep(PAUSE_SECONDS)


@contextlib.asynccontextmanager
async def going_on(*works: Reader | Writer) -> AsyncIterator[None]:
    """Let them work until the block ends."""
    tasks = [asyncio.create_task(work.run()) for work in works]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def run(settings: Settings, count: int) -> list[Figure]:
    """Measure with so many records. Raises RuntimeError where anything is lost or doubled."""
    tune_collector()
    tune_arrow()
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    await create_topics(settings.kafka_bootstrap_servers, settings.partitions)
    log = Log(settings.kafka_bootstrap_servers, "bench")
    clickhouse = ClickHouse(settings.clickhouse_url, query_seconds=QUERY_SECONDS)
    await log.start()
    await clickhouse.start()
    try:
        ends = await append(log, events(count, random.Random(seed)))
        reader, writer = Reader(clickhouse), Writer(log)
        async with looping(settings, clickhouse, LLM_CALLS, log):
            for position in ends:
                assert await clickhouse.reached(position, timeout=600)
            rebuild = ClickHouseRebuild(
                settings.kafka_bootstrap_servers,
                clickhouse,
                LLM_CALLS,
                codec(),
                lambda done, total, note: None,
                person_keys=person_keys(settings),
            )
            async with going_on(reader, writer):
                report = await rebuild.run()
            for position in writer.ends.values():
                assert await clickhouse.reached(position, timeout=60)
            (totals,) = await clickhouse.query(*aggregates(Selection(tenant=TENANT)))
        expected = 4 * count + writer.reported
        if not report.agree or totals["calls"] != expected:
            raise RuntimeError(f"{totals['calls']} calls instead of {expected}: {report}")
        return [
            Figure(
                name=f"rebuild of {report.rebuilt.rows:,} calls, live",
                bare="",
                ours=f"{report.events / report.seconds:,.0f} events/s,"
                f" {report.rebuilt.rows / report.seconds:,.0f} rows/s, compared and switched",
            ),
            Figure(
                name="totals asked for meanwhile",
                bare="",
                ours=f"p50 {statistics.median(reader.spent) * 1e3:.0f} ms,"
                f" worst of {len(reader.spent)} {max(reader.spent) * 1e3:.0f} ms,"
                f" at most {reader.went_back} calls not seen for a moment,"
                f" {writer.reported} reported",
            ),
        ]
    finally:
        await log.stop()
        await clickhouse.stop()


def figures(seconds: float) -> list[Figure]:
    """What this module measures, on servers of its own, with 5,000 records a second asked for."""
    with servers() as settings:
        found = asyncio.run(run(settings, int(seconds * RECORDS_PER_SECOND)))
    for figure in found:
        print(figure.line(), flush=True)
    return found
