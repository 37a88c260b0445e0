"""The exporter on real servers: killed at its worst moments, an export is one file and one end."""

import asyncio
import contextlib
import hashlib
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from commands.platform.audit_export import RequestAuditExport
from commands.tenancy.tenant import CreateTenant
from infra.config import Settings
from infra.ids import new_id
from infra.kafka import LogUnavailable
from infra.objects import Objects
from infra.postgres import Reads
from projections.platform.audit_exports import BY_ID
from schemas.platform.audit_export import (
    AuditExportCompleted,
    AuditExportFailed,
    AuditExportRequested,
)
from streams.audit_verification import verify_file
from streams.bus import CommandRequest
from streams.platform.audit_exports import AuditExporter
from streams.platform.trail_files import SUFFIXES
from streams.runtime import codec
from tests.faults.departed import end_sessions
from tests.loops import Loops, loops, read_topic


class World:
    """Running deciders, the read model, the store, and exporters on demand."""

    def __init__(self, running: Loops, reads: Reads, settings: Settings) -> None:
        self.running, self.reads, self.settings = running, reads, settings
        self.objects = Objects(settings.object_store_url)
        self.tenant = new_id("ten")

    async def decide(self, count: int) -> None:
        """Make the tenant's trail longer: one accepted, the others refused."""
        for number in range(count):
            await self.running.send(self.tenant, self.tenant, CreateTenant(f"Acme {number}"))

    async def request(self, command: RequestAuditExport) -> str:
        export_id = new_id("exp")
        reply = await self.running.send(self.tenant, export_id, command)
        assert reply.status == "accepted"
        return export_id

    def exporter(self, bus: Any = None) -> AuditExporter:
        return AuditExporter(
            bootstrap=self.settings.kafka_bootstrap_servers,
            codec=codec(),
            bus=bus or self.running.bus,
            reads=self.reads,
            objects=self.objects,
        )

    async def ended(self, export_id: str) -> dict[str, Any]:
        """The row of an export once it has ended."""
        async with asyncio.timeout(90):
            while True:
                row = await self.reads.one(BY_ID, self.tenant, export_id)
                if row is not None and row["status"] != "processing":
                    return row
                await asyncio.sleep(0.1)

    async def saved(self, row: dict[str, Any], folder: Path) -> Path:
        """The export's file, as it would be downloaded."""
        data = await self.objects.get(row["object"], size=row["size"], digest=row["sha256"])
        path = folder / f"trail{SUFFIXES[row['format']]}"
        path.write_bytes(data)
        return path


@pytest.fixture
async def world(settings: Settings) -> AsyncIterator[World]:
    async with loops(settings) as running:
        reads = Reads(settings.database_url)
        await reads.start()
        yield World(running, reads, settings)
        await reads.stop()


@contextlib.asynccontextmanager
async def at_work(exporter: AuditExporter) -> AsyncIterator[None]:
    task = asyncio.create_task(exporter.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_exports_of_every_format_prove_themselves(world: World, tmp_path: Path) -> None:
    await world.decide(4)
    async with at_work(world.exporter()):
        for number, format in enumerate(("json", "jsonl", "csv", "parquet"), 1):
            row = await world.ended(await world.request(RequestAuditExport(format)))
            # Each request is a decision itself, and so is the end of the export before.
            expected = 4 + 2 * number - 1
            assert (row["status"], row["records"]) == ("completed", expected)
            assert (row["first_seq"], row["last_seq"]) == (1, expected)
            path = await world.saved(row, tmp_path)
            (chain,) = verify_file(path).chains
            assert (chain.tenant, chain.records, chain.broken) == (world.tenant, expected, None)
            manifest = json.loads(
                await world.objects.get(
                    row["manifest"], size=row["manifest_size"], digest=row["manifest_sha256"]
                )
            )
            assert chain.head is not None
            assert manifest["head"] == f"{chain.head.seq}:{chain.head.hash}"
            assert manifest["chain_broken"] == ""
            assert manifest["content"]["records"] == expected
            assert manifest["content"]["files"][0]["sha256"] == row["sha256"]


async def test_a_range_of_instants_is_a_window_of_the_chain(world: World, tmp_path: Path) -> None:
    await world.decide(2)
    audit = [record for _, record in await read_topic(world.settings, "audit", world.tenant)]
    middle = audit[-1].at + 1
    await world.decide(3)
    async with at_work(world.exporter()):
        late = await world.ended(await world.request(RequestAuditExport("json", middle, None)))
        assert (late["first_seq"], late["last_seq"], late["records"]) == (3, 6, 4)
        path = await world.saved(late, tmp_path)
        assert verify_file(path, window=True).chains[0].broken is None
        early = await world.ended(await world.request(RequestAuditExport("json", None, middle)))
        assert (early["first_seq"], early["last_seq"]) == (1, 2)
        none = await world.ended(await world.request(RequestAuditExport("json", 0, 5)))
        assert (none["status"], none["records"], none["first_seq"]) == ("completed", 0, 0)


class Breaking:
    """A bus that fails a few times before it takes the command, as a lost broker would."""

    def __init__(self, running: Loops, failures: int) -> None:
        self._bus, self.failures = running.bus, failures

    async def send(self, request: CommandRequest, timeout: float = 5.0) -> Any:
        raise AssertionError("the exporter does not wait for answers")

    async def post(self, request: CommandRequest) -> None:
        if self.failures:
            self.failures -= 1
            raise LogUnavailable("lost")
        await self._bus.post(request)

    async def post_many(self, requests: Sequence[CommandRequest]) -> None:
        raise AssertionError("the exporter tells of one export at a time")


async def test_a_log_that_is_away_is_waited_for(world: World) -> None:
    await world.decide(2)
    bus = Breaking(world.running, failures=2)
    export_id = await world.request(RequestAuditExport("json"))
    async with at_work(world.exporter(bus)):
        row = await world.ended(export_id)
    assert (row["status"], bus.failures) == ("completed", 0)


async def test_a_trail_that_cannot_be_exported_fails_and_says_so(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(AuditExporter, "make", broken)
    export_id = await world.request(RequestAuditExport("json"))
    async with at_work(world.exporter()):
        row = await world.ended(export_id)
    assert (row["status"], row["reason"]) == ("failed", "the export failed 3 times: OSError")


EXPORTER_THAT_DIES = """
import asyncio, os, signal
from infra.config import load_settings
from infra.objects import Objects
from infra.postgres import Reads
from streams.bus import KafkaCommandBus
from streams.platform.audit_exports import AuditExporter
from streams.runtime import codec, command_bus
import sys

def die():
    os.kill(os.getpid(), signal.SIGKILL)

post, put = KafkaCommandBus.post, Objects.put

async def dying_post(self, request):
    if sys.argv[1] == "before the end is posted":
        die()
    await post(self, request)
    die()

async def dying_put(self, name, data):
    await put(self, name, data)
    if sys.argv[1] == "when the files are stored":
        die()

async def main():
    KafkaCommandBus.post, Objects.put = dying_post, dying_put
    settings = load_settings()
    bus, reads = command_bus(settings), Reads(settings.database_url)
    await bus.start()
    await reads.start()
    exporter = AuditExporter(
        bootstrap=settings.kafka_bootstrap_servers, codec=codec(), bus=bus, reads=reads,
        objects=Objects(settings.object_store_url),
    )
    await exporter.run()

asyncio.run(main())
"""
MOMENTS = ("when the files are stored", "before the end is posted", "after it was posted")


async def test_kills_cost_time_and_nothing_else(world: World, tmp_path: Path) -> None:
    await world.decide(3)
    export_id = await world.request(RequestAuditExport("json"))
    await world.decide(2)  # later than the request: not in the file
    environment = {**world.settings.to_env(), "PYTHONPATH": "."}
    for moment in MOMENTS:
        command = [sys.executable, "-c", EXPORTER_THAT_DIES, moment]
        done = await asyncio.to_thread(
            subprocess.run, command, env=environment, timeout=90, check=False
        )
        assert done.returncode == -signal.SIGKILL
        await end_sessions(world.settings)
    async with at_work(world.exporter()):
        row = await world.ended(export_id)
        # A second export behind it shows that the exporter has gone past the first.
        assert (await world.ended(await world.request(RequestAuditExport("json"))))["records"] > 0
    assert (row["status"], row["records"], row["last_seq"]) == ("completed", 4, 4)
    path = await world.saved(row, tmp_path)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == row["sha256"]
    assert verify_file(path).chains[0].broken is None
    stored = await world.objects.names(f"audit-exports/{world.tenant}")
    assert len([name for name in stored if export_id in name]) == 2  # the file and its manifest
    events = await read_topic(world.settings, "events", world.tenant)
    mine = [event for headers, event in events if headers["ce_subject"].endswith(export_id)]
    assert [type(event) for event in mine] == [AuditExportRequested, AuditExportCompleted]
    assert not any(isinstance(event, AuditExportFailed) for _, event in events)
