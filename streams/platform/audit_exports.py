"""The exporter: makes the files that `RequestAuditExport` asks for.

It reads `events` in a consumer group of its own. For each request, in this order: the tenant's part
of `audit` is replayed into a temporary file; the file and its manifest go to the object store; the
export is completed by a command; the request's offset is committed. A crash anywhere repeats the
whole: the file is the same one (nothing later than the request is in it), its name holds its hash,
and an export completes once. So killing it costs time and nothing else.
"""

import asyncio
import hashlib
import logging
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
from msgspec import Struct

from commands.platform.audit_export import CompleteAuditExport, FailAuditExport
from infra.clock import iso
from infra.ids import command_id
from infra.objects import Objects
from infra.postgres import Reads
from projections.platform.audit_exports import BY_ID
from schemas.codec import Codec
from schemas.envelope import SYSTEM, Envelope
from schemas.platform.audit_export import AuditExportRequested
from streams.bus import CommandBus, CommandRequest
from streams.export import FileSummary, Manifest, Request, manifest_of, summarize, write_records
from streams.following import FORESEEN, Follower, of_types, one_by_one
from streams.platform.trail_files import SUFFIXES, NotARecord, TrailWriter
from streams.replay import Bound, Filter, TopicReader

logger = logging.getLogger(__name__)

GROUP = "streams.platform.audit_exports.v1"
TOPIC = "audit"
LONGEST_EXPORT_MS = 3_600_000
_CHUNK_BYTES = 1024 * 1024
_ATTEMPTS = 3


class TrailManifest(Struct, frozen=True, kw_only=True):
    """What `weir export` says of a file, and of the chain in it.

    chain_broken: where the chain does not hold, empty when it does. head: `seq:hash` of the last
    record, for `weir audit verify --seen`.
    """

    export_id: str
    tenant: str
    first_seq: int
    last_seq: int
    head: str
    chain_broken: str
    content: Manifest


class AuditExporter:
    """Makes exports until cancelled; any number of processes may do so at once."""

    def __init__(
        self,
        *,
        bootstrap: str,
        codec: Codec,
        bus: CommandBus,
        reads: Reads,
        objects: Objects,
        folder: Path | None = None,
    ) -> None:
        """`folder`: where files are made before they are stored; the system's own by default."""
        self._bootstrap, self._codec, self._bus = bootstrap, codec, bus
        self._reads, self._objects, self._folder = reads, objects, folder
        self._follower = Follower(
            bootstrap=bootstrap,
            group=GROUP,
            codec=codec,
            wants=of_types(AuditExportRequested),
            handle=one_by_one(self._handle),
            longest_ms=LONGEST_EXPORT_MS,
        )

    async def run(self) -> None:
        """Follow the log; what goes wrong outside is waited out."""
        await self._follower.run()

    async def _handle(self, envelope: Envelope, requested: Any) -> None:
        row = await self._reads.one(BY_ID, envelope.tenant, envelope.stream_id)
        if row is not None and row["status"] != "processing":
            return
        await self._end(envelope, await self._tried(envelope, requested))

    async def _tried(
        self, envelope: Envelope, requested: AuditExportRequested
    ) -> CompleteAuditExport | FailAuditExport:
        """How the export ends. A fault of its own is tried again a few times, then it fails."""
        reason = ""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return await self.make(envelope, requested)
            except FORESEEN:
                raise
            except NotARecord as error:
                return FailAuditExport(f"the trail cannot be exported: {error}")
            except Exception as error:
                reason = type(error).__name__
                logger.exception("audit export %s, attempt %s", envelope.stream_id, attempt)
        return FailAuditExport(f"the export failed {_ATTEMPTS} times: {reason}")

    async def make(
        self, envelope: Envelope, requested: AuditExportRequested
    ) -> CompleteAuditExport:
        """Make and store the file and its manifest; what completes the export.

        Raises LogUnavailable, ObjectsUnavailable, NotARecord, OSError.
        """
        export_id, tenant = envelope.stream_id, envelope.tenant
        request = Request(
            topic=TOPIC,
            format=requested.format,
            start=Bound(instant=requested.start_at),
            end=Bound(instant=requested.end_at),
            start_text=_text(requested.start_at),
            end_text=_text(requested.end_at),
            # The request's own record is the last that can be in it.
            filter=Filter(tenant=tenant, until=envelope.time + 1),
        )
        with tempfile.TemporaryDirectory(prefix="weir-export-", dir=self._folder) as folder:
            path = Path(folder) / f"{export_id}{SUFFIXES[requested.format]}"
            with path.open("wb") as file:
                writer, manifest = await self._replay(request, file, tenant)
            summary = await asyncio.to_thread(summarize, path, path.name)
            prefix = f"audit-exports/{tenant}/{export_id}-{summary.sha256[:16]}"
            name = prefix + path.suffix
            await self._objects.put_stream(name, _chunks(path))
        described = await self._store_manifest(prefix, envelope, writer, manifest, summary)
        return CompleteAuditExport(
            object=name,
            size=summary.bytes,
            sha256=summary.sha256,
            manifest=described.name,
            manifest_size=described.bytes,
            manifest_sha256=described.sha256,
            records=manifest.records,
            first_seq=writer.first_seq,
            last_seq=writer.last_seq,
        )

    async def _replay(
        self, request: Request, file: BinaryIO, tenant: str
    ) -> tuple[TrailWriter, Manifest]:
        async with TopicReader(self._bootstrap, TOPIC, "weir-audit-export") as reader:
            writer = TrailWriter(request.format, file, tenant)
            tally = await write_records(reader, self._codec, request, writer)
        return writer, manifest_of(request, tally, [])

    async def _store_manifest(
        self,
        prefix: str,
        envelope: Envelope,
        writer: TrailWriter,
        manifest: Manifest,
        summary: FileSummary,
    ) -> FileSummary:
        head = writer.chain.head
        # Only what the tenant's own records say: how much the topic holds besides is not its
        # business, and would be another at the next attempt.
        partitions = [
            msgspec.structs.replace(part, begin=part.first, end=part.last + 1)
            for part in manifest.partitions
            if part.first is not None and part.last is not None
        ]
        content = msgspec.structs.replace(manifest, partitions=partitions, files=[summary])
        document = TrailManifest(
            export_id=envelope.stream_id,
            tenant=envelope.tenant,
            first_seq=writer.first_seq,
            last_seq=writer.last_seq,
            head=f"{head.seq}:{head.hash}" if head else "",
            chain_broken=writer.broken,
            content=content,
        )
        data = msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"
        digest = hashlib.sha256(data).hexdigest()
        name = f"{prefix}-{digest[:16]}.manifest.json"
        await self._objects.put(name, data)
        return FileSummary(name, len(data), digest)

    async def _end(
        self, envelope: Envelope, command: CompleteAuditExport | FailAuditExport
    ) -> None:
        request = CommandRequest(
            tenant=envelope.tenant,
            stream_id=envelope.stream_id,
            command=command,
            actor=SYSTEM,
            command_id=command_id(envelope.tenant, envelope.stream_id, "audit-export-end"),
            fingerprint="audit-export-end",
            correlation_id=envelope.correlation_id,
        )
        await self._bus.post(request)


def _text(instant: int | None) -> str:
    return "" if instant is None else iso(instant)


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while chunk := await asyncio.to_thread(file.read, _CHUNK_BYTES):
            yield chunk
