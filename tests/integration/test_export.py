"""tail, export and audit verify on a real broker, with transactions that commit and that don't."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from infra.clock import SYSTEM_CLOCK, iso
from infra.config import Settings
from infra.ids import new_id
from infra.kafka import Log, Record, create_topics
from infra.kafka_transactions import Transactions
from schemas.platform.audit_chain import Link
from streams.audit_verification import verify_file, verify_topic
from streams.export import (
    Manifest,
    Progress,
    Request,
    TargetBusy,
    TargetExists,
    export,
    read_manifest,
    summarize,
)
from streams.export_files import FORMATS, Format
from streams.replay import Bound, Filter, NoSuchTopic, TopicReader, parse_bound
from streams.runtime import codec as real_codec
from streams.tail import tail
from tests.streams.records import (
    START,
    FakeRecord,
    audit_chain,
    audit_log_record,
    headers_of,
    sample,
    sample_codec,
    sample_record,
)

CODEC = sample_codec()
SECOND = 1_000_000


class Place:
    """A topic of the test's own with two partitions, written in transactions."""

    def __init__(self, settings: Settings, topic: str) -> None:
        self.settings, self.topic = settings, topic
        self.bootstrap = settings.kafka_bootstrap_servers
        self._writer = Transactions(self.bootstrap, new_id("test"))

    async def start(self) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        await admin.create_topics([NewTopic(self.topic, 2, 1)])
        await admin.close()
        await self._writer.fence()

    async def stop(self) -> None:
        await self._writer.stop()

    async def commit(self, *records: FakeRecord) -> None:
        """Append in one transaction."""
        async with self._writer.txn() as txn:
            for record in records:
                await txn.send(self.topic, _record(record))

    async def abort(self, *records: FakeRecord) -> None:
        """Append in a transaction that is aborted."""
        with pytest.raises(RuntimeError):
            async with self._writer.txn() as txn:
                for record in records:
                    await txn.send(self.topic, _record(record))
                await txn.settle()
                raise RuntimeError
        await self._writer.fence()

    async def export(self, out: Path, **request: Any) -> tuple[Path, Manifest]:
        fields: dict[str, Any] = {"topic": self.topic, "format": "jsonl"}
        return await export(self.bootstrap, CODEC, Request(**(fields | request)), out)

    async def tailed(self, **options: Any) -> list[int]:
        """The numbers of the samples that tail gives until the end."""
        options = {"start": Bound(), "follow": False} | options
        async with aclosing(tail(self.bootstrap, self.topic, CODEC, **options)) as entries:
            return [_number(entry.envelope.id) async for entry in entries if entry.envelope]


def _record(record: FakeRecord) -> Record:
    return Record(record.key or b"", record.value, record.headers, record.partition)


def _number(event_id: str) -> int:
    return int(event_id.removeprefix("evt_"))


@pytest.fixture
async def place(settings: Settings) -> AsyncIterator[Place]:
    created = Place(settings, f"billing.{new_id('t')}")
    await created.start()
    yield created
    await created.stop()


async def _fill(place: Place) -> None:
    """Samples 0..9, evens in partition 0, odds in 1; aborted ones between; markers at the end."""
    for start in (0, 4, 8):
        numbers = range(start, min(start + 4, 10))
        await place.commit(*(sample_record(CODEC, n, partition=n % 2) for n in numbers))
        await place.abort(*(sample_record(CODEC, 100 + n, partition=n % 2) for n in numbers))


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_an_export_holds_what_was_committed_in_order(place: Place, tmp_path: Path) -> None:
    await _fill(place)
    path, manifest = await place.export(tmp_path / "out")
    rows = _rows(path)
    numbers = [_number(row["id"]) for row in rows]
    assert numbers == [0, 2, 4, 6, 8, 1, 3, 5, 7, 9]
    offsets = [int(row["position"].rpartition(":")[2]) for row in rows]
    assert offsets[:5] == sorted(offsets[:5]) and offsets[5:] == sorted(offsets[5:])
    assert manifest == read_manifest(tmp_path / "out" / "manifest.json")
    assert (manifest.records, manifest.undecodable) == (10, 0)
    assert manifest.types == {"billing.sample_taken.v1": 10}
    assert [item.records for item in manifest.partitions] == [5, 5]
    for part, span in (
        (manifest.partitions[0], offsets[:5]),
        (manifest.partitions[1], offsets[5:]),
    ):
        assert (part.begin, part.first, part.last) == (0, span[0], span[-1])
        assert part.end > span[-1] + 1  # markers and aborted records lie behind
    assert [item.subject for item in manifest.schemas] == ["billing.sample_taken.v1"]
    assert manifest.files == [summarize(path, path.name)]


@pytest.mark.parametrize("format", FORMATS)
async def test_the_same_range_gives_the_same_file(
    place: Place, tmp_path: Path, format: Format
) -> None:
    await _fill(place)
    _, first = await place.export(tmp_path / f"one.{format}", format=format)
    await place.commit(sample_record(CODEC, 50))
    ends = {part.partition: part.end for part in first.partitions}
    _, second = await place.export(
        tmp_path / f"two.{format}", format=format, end=Bound(offsets=ends)
    )
    assert first.files[0].sha256 == second.files[0].sha256
    assert second.records == 10


async def test_an_empty_topic_gives_an_empty_file(place: Place, tmp_path: Path) -> None:
    path, manifest = await place.export(tmp_path / "out")
    assert path.read_bytes() == b""
    assert manifest.records == 0
    assert [(item.begin, item.end, item.first) for item in manifest.partitions] == [
        (0, 0, None),
        (0, 0, None),
    ]


async def test_a_range_of_instants_is_exact(place: Place, tmp_path: Path) -> None:
    # Events whose own time is now: the broker's index of times narrows the range.
    now = SYSTEM_CLOCK.now()
    records = []
    for number in range(6):
        record = sample_record(CODEC, number, partition=number % 2)
        record.headers = [
            (name, iso(now + number * SECOND).encode() if name == "ce_time" else value)
            for name, value in record.headers
        ]
        records.append(record)
    await place.commit(*records)
    path, manifest = await place.export(
        tmp_path / "out",
        start=parse_bound(iso(now + 2 * SECOND), place.topic),
        end=parse_bound(iso(now + 5 * SECOND), place.topic),
        start_text="a",
        end_text="b",
    )
    assert sorted(_number(row["id"]) for row in _rows(path)) == [2, 3, 4]
    assert (manifest.from_, manifest.to) == ("a", "b")


async def test_an_instant_long_after_everything_gives_nothing(place: Place, tmp_path: Path) -> None:
    await _fill(place)
    _, manifest = await place.export(tmp_path / "out", start=Bound(instant=4_000_000_000 * SECOND))
    assert manifest.records == 0


async def test_a_range_of_offsets_and_positions(place: Place, tmp_path: Path) -> None:
    await _fill(place)
    path, _ = await place.export(tmp_path / "a", start=Bound(offset=1), end=Bound(offset=2))
    assert [_number(row["id"]) for row in _rows(path)] == [2, 3]
    start = parse_bound(f"{place.topic}:0:9999999", place.topic)
    path, _ = await place.export(tmp_path / "b", start=start)
    assert [_number(row["id"]) for row in _rows(path)] == [1, 3, 5, 7, 9]


async def test_filters(place: Place, tmp_path: Path) -> None:
    await _fill(place)
    other = sample_record(CODEC, 11, headers=headers_of(sample(11), 11, "ten_2"))
    await place.commit(other)
    path, manifest = await place.export(tmp_path / "a", filter=Filter(tenant="ten_2"))
    assert [row["tenant"] for row in _rows(path)] == ["ten_2"]
    assert manifest.filter.tenant == "ten_2"
    assert await place.tailed(wanted=Filter(stream="billing.sample/1")) == [4, 1, 7]
    assert await place.tailed(wanted=Filter(type="approvals.*")) == []


async def test_nothing_is_overwritten(place: Place, tmp_path: Path) -> None:
    path, _ = await place.export(tmp_path / "out")
    assert sorted(item.name for item in (tmp_path / "out").iterdir()) == sorted(
        [path.name, "manifest.json"]
    )
    with pytest.raises(TargetExists):
        await place.export(tmp_path / "out")
    path.unlink()
    with pytest.raises(TargetExists):
        await place.export(tmp_path / "out")  # its manifest is there still


async def test_two_exports_to_one_target_do_not_mix(place: Place, tmp_path: Path) -> None:
    await _fill(place)
    results = await asyncio.gather(
        *(place.export(tmp_path / "out") for _ in range(3)), return_exceptions=True
    )
    done = [item for item in results if isinstance(item, tuple)]
    assert len(done) == 1
    assert all(isinstance(item, tuple | TargetBusy | TargetExists) for item in results)
    assert done[0][1].files == [summarize(done[0][0], done[0][0].name)]


async def test_progress_ends_at_the_total(place: Place, tmp_path: Path) -> None:
    await _fill(place)
    seen: list[Progress] = []
    request = Request(topic=place.topic, format="jsonl")
    await export(place.bootstrap, CODEC, request, tmp_path / "out", seen.append)
    assert seen[-1].passed == seen[-1].total > 10
    assert seen[-1].records == 10
    assert [item.passed for item in seen] == sorted(item.passed for item in seen)


async def test_a_topic_that_is_not_there_is_named(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(NoSuchTopic, match="there is no topic 'nowhere'"):
        await export(
            settings.kafka_bootstrap_servers,
            CODEC,
            Request(topic="nowhere", format="jsonl"),
            tmp_path / "out",
        )
    assert not (tmp_path / "out" / "nowhere.jsonl").exists()
    assert list((tmp_path / "out").iterdir()) == []


async def test_the_log_may_grow_while_it_is_read(place: Place, tmp_path: Path) -> None:
    await _fill(place)
    async with TopicReader(place.bootstrap, place.topic) as reader:
        spans = await reader.spans()
        await place.commit(sample_record(CODEC, 60), sample_record(CODEC, 61, partition=1))
        found = [record async for batch in reader.read(spans) for record in batch]
    assert len(found) == 10


async def test_a_tail_gives_what_arrives(place: Place) -> None:
    await _fill(place)
    entries = tail(place.bootstrap, place.topic, CODEC, wanted=Filter(tenant="ten_1"), limit=2)
    async with aclosing(entries):
        first = asyncio.ensure_future(anext(entries))
        # It starts at the end of the log, so only what is written once it listens can come.
        number = 20
        while not first.done():
            await place.commit(sample_record(CODEC, number))
            await asyncio.wait([first], timeout=0.5)
            number += 1
        entry = await first
        assert entry.envelope is not None and _number(entry.envelope.id) >= 20
        await place.abort(sample_record(CODEC, 200))
        await place.commit(sample_record(CODEC, 30))
        second = await anext(entries)
        assert second.envelope is not None
        assert _number(second.envelope.id) in range(20, 31)
        with pytest.raises(StopAsyncIteration):
            await anext(entries)


async def test_a_tail_can_begin_in_the_past(place: Place) -> None:
    await _fill(place)
    assert sorted(await place.tailed()) == list(range(10))
    assert await place.tailed(start=Bound(offset=1), limit=3) == [2, 4, 6]
    since = await place.tailed(start=Bound(instant=START + 7 * SECOND))
    assert sorted(since) == [7, 8, 9]


async def test_the_chain_of_a_tenant_is_verified_from_the_topic_and_from_its_export(
    settings: Settings, tmp_path: Path
) -> None:
    codec = real_codec()  # the topic is the product's, and others read it
    good, bad = new_id("ten"), new_id("ten")
    log = Log(settings.kafka_bootstrap_servers, "test")
    await _audit_topic(settings)
    await log.start()
    kept: dict[str, Link] = {}
    for tenant in (good, bad):
        records = audit_chain(5, tenant)
        kept[tenant] = Link(5, records[4].hash)
        if tenant == bad:
            records[2] = msgspec.structs.replace(records[2], outcome="refused")
        await log.append(
            "audit", [_record(audit_log_record(codec, record, 0)) for record in records]
        )
    await log.stop()
    bootstrap = settings.kafka_bootstrap_servers
    (held,) = await verify_topic(bootstrap, codec, good, kept[good])
    assert (held.records, held.head, held.broken) == (5, kept[good], None)
    (broken,) = await verify_topic(bootstrap, codec, bad)
    assert broken.broken is not None
    assert (broken.records, broken.broken.seq, broken.broken.fault) == (2, 3, "edited")
    assert broken.broken.position.startswith("audit:0:")
    reports = {item.tenant: item for item in await verify_topic(bootstrap, codec)}
    assert reports[good].broken is None and reports[bad].broken is not None
    for format in FORMATS:
        request = Request(topic="audit", format=format, filter=Filter(tenant=bad))
        path, _ = await export(bootstrap, codec, request, tmp_path / f"bad.{format}")
        verdict = verify_file(path)
        assert verdict.manifest_problem == ""
        assert verdict.chains == [broken]


async def _audit_topic(settings: Settings) -> None:
    await create_topics(settings.kafka_bootstrap_servers, settings.partitions)


async def _run(*command: str) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end."""
    return await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, check=False
    )


DIE_HALFWAY = """
import asyncio, os, signal, sys
from pathlib import Path
from streams.export import Request, export
from tests.streams.records import sample_codec

bootstrap, topic, out = sys.argv[1:]
request = Request(topic=topic, format="jsonl")
work = export(
    bootstrap, sample_codec(), request, Path(out), lambda at: os.kill(os.getpid(), signal.SIGKILL)
)
asyncio.run(work)
"""


async def test_a_killed_export_leaves_no_file_and_runs_again(place: Place, tmp_path: Path) -> None:
    events = [sample_record(CODEC, number, partition=0) for number in range(2_000)]
    for _ in range(3):
        await place.commit(*events)
    out = tmp_path / "out.jsonl"
    partial = out.with_name(out.name + ".partial")
    arguments = [place.bootstrap, place.topic, str(out)]
    killed = await _run(sys.executable, "-c", DIE_HALFWAY, *arguments)
    assert killed.returncode == -signal.SIGKILL
    assert partial.exists() and not out.exists()
    command = [sys.executable, "-m", "infra.cli", "export", place.topic, "-o", str(out)]
    command += ["--kafka", place.bootstrap]
    again = await _run(*command)
    assert again.returncode == 0, again.stderr
    assert "6,000 records" in again.stdout
    assert not partial.exists()
    assert len(out.read_bytes().splitlines()) == 6_000
    twice = await _run(*command)
    assert twice.returncode == 1
    assert twice.stderr == f"weir: {out} exists and is not overwritten\n"


async def test_the_tail_command_prints_lines(place: Place) -> None:
    await _fill(place)
    command = [sys.executable, "-m", "infra.cli", "tail", place.topic, "--kafka", place.bootstrap]
    done = await _run(*command, "--no-follow", "--limit", "3", "--format", "json")
    assert (done.returncode, done.stderr) == (0, "")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [_number(row["id"]) for row in rows] == [0, 2, 4]
    pretty = await _run(*command, "--no-follow")
    assert len(pretty.stdout.splitlines()) == 10
    assert "billing.sample/2#3 by user:Ada" in pretty.stdout
