"""The files that an export writes: one row for each record, in four formats.

jsonl and csv read anywhere; parquet is for engines that read columns; avro keeps every type as it
was on the log. In the first three `data` is the event as JSON (text in csv and parquet, bytes in
base64); in avro it is the event's own record. The same records give the same bytes.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO, Literal, Protocol

import msgspec
import pyarrow
from fastavro.write import Writer

from infra.clock import iso
from schemas.codec import SchemaVersion
from streams.replay import Entry
from streams.tabular import ParquetRows, csv_lines

Format = Literal["jsonl", "csv", "parquet", "avro"]
FORMATS: tuple[Format, ...] = ("jsonl", "csv", "parquet", "avro")

# Column -> Avro type; parquet's follow from them.
COLUMNS: dict[str, str] = {
    "position": "string",
    "time": "long",
    "type": "string",
    "tenant": "string",
    "stream": "string",
    "version": "long",
    "id": "string",
    "actor_kind": "string",
    "actor_id": "string",
    "actor_name": "string",
    "correlation_id": "string",
    "causation_id": "string",
    "key": "string",
    "schema_id": "long",
    "problem": "string",
}


class RecordWriter(Protocol):
    """Writes entries to an open file. Holds at most a group of rows (`streams/tabular.py`)."""

    def write(self, entries: Sequence[Entry]) -> None:
        """Add rows, in order."""
        ...

    def finish(self) -> None:
        """Write what is held back, and the format's footer. The file stays open."""
        ...


def columns_of(entry: Entry) -> dict[str, Any]:
    """Every column but `data` and `raw`; `time` in microseconds."""
    row: dict[str, Any] = dict.fromkeys(COLUMNS, "")
    envelope = entry.envelope
    row |= {
        "position": str(entry.position),
        "time": entry.timestamp_ms * 1000,
        "version": 0,
        "key": entry.key,
        "schema_id": entry.schema.id if entry.schema else 0,
        "problem": entry.problem,
    }
    if envelope is not None:
        row |= {
            "time": envelope.time,
            "type": envelope.type,
            "tenant": envelope.tenant,
            "stream": envelope.stream,
            "version": envelope.version,
            "id": envelope.id,
            "actor_kind": envelope.actor.kind,
            "actor_id": envelope.actor.id,
            "actor_name": envelope.actor.name,
            "correlation_id": envelope.correlation_id,
            "causation_id": envelope.causation_id,
        }
    return row


def json_row(entry: Entry) -> dict[str, Any]:
    """The whole row as JSON values; `raw` (base64) only of a record that could not be decoded."""
    row = columns_of(entry)
    row["time"] = iso(row["time"])
    row["data"] = entry.data
    if entry.raw is not None:
        row["raw"] = entry.raw
    return row


def _data_text(entry: Entry) -> str:
    """`data` as JSON text; of a record that could not be decoded, its bytes in base64 as a string.

    `problem` tells the two apart.
    """
    return msgspec.json.encode(entry.raw if entry.problem else entry.data).decode()


class _JsonLines:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, entries: Sequence[Entry]) -> None:
        self._file.writelines(msgspec.json.encode(json_row(entry)) + b"\n" for entry in entries)

    def finish(self) -> None:
        pass


class _Csv:
    """A header, then a line for each record."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._file.write(csv_lines([[*COLUMNS, "data"]]))

    def write(self, entries: Sequence[Entry]) -> None:
        rows = []
        for entry in entries:
            row = columns_of(entry)
            row["time"] = iso(row["time"])
            rows.append([*row.values(), _data_text(entry)])
        self._file.write(csv_lines(rows))

    def finish(self) -> None:
        pass


_ARROW = {"string": pyarrow.string(), "long": pyarrow.int64()}


class _Parquet:
    def __init__(self, file: BinaryIO) -> None:
        fields = [(name, _ARROW[kind]) for name, kind in COLUMNS.items()]
        schema = pyarrow.schema([*fields, ("data", pyarrow.string())])
        time = pyarrow.field("time", pyarrow.timestamp("us", tz="UTC"))
        self._rows = ParquetRows(file, schema.set(schema.get_field_index("time"), time))

    def write(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            row = columns_of(entry)
            row["data"] = _data_text(entry)
            self._rows.add(row, len(row["data"]))

    def finish(self) -> None:
        self._rows.finish()


class _Avro:
    """An object container file; `data` is a union of the records that the topic may hold."""

    def __init__(self, file: BinaryIO, schemas: Sequence[SchemaVersion], name: str) -> None:
        newest: dict[str, SchemaVersion] = {}
        for version in sorted(schemas, key=lambda item: item.version):
            newest[version.subject] = version
        members = [container_schema(version.schema) for version in newest.values()]
        self._names = {
            subject: f"{member['namespace']}.{member['name']}"
            for subject, member in zip(newest, members, strict=True)
        }
        fields: list[dict[str, Any]] = [
            {"name": name, "type": kind} for name, kind in COLUMNS.items()
        ]
        fields[list(COLUMNS).index("time")]["type"] = {
            "type": "long",
            "logicalType": "timestamp-micros",
        }
        fields.append({"name": "data", "type": ["null", "string", "bytes", *members]})
        schema = {"type": "record", "name": "Exported", "namespace": "weir.export"}
        # The default marker is random: one made from the name keeps the file the same.
        marker = hashlib.sha256(name.encode()).digest()[:16]
        self._writer = Writer(
            file, {**schema, "fields": fields}, codec="deflate", sync_marker=marker
        )

    def write(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self._writer.write({**columns_of(entry), "data": self._data(entry)})

    def _data(self, entry: Entry) -> Any:
        if entry.problem:
            return entry.raw
        name = self._names.get(entry.schema.subject) if entry.schema else None
        if name is None:
            return msgspec.json.encode(entry.data).decode()
        return (name, entry.data)

    def finish(self) -> None:
        self._writer.flush()


def container_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema with its nested records named after it, so that two schemas fit in one union.

    An Avro name may be defined once in a schema, and our events name their nested records alike.
    """
    inner: dict[str, str] = {}
    prefix = str(schema["name"])

    def renamed(node: Any) -> Any:
        if isinstance(node, str):
            return inner.get(node, node)
        if isinstance(node, list):
            return [renamed(item) for item in node]
        out = dict(node)
        if out.get("type") == "record":
            out["name"] = inner.setdefault(out["name"], f"{prefix}_{out['name']}")
            out["fields"] = [{**field, "type": renamed(field["type"])} for field in out["fields"]]
        for part in ("items", "values"):
            if part in out:
                out[part] = renamed(out[part])
        return out

    fields = [{**field, "type": renamed(field["type"])} for field in schema["fields"]]
    return {**schema, "fields": fields}


def open_writer(
    format: str, file: BinaryIO, schemas: Sequence[SchemaVersion], name: str
) -> RecordWriter:
    """A writer of one format. schemas: what an avro file declares. name: seeds its marker.

    Raises ValueError for a format that is not in FORMATS.
    """
    match format:
        case "jsonl":
            return _JsonLines(file)
        case "csv":
            return _Csv(file)
        case "parquet":
            return _Parquet(file)
        case "avro":
            return _Avro(file, schemas, name)
    raise ValueError(f"there is no format {format!r}")
