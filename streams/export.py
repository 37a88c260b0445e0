"""`weir export`: a part of the log as a file, with a manifest that says what is in it.

The file appears under its name only when it is whole: it is written beside it, synced and renamed,
then the manifest. A run that is interrupted leaves nothing but a `.partial` file, and running it
again starts anew. Nothing is ever overwritten. Memory does not grow with the export.
"""

import asyncio
import fcntl
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
from msgspec import Struct

from schemas.codec import Codec, SchemaVersion
from schemas.topics import holds
from streams.export_files import FORMATS, RecordWriter, open_writer
from streams.replay import Bound, Entry, Filter, Span, TopicReader, decode
from streams.sealing import Keyring

MANIFEST_VERSION = 1


class TargetExists(Exception):
    """There is a file under the target's name already, and it stays as it is."""


class TargetBusy(Exception):
    """Another export writes to the same target."""


class PartitionSummary(Struct, frozen=True):
    """What was read of a partition. begin, end: the offsets of the replay, half open.

    first, last: offsets of the first and last record in the file, None when there is none.
    """

    partition: int
    begin: int
    end: int
    records: int = 0
    first: int | None = None
    last: int | None = None


class SchemaUse(Struct, frozen=True):
    """A schema that records in the file were written with."""

    id: int
    subject: str
    version: int


class FileSummary(Struct, frozen=True):
    """A file of the export. sha256 in lower-case hex."""

    name: str
    bytes: int
    sha256: str


class Manifest(Struct, frozen=True, kw_only=True):
    """What an export holds. from_, to: the bounds as they were given, empty for none."""

    manifest: int = MANIFEST_VERSION
    topic: str
    format: str
    from_: str = msgspec.field(name="from", default="")
    to: str = ""
    filter: Filter
    records: int
    undecodable: int
    types: dict[str, int]
    partitions: list[PartitionSummary]
    schemas: list[SchemaUse]
    files: list[FileSummary]


class Request(Struct, frozen=True, kw_only=True):
    """What to export. start_text and end_text are the bounds as the manifest shall tell them.

    format: for `export`, one of FORMATS.
    """

    topic: str
    format: str
    start: Bound = Bound()
    end: Bound = Bound()
    start_text: str = ""
    end_text: str = ""
    filter: Filter = Filter()


class Progress(Struct, frozen=True):
    """How far an export is: offsets passed of all, and records written."""

    passed: int
    total: int
    records: int


def target_files(out: Path, topic: str, format: str) -> tuple[Path, Path]:
    """Where the data and the manifest go: into a folder, or to a file that `out` names.

    `out` is a file when it has the suffix of a format, unless it is a folder that exists.
    """
    if out.suffix.removeprefix(".") in FORMATS and not out.is_dir():
        return out, out.with_name(out.name + ".manifest.json")
    return out / f"{topic}.{format}", out / "manifest.json"


class Tally:
    """Counts what goes into the file."""

    def __init__(self, spans: Sequence[Span]) -> None:
        self.records = 0
        self.undecodable = 0
        self.types: Counter[str] = Counter()
        self.schemas: dict[int, SchemaVersion] = {}
        self._spans = spans
        self._seen: dict[int, tuple[int, int, int]] = {}  # records, first, last

    def add(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            partition, offset = entry.position.partition, entry.position.offset
            count, first, _ = self._seen.get(partition, (0, offset, offset))
            self._seen[partition] = (count + 1, first, offset)
            self.types[entry.envelope.type if entry.envelope else ""] += 1
            self.undecodable += bool(entry.problem)
            if entry.schema is not None:
                self.schemas[entry.schema.id] = entry.schema
        self.records += len(entries)

    def partitions(self) -> list[PartitionSummary]:
        summaries = []
        for span in self._spans:
            summary = PartitionSummary(span.partition, span.first, span.end)
            seen = self._seen.get(span.partition)
            if seen is not None:
                summary = msgspec.structs.replace(
                    summary, records=seen[0], first=seen[1], last=seen[2]
                )
            summaries.append(summary)
        return summaries


async def export(
    bootstrap: str,
    codec: Codec,
    request: Request,
    out: Path,
    report: Callable[[Progress], None] = lambda progress: None,
    *,
    keyring: Keyring | None = None,
) -> tuple[Path, Manifest]:
    """Write what was asked for; returns the file and its manifest.

    `out`: see `target_files`. keyring: opens what is sealed; without it that stays sealed. Raises
    TargetExists, TargetBusy, NoSuchTopic, LogUnavailable, ObjectsUnavailable, OSError.
    """
    target, manifest_path = target_files(out, request.topic, request.format)
    _refuse_existing(target, manifest_path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    # Opened for appending and emptied under the lock, so that another run's file is not touched.
    with partial.open("ab") as file:
        _lock(file, partial)
        try:
            file.seek(0)
            file.truncate()
            async with TopicReader(bootstrap, request.topic, "weir-export") as reader:
                schemas = [
                    version
                    for version in codec.schemas.values()
                    if holds(request.topic, version.subject)
                ]
                writer = open_writer(request.format, file, schemas, request.topic)
                tally = await write_records(reader, codec, request, writer, report, keyring=keyring)
            await asyncio.to_thread(_sync, file)
            summary = await asyncio.to_thread(_settle, partial, target)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    manifest = manifest_of(request, tally, [summary])
    _write_manifest(manifest_path, manifest)
    return target, manifest


async def write_records(
    reader: TopicReader,
    codec: Codec,
    request: Request,
    writer: RecordWriter,
    report: Callable[[Progress], None] = lambda progress: None,
    *,
    keyring: Keyring | None = None,
) -> Tally:
    """Replay into a writer and finish it; returns what went into it.

    Raises LogUnavailable, ObjectsUnavailable.
    """
    spans = await reader.spans(request.start, request.end)
    wanted = _within(request)
    tally = Tally(spans)
    total, passed = sum(span.length for span in spans), 0

    def advance(offsets: int) -> None:
        nonlocal passed
        passed += offsets
        report(Progress(passed, total, tally.records))

    async for records in reader.read(spans, advance):
        chosen = [record for record in records if wanted.passes(record)]
        if chosen and keyring is not None:
            await keyring.fetch(chosen)
        if chosen:
            await asyncio.to_thread(_write, writer, tally, chosen, codec, keyring)
    await asyncio.to_thread(writer.finish)
    return tally


def _within(request: Request) -> Filter:
    """The filter, with bounds that are instants made exact."""
    wanted, since, until = request.filter, request.start.instant, request.end.instant
    if since is not None:
        wanted = msgspec.structs.replace(wanted, since=max(since, wanted.since or 0))
    if until is not None:
        sooner = until if wanted.until is None else min(until, wanted.until)
        wanted = msgspec.structs.replace(wanted, until=sooner)
    return wanted


def _lock(file: BinaryIO, path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Between opening and locking, another run may have finished and renamed this very file.
        ours = os.path.samestat(os.fstat(file.fileno()), path.stat())
    except (BlockingIOError, FileNotFoundError):
        ours = False
    if not ours:
        raise TargetBusy(f"another export writes {path}")


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _write(
    writer: RecordWriter,
    tally: Tally,
    records: Sequence[Any],
    codec: Codec,
    keyring: Keyring | None,
) -> None:
    entries = [decode(record, codec, keyring) for record in records]
    writer.write(entries)
    tally.add(entries)


def manifest_of(request: Request, tally: Tally, files: list[FileSummary]) -> Manifest:
    """The manifest of what was written."""
    return Manifest(
        topic=request.topic,
        format=request.format,
        from_=request.start_text,
        to=request.end_text,
        filter=request.filter,
        records=tally.records,
        undecodable=tally.undecodable,
        types=dict(sorted(tally.types.items())),
        partitions=tally.partitions(),
        schemas=[
            SchemaUse(version.id, version.subject, version.version)
            for _, version in sorted(tally.schemas.items())
        ],
        files=files,
    )


def summarize(path: Path, name: str) -> FileSummary:
    """Size and SHA-256 of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileSummary(name, path.stat().st_size, digest)


def _settle(partial: Path, target: Path) -> FileSummary:
    summary = summarize(partial, target.name)
    _refuse_existing(target)
    partial.rename(target)
    _sync_folder(target.parent)
    return summary


def _write_manifest(path: Path, manifest: Manifest) -> None:
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refuse_existing(*paths: Path) -> None:
    for path in paths:
        if path.exists():
            raise TargetExists(f"{path} exists and is not overwritten")


def read_manifest(path: Path) -> Manifest:
    """Read a manifest. Raises OSError, msgspec.ValidationError or msgspec.DecodeError."""
    return msgspec.json.decode(path.read_bytes(), type=Manifest)
