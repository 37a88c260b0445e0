"""`weir audit verify`: walks the hash chains of the audit trail, from the topic or from an export.

One report for each tenant met. A chain that breaks is named with its first break; what comes after
it is not looked at, since nothing vouches for it.
"""

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fastavro
import msgspec
import pyarrow.parquet
from msgspec import Struct

from schemas.codec import Codec, Undecodable
from schemas.envelope import Position
from schemas.platform.audit import AuditRecorded
from schemas.platform.audit_chain import START, Break, ChainVerifier, Link
from streams.export import Manifest, read_manifest, summarize, target_files
from streams.replay import TopicReader

TOPIC = "audit"
_FIELDS = frozenset(AuditRecorded.__struct_fields__)


class NotAnAuditExport(Exception):
    """The file is none of ours, or not of the audit topic; the message names the place."""


class ChainReport(Struct, frozen=True):
    """What was found of one tenant.

    records: how many hold. first: the number of the first record. head: the last one that holds,
    the receipt to keep. broken: the first break, None when all holds.
    """

    tenant: str
    records: int
    first: int | None
    head: Link | None
    broken: Break | None


class _Chains:
    """A verifier for each tenant met."""

    def __init__(self, tenant: str, after: Link | None, seen: Link | None) -> None:
        self._tenant, self._after, self._seen = tenant, after, seen
        self._verifiers: dict[str, ChainVerifier] = {}
        self._breaks: dict[str, Break] = {}
        self._first: dict[str, int] = {}
        if tenant:
            self._verifiers[tenant] = ChainVerifier(tenant, after, seen)

    def take(self, tenant: str, record: AuditRecorded | str, position: str) -> None:
        """The next record under a tenant's name; a text says why it cannot be read."""
        if (self._tenant and tenant != self._tenant) or tenant in self._breaks:
            return
        verifier = self._verifiers.get(tenant)
        if verifier is None:
            verifier = self._verifiers[tenant] = ChainVerifier(tenant, self._after, self._seen)
        if isinstance(record, str):
            number = verifier.head.seq + 1 if verifier.head else 0
            broken: Break | None = Break(verifier.verified, number, "unreadable", record, position)
        else:
            self._first.setdefault(tenant, record.seq)
            broken = verifier.check(record, position)
        if broken is not None:
            self._breaks[tenant] = broken

    def reports(self) -> list[ChainReport]:
        return [
            ChainReport(
                tenant=tenant,
                records=verifier.verified,
                first=self._first.get(tenant),
                head=verifier.head if verifier.verified else None,
                broken=self._breaks.get(tenant) or verifier.finish(),
            )
            for tenant, verifier in sorted(self._verifiers.items())
        ]


async def verify_topic(
    bootstrap: str,
    codec: Codec,
    tenant: str = "",
    seen: Link | None = None,
    progress: Callable[[int, int], None] = lambda passed, total: None,
) -> list[ChainReport]:
    """Verify one tenant's chain, or all, on the topic. `codec` must know AuditRecorded.

    progress(passed, total) counts offsets. Raises LogUnavailable or NoSuchTopic.
    """
    chains = _Chains(tenant, START, seen)
    async with TopicReader(bootstrap, TOPIC, "weir-audit-verify") as reader:
        spans = await reader.spans()
        total, passed = sum(span.length for span in spans), 0

        def advance(offsets: int) -> None:
            nonlocal passed
            passed += offsets
            progress(passed, total)

        async for records in reader.read(spans, advance):
            for record in records:
                owner = dict(record.headers).get("ce_tenant", b"").decode(errors="replace")
                if tenant and owner != tenant:
                    continue
                position = str(Position(TOPIC, record.partition, record.offset))
                try:
                    found: AuditRecorded | str = codec.decode(record.value)
                except Undecodable as error:
                    found = str(error)
                chains.take(owner, found, position)
    return chains.reports()


class FileVerdict(Struct, frozen=True):
    """What was found of a file: its chains, and what its manifest says against it."""

    chains: list[ChainReport]
    manifest_problem: str = ""


def verify_file(
    path: Path, tenant: str = "", seen: Link | None = None, window: bool = False
) -> FileVerdict:
    """Verify an export of the audit topic, or of a tenant's trail.

    window: the file may begin in mid-chain; a manifest that names a beginning says so too. Raises
    NotAnAuditExport or OSError.
    """
    manifest, problem = _manifest_of(path)
    if manifest is not None and manifest.from_:
        window = True
    chains = _Chains(tenant, None if window else START, seen)
    for owner, record, position in audit_records(path):
        chains.take(owner, record, position)
    return FileVerdict(chains.reports(), problem)


def _manifest_of(path: Path) -> tuple[Manifest | None, str]:
    """The manifest beside a file, and how the file differs from what it says."""
    for candidate in (target_files(path, "", "jsonl")[1], path.with_name("manifest.json")):
        if not candidate.exists():
            continue
        try:
            manifest = read_manifest(candidate)
        except (msgspec.DecodeError, OSError) as error:
            return None, f"{candidate} cannot be read: {error}"
        for told in manifest.files:
            if told.name == path.name:
                found = summarize(path, path.name)
                if found != told:
                    return manifest, (
                        f"{path.name} has {found.bytes} bytes and SHA-256 {found.sha256}, its "
                        f"manifest says {told.bytes} and {told.sha256}"
                    )
                return manifest, ""
    return None, ""


def audit_records(path: Path) -> Iterator[tuple[str, AuditRecorded | str, str]]:
    """Tenant, record (or why it cannot be read) and position of each row, batch by batch.

    Raises NotAnAuditExport when the file has not the form of its suffix.
    """
    rows = _READERS.get(path.suffix)
    if rows is None:
        raise NotAnAuditExport(f"{path.name}: give a file that ends in {', '.join(_READERS)}")
    number = 0
    try:
        for number, row in enumerate(rows(path), 1):
            # A cell of a csv file is text, whatever it holds; elsewhere a type says something.
            yield _record_of(row, number, strict=path.suffix != ".csv")
    except OSError:
        raise
    except Exception as error:  # what a reader of a format makes of junk is not to be foreseen
        raise NotAnAuditExport(f"{path.name}, after row {number}: {error}") from error


def _record_of(row: Any, number: int, *, strict: bool) -> tuple[str, AuditRecorded | str, str]:
    if not isinstance(row, dict):
        raise ValueError("a row is not an object")
    # A row of `weir export` holds the record under `data`; a tenant's own export is the record.
    fields = row if "hash" in row else row.get("data")
    if isinstance(fields, str):
        fields = json.loads(fields)
    position = str(row.get("position") or f"row {number}")
    tenant = str(row.get("tenant", ""))
    # A field that no hash covers would look as if the chain vouched for it.
    unknown = sorted(set(fields or ()) - _FIELDS - ({"position"} if fields is row else set()))
    if unknown:
        return tenant, f"it has fields that no audit record has: {', '.join(unknown)}", position
    try:
        record = msgspec.convert(fields, AuditRecorded, strict=strict)
    except msgspec.ValidationError as error:
        return tenant, str(error), position
    return tenant or record.tenant, record, position


def _json_lines(path: Path) -> Iterator[Any]:
    with path.open("rb") as file:
        for line in file:
            yield json.loads(line)


def _json(path: Path) -> Iterator[Any]:
    with path.open("rb") as file:
        document = json.load(file)
    yield from document["records"] if isinstance(document, dict) else document


def _csv(path: Path) -> Iterator[Any]:
    csv.field_size_limit(64 * 1024 * 1024)
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file, strict=True):
            for name in ("events", "related"):
                if name in row:
                    row[name] = json.loads(row[name])
            yield row


def _parquet(path: Path) -> Iterator[Any]:
    with pyarrow.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=2_000):
            yield from batch.to_pylist()


def _avro(path: Path) -> Iterator[Any]:
    with path.open("rb") as file:
        yield from fastavro.reader(file)


_READERS: dict[str, Callable[[Path], Iterator[Any]]] = {
    ".jsonl": _json_lines,
    ".json": _json,
    ".csv": _csv,
    ".parquet": _parquet,
    ".avro": _avro,
}
