"""Files of a tenant's audit trail: a row for each record, its fields and where it stands.

The fields are those that the chain's hash covers, unchanged (`at` in microseconds, `details` as the
text it is), so that `weir audit verify --file` proves the file. The same records give the same
bytes. For the same reason a csv cell is the text as it was recorded: a spreadsheet may take a name
that begins with `=` for a formula.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, BinaryIO

import msgspec
import pyarrow

from schemas.platform.audit import AuditRecorded
from schemas.platform.audit_chain import ChainVerifier
from streams.replay import Entry
from streams.tabular import ParquetRows, csv_lines

COLUMNS = ("position", *AuditRecorded.__struct_fields__)
_LISTS = ("events", "related")
_WHOLE = ("seq", "at")
SUFFIXES = {"json": ".json", "jsonl": ".jsonl", "csv": ".csv", "parquet": ".parquet"}
MEDIA_TYPES = {
    "json": "application/json",
    "jsonl": "application/x-ndjson",
    "csv": "text/csv; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
}


class NotARecord(Exception):
    """The topic holds something under this tenant that is no audit record."""


def row_of(entry: Entry) -> dict[str, Any]:
    """The columns of one record. Raises NotARecord."""
    if entry.problem or not isinstance(entry.data, dict) or "hash" not in entry.data:
        raise NotARecord(f"{entry.position}: {entry.problem or 'another kind of event'}")
    return {"position": str(entry.position), **{name: entry.data[name] for name in COLUMNS[1:]}}


class TrailWriter:
    """Writes records of one tenant in one of SUFFIXES' formats, and follows their chain.

    chain: how far it holds; it begins wherever the first record is.
    """

    def __init__(self, format: str, file: BinaryIO, tenant: str) -> None:
        self.chain = ChainVerifier(tenant, after=None)
        self.broken = ""
        self.first_seq = self.last_seq = 0
        self._rows: RowWriter = _WRITERS[format](file)

    def write(self, entries: Sequence[Entry]) -> None:
        """Add records, in order. Raises NotARecord."""
        rows = [row_of(entry) for entry in entries]
        for row in rows:
            record = msgspec.convert({name: row[name] for name in COLUMNS[1:]}, AuditRecorded)
            self.first_seq = self.first_seq or record.seq
            self.last_seq = record.seq
            if not self.broken:
                found = self.chain.check(record, row["position"])
                self.broken = f"record {found.seq}: {found.message}" if found else ""
        self._rows.write(rows)

    def finish(self) -> None:
        """Write what is held back, and the format's end."""
        self._rows.finish()


class RowWriter(ABC):
    """One format; `write` adds rows, `finish` ends the file and leaves it open."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    @abstractmethod
    def write(self, rows: Sequence[dict[str, Any]]) -> None: ...

    @abstractmethod
    def finish(self) -> None: ...


class _JsonLines(RowWriter):
    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        self._file.writelines(msgspec.json.encode(row) + b"\n" for row in rows)

    def finish(self) -> None:
        pass


class _Json(RowWriter):
    """One document, `{"records": […]}`, a record a line."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self._file.write(b'{"records": [')
        self._separator = b"\n"

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        for row in rows:
            self._file.write(self._separator + msgspec.json.encode(row))
            self._separator = b",\n"

    def finish(self) -> None:
        self._file.write(b"\n]}\n")


class _Csv(RowWriter):
    """Lists are JSON in their cell."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self._file.write(csv_lines([COLUMNS]))

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        for row in rows:
            for name in _LISTS:
                row[name] = msgspec.json.encode(row[name]).decode()
        self._file.write(csv_lines([list(row.values()) for row in rows]))

    def finish(self) -> None:
        pass


class _Parquet(RowWriter):
    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        kinds = dict.fromkeys(COLUMNS, pyarrow.string())
        kinds |= dict.fromkeys(_WHOLE, pyarrow.int64())
        kinds |= dict.fromkeys(_LISTS, pyarrow.list_(pyarrow.string()))
        self._rows = ParquetRows(file, pyarrow.schema(list(kinds.items())))

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        for row in rows:
            self._rows.add(row, len(row["details"]) + 500)

    def finish(self) -> None:
        self._rows.finish()


_WRITERS: dict[str, type[RowWriter]] = {
    "json": _Json,
    "jsonl": _JsonLines,
    "csv": _Csv,
    "parquet": _Parquet,
}
