"""The analytics loop against raw columnar inserts: `python -m bench.analytics [SECONDS]`.

N records of four LLM calls lie on the log. Ours: the loop, from the first record to the last row in
its table. Raw: the same rows, made beforehand, inserted in columnar blocks and nothing else. Both
into tables of the same definition in one engine, in turns. Then: how long after its acknowledgement
a call is visible in a query, the loop at rest otherwise. And what it takes to make columns of
records as single agents report them: an item each, of six kinds, a few at a time from each
partition; beside it, to decode the same records one by one.
"""

import asyncio
import contextlib
import random
import statistics
import sys
import time
from typing import Any, NamedTuple

from msgspec import Struct, structs

from bench.figure import Figure
from bench.servers import servers
from infra.clickhouse import ClickHouse
from infra.config import Settings
from infra.ids import Signer, new_id
from infra.kafka import Log, Record, create_topics
from infra.memory import tune_arrow, tune_collector
from infra.partitioning import partition_for
from projections import CLICKHOUSE_VIEWS
from projections.batches import Place, batch_of
from projections.clickhouse import ClickHouseView, tables_by_topic
from projections.observability.llm_calls import LLM_CALLS
from schemas.avro_derivation import tag_of
from schemas.envelope import Actor, Envelope, Position, to_headers
from schemas.observability.run import (
    LlmCall,
    LlmCallsRecorded,
    RunCompleted,
    RunStarted,
    Score,
    ScoresRecorded,
    Span,
    SpansRecorded,
)
from streams.analytics import AnalyticsLoop
from streams.batching import Pending, Router
from streams.runtime import codec, person_keys
from streams.sealing import Keyring
from streams.telemetry import Origin, Telemetry, item_id
from tests.api.harness import SECRET

ROUNDS = 3
# Sizes a round; the fastest machine takes about so long for either side.
RECORDS_PER_SECOND = 5_000
BLOCK = 20_000
WARM_UP_RECORDS = 500
PARTITIONS = 8
# Of each run a start, four calls, spans, a score and an end; taken and flushed as under some load.
MIXED_RUNS, MIXED_TAKEN, MIXED_FLUSHED = 500, 10, 400
TENANT = "ten_bench"
ACTOR = Actor("api_key", "key_1")
Event = tuple[LlmCallsRecorded, Envelope]


class Spent(NamedTuple):
    """Seconds on the clock, and of processors by this process, with the engine that is in it."""

    wall: float
    processor: float


class Written(NamedTuple):
    """A record as the loop gets it from its consumer."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]


class Watch:
    """Runs from when it is made."""

    def __init__(self) -> None:
        self._wall, self._processor = time.perf_counter(), time.process_time()

    def spent(self) -> Spent:
        """Until now."""
        return Spent(time.perf_counter() - self._wall, time.process_time() - self._processor)


def events(count: int, dice: random.Random) -> list[Event]:
    """Reports of four calls with 200-character previews over a vocabulary of 5,000 words."""
    signer, words = (
        Signer(SECRET),
        ["".join(dice.choices("etaoinshrdlu", k=6)) for _ in range(5000)],
    )
    made: list[Event] = []
    for index in range(count):
        if index % 4 == 0:
            run_id = signer.run_id(TENANT)
        request = new_id("cmd")
        calls = [
            LlmCall(
                id=item_id("call", request, n),
                model=dice.choice(("gpt-4o", "gpt-4o-mini", "claude-3-5-sonnet")),
                tokens_in=dice.randrange(2000),
                tokens_out=dice.randrange(500),
                cost=dice.randrange(10**6) / 10**6,
                task="answer_question",
                prompt_preview=" ".join(dice.choices(words, k=29)),
                response_preview=" ".join(dice.choices(words, k=29)),
            )
            for n in range(4)
        ]
        envelope = Envelope(
            id=new_id("evt"),
            type="observability.llm_calls_recorded.v1",
            tenant=TENANT,
            stream=f"observability.run/{run_id}",
            version=0,
            time=1_700_000_000_000_000 + index,
            actor=ACTOR,
        )
        made.append((LlmCallsRecorded(calls=calls), envelope))
    return made


async def append(log: Log, made: list[Event]) -> list[Position]:
    """Put the events on the log; the last position of each partition."""
    last: dict[int, Position] = {}
    for start in range(0, len(made), 1000):
        records = [
            Record(envelope.stream_id.encode(), codec().encode(event), to_headers(envelope))
            for event, envelope in made[start : start + 1000]
        ]
        for position in await log.append("telemetry", records, timeout=30):
            last[position.partition] = position
    return list(last.values())


def blocks(view: ClickHouseView, made: list[Event]) -> list[tuple[str, list[Any]]]:
    """The rows as columns, in blocks, each with its token."""
    found = []
    for start in range(0, len(made), BLOCK // 4):
        batch = batch_of(view)
        block = made[start : start + BLOCK // 4]
        places = [Place(0, offset) for offset in range(start, start + len(block))]
        batch.add([event for event, _ in block], [envelope for _, envelope in block], places)
        found.append((batch.token, list(batch.columns())))
    return found


async def raw(clickhouse: ClickHouse, view: ClickHouseView, made: list[Event]) -> Spent:
    """What it takes to insert the rows, made beforehand."""
    await clickhouse.command(view.ddl())
    ready = blocks(view, made)
    watch = Watch()
    for token, columns in ready:
        await clickhouse.insert(view.table, view.stored, view.types, columns, token=token)
    return watch.spent()


@contextlib.asynccontextmanager
async def looping(
    settings: Settings, clickhouse: ClickHouse, view: ClickHouseView, log: Log
) -> Any:
    """The loop on one view."""
    clickhouse.tables = tables_by_topic([view])
    loop = AnalyticsLoop(
        bootstrap=settings.kafka_bootstrap_servers,
        clickhouse=clickhouse,
        views=[view],
        codec=codec(),
        dead_letters=log,
        person_keys=person_keys(settings),
    )
    task = asyncio.create_task(loop.run())
    try:
        await loop.serving()
        yield loop
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def ours(
    settings: Settings, clickhouse: ClickHouse, view: ClickHouseView, log: Log, ends: list[Position]
) -> Spent:
    """What it takes from the first record to the last row."""
    async with looping(settings, clickhouse, view, log):
        watch = Watch()
        for position in ends:
            assert await clickhouse.reached(position, timeout=600)
        return watch.spent()


async def visibility(
    settings: Settings, clickhouse: ClickHouse, view: ClickHouseView, log: Log, ends: list[Position]
) -> list[float]:
    """Seconds from an acknowledgement until a query finds the call, once the loop has caught up."""
    telemetry, spent = Telemetry(log), []
    async with looping(settings, clickhouse, view, log):
        for position in ends:
            assert await clickhouse.reached(position, timeout=600)
        for number in range(20):
            request, run_id = new_id("cmd"), Signer(SECRET).run_id(TENANT)
            call = LlmCall(id=f"seen-{number}", model="m", tokens_in=1, tokens_out=1)
            event = LlmCallsRecorded(calls=[call])
            await telemetry.record(Origin(TENANT, ACTOR, request), run_id, [event])
            began = time.perf_counter()
            await found(clickhouse, view, call.id)
            spent.append(time.perf_counter() - began)
    return spent


async def found(clickhouse: ClickHouse, view: ClickHouseView, id: str) -> None:
    """Ask for a call until it is there."""
    sql = f"SELECT id FROM {view.table} WHERE tenant = {{t:String}} AND id = {{id:String}}"
    for _ in range(10_000):
        if await clickhouse.query(sql, {"t": TENANT, "id": id}):
            return
        await asyncio.sleep(0.01)


def mixed(dice: random.Random) -> list[Written]:
    """The records of runs that were reported side by side, in the order in which a loop that holds
    all partitions reads them."""
    signer, reported = Signer(SECRET), list[tuple[str, Struct]]()
    for _ in range(MIXED_RUNS):
        run_id = signer.run_id(TENANT)
        calls = [
            LlmCall(
                id=f"call-{n}", model="gpt-4o", tokens_in=9, tokens_out=9, prompt_preview="x" * 200
            )
            for n in range(4)
        ]
        events = (
            RunStarted(agent_name="a", workflow_name="default", workflow_id="w", started_at=1),
            *(LlmCallsRecorded(calls=[call]) for call in calls),
            SpansRecorded(spans=[Span(id="span", name="search", kind="tool")]),
            ScoresRecorded(scores=[Score(id="s", name="ok", data_type="numeric", numeric_value=1)]),
            RunCompleted(status="success", completed_at=2),
        )
        reported += [(run_id, event) for event in events]
    dice.shuffle(reported)
    records, ends = [], [0] * PARTITIONS
    for run_id, event in reported:
        stream = f"observability.run/{run_id}"
        partition = partition_for(stream, PARTITIONS)
        envelope = Envelope(new_id("evt"), tag_of(type(event)), TENANT, stream, 0, 1, ACTOR)
        records.append(
            Written(
                "telemetry",
                partition,
                ends[partition],
                0,
                stream.encode(),
                codec().encode(event),
                to_headers(envelope),
            )
        )
        ends[partition] += 1
    return records


def to_columns(records: list[Written], keyring: Keyring) -> float:
    """Seconds of processor time."""
    router = Router(CLICKHOUSE_VIEWS, codec(), {}, frozenset({"telemetry"}), keyring)
    began = time.process_time()
    for start in range(0, len(records), MIXED_FLUSHED):
        pending = Pending(CLICKHOUSE_VIEWS)
        for at in range(start, min(start + MIXED_FLUSHED, len(records)), MIXED_TAKEN):
            router.take(pending, records[at : at + MIXED_TAKEN])
        router.settle(pending)
        for batch in pending.batches.values():
            if len(batch):
                batch.columns()
    return time.process_time() - began


def decoded(records: list[Written]) -> float:
    """Seconds of processor time to decode them, and nothing else."""
    began = time.process_time()
    for record in records:
        codec().decode(record.value)
    return time.process_time() - began


def middle(rounds: list[Spent]) -> Spent:
    """The median of each."""
    return Spent(*(statistics.median(column) for column in zip(*rounds, strict=True)))


async def run(settings: Settings, count: int) -> list[Figure]:
    """Measure both sides in turn with so many records, then the visibility."""
    tune_collector()  # as every role does
    tune_arrow()  # as the loop does
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    await create_topics(settings.kafka_bootstrap_servers, settings.partitions)
    log = Log(settings.kafka_bootstrap_servers, "bench")
    clickhouse = ClickHouse(settings.clickhouse_url)
    await log.start()
    await clickhouse.start()
    try:
        made = events(count, random.Random(seed))
        ends = await append(log, made)
        rows = 4 * count
        warm = structs.replace(LLM_CALLS, name="warm")
        await raw(clickhouse, warm, made[:WARM_UP_RECORDS])
        spent: dict[str, list[Spent]] = {"raw": [], "ours": []}
        for turn in range(ROUNDS):
            view = structs.replace(LLM_CALLS, name="raw", version=turn)
            spent["raw"].append(await raw(clickhouse, view, made))
            await clickhouse.command(f"DROP TABLE {view.table}")
            view = structs.replace(LLM_CALLS, name="ours", version=turn)
            spent["ours"].append(await ours(settings, clickhouse, view, log, ends))
            await clickhouse.command(f"DROP TABLE {view.table}")
        bare, loop = middle(spent["raw"]), middle(spent["ours"])
        view = structs.replace(LLM_CALLS, name="seen")
        seen = sorted(await visibility(settings, clickhouse, view, log, ends))
        single = mixed(random.Random(seed))
        keyring = Keyring(person_keys(settings), codec())
        to_columns(single, keyring)
        alone, columns = (
            statistics.median(rounds) / len(single) * 1e6
            for rounds in zip(
                *((decoded(single), to_columns(single, keyring)) for _ in range(ROUNDS)),
                strict=True,
            )
        )
        return [
            Figure(
                name="analytics loop",
                bare=f"{rows / bare.wall:,.0f} rows/s",
                ours=f"{rows / loop.wall:,.0f} rows/s",
                ratio=bare.wall / loop.wall,
                at_least=0.7,
            ),
            Figure(
                name="analytics loop, processor time",
                bare=f"{bare.processor / rows * 1e6:.1f} us a row",
                ours=f"{loop.processor / rows * 1e6:.1f} us a row",
                ratio=bare.processor / loop.processor,
            ),
            Figure(
                name="posted call visible in a query",
                bare="1,000 ms (the promise)",
                ours=f"p50 {seen[len(seen) // 2] * 1e3:.0f} ms,"
                f" worst of {len(seen)} {seen[-1] * 1e3:.0f} ms",
                ratio=seen[-1],
                at_most=1.0,
            ),
            Figure(
                name="reports of an item each, from records to columns, processor time",
                bare=f"{alone:.1f} us to decode one",
                ours=f"{columns:.1f} us",
                ratio=alone / columns,
            ),
        ]
    finally:
        await log.stop()
        await clickhouse.stop()


def figures(seconds: float) -> list[Figure]:
    """What this module measures, on servers of its own; a round is 5,000 records a second."""
    with servers() as settings:
        found = asyncio.run(run(settings, int(seconds * RECORDS_PER_SECOND)))
    for figure in found:
        print(figure.line(), flush=True)
    return found


if __name__ == "__main__":
    figures(float(sys.argv[1]) if len(sys.argv) > 1 else 4.0)
