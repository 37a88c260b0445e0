"""Confluent wire format: magic byte 0, schema id (big-endian int32), Avro body.

Encoding looks the id up by the struct's tag; decoding looks the writer's schema up by its id, so a
reader of today reads what any release wrote. Fields that the writer did not have take the struct's
defaults; fields that the struct no longer has are ignored.
"""

import io
import json
import struct as binary
from collections.abc import Callable
from importlib import resources
from typing import TYPE_CHECKING, Any

import fastavro
import msgspec
from msgspec import Struct

from schemas.avro_derivation import tag_of
from schemas.avro_writer import compile_writer

if TYPE_CHECKING:
    from schemas.avro_columns import ColumnReader

MAGIC = 0
_FRAME = binary.Struct(">bI")
FRAME_BYTES = _FRAME.size


class Undecodable(ValueError):
    """Bytes that are not one of our records: wrong magic byte, unknown schema, short or long."""


class SchemaVersion(Struct, frozen=True):
    """One registered schema. `subject` is the tag; `version` counts from 1 within it."""

    id: int
    subject: str
    version: int
    schema: dict[str, Any]


class Codec:
    """Encodes and decodes the given struct types against a set of registered schemas."""

    def __init__(self, types: list[type[Struct]], schemas: list[SchemaVersion]) -> None:
        self.types = {tag_of(cls): cls for cls in types}
        if len(self.types) != len(types):
            raise ValueError("two structs share a tag")
        self.schemas = {version.id: version for version in schemas}
        self._writers: dict[type[Struct], tuple[bytes, Callable[[Any], bytes]]] = {}
        self._readers: dict[int, Any] = {}
        self._column_readers: dict[bytes, ColumnReader | None] = {}
        newest: dict[str, SchemaVersion] = {}
        for version in sorted(schemas, key=lambda item: item.version):
            newest[version.subject] = version
        self._newest = newest

    def encode(self, value: Struct) -> bytes:
        """Frame and encode one event or command. Raises KeyError for an unregistered type."""
        cls = type(value)
        writer = self._writers.get(cls)
        if writer is None:
            version = self._newest[tag_of(cls)]
            writer = (_FRAME.pack(MAGIC, version.id), compile_writer(cls, version.schema))
            self._writers[cls] = writer
        prefix, body = writer
        return prefix + body(value)

    def tag(self, data: bytes) -> str:
        """The tag of a record, whose body is not read. Raises Undecodable."""
        return self._version(data).subject

    def _version(self, data: bytes | None) -> SchemaVersion:
        """The schema that a record names. Raises Undecodable."""
        if data is None or len(data) < FRAME_BYTES:
            raise Undecodable("shorter than a frame")
        magic, schema_id = _FRAME.unpack_from(data)
        version = self.schemas.get(schema_id)
        if magic != MAGIC or version is None:
            raise Undecodable(f"magic byte {magic}, schema id {schema_id}")
        return version

    def decode_fields(self, data: bytes | None) -> tuple[str, dict[str, Any]]:
        """The tag and the plain fields of a record. Raises Undecodable."""
        version = self._version(data)
        assert data is not None
        reader = self._readers.get(version.id)
        if reader is None:
            reader = self._readers[version.id] = fastavro.parse_schema(version.schema)
        source = io.BytesIO(data)
        source.seek(FRAME_BYTES)
        try:
            fields = fastavro.schemaless_reader(source, reader, None)
        except (EOFError, ValueError, IndexError, TypeError, OverflowError, MemoryError) as error:
            raise Undecodable(f"{version.subject}: {error}") from error
        if source.tell() != len(data):
            raise Undecodable(f"{version.subject}: trailing bytes")
        assert isinstance(fields, dict)
        return version.subject, fields

    def decode(self, data: bytes | None) -> Any:
        """The struct of a record. Raises Undecodable, also for values its struct refuses."""
        subject, fields = self.decode_fields(data)
        cls = self.types.get(subject)
        if cls is None:
            raise Undecodable(f"no struct for {subject}")
        fields["type"] = subject
        try:
            return msgspec.convert(fields, cls, builtin_types=(bytes,))
        except msgspec.ValidationError as error:
            raise Undecodable(f"{subject}: {error}") from error

    def column_reader(self, data: bytes) -> "ColumnReader | None":
        """What reads many records at once that are framed as this one is, if anything does."""
        frame = data[:FRAME_BYTES]
        if frame not in self._column_readers:
            if len(self._column_readers) > len(self.schemas):
                self._column_readers.clear()  # of rubbish there is no end
            self._column_readers[frame] = self._new_column_reader(frame)
        return self._column_readers[frame]

    def _new_column_reader(self, frame: bytes) -> "ColumnReader | None":
        # Arrow comes with it, which most roles do without.
        from schemas.avro_columns import ColumnReader

        if len(frame) < FRAME_BYTES:
            return None
        magic, schema_id = _FRAME.unpack(frame)
        version = self.schemas.get(schema_id)
        cls = self.types.get(version.subject) if version else None
        if magic != MAGIC or version is None or cls is None:
            return None
        try:
            return ColumnReader(cls, version.schema, FRAME_BYTES)
        except TypeError:
            return None


def load_schemas() -> list[SchemaVersion]:
    """Every registered schema, from the files committed beside this module."""
    root = resources.files("schemas") / "avro"
    index = root / "index.json"
    entries = json.loads(index.read_text()) if index.is_file() else []
    return [
        SchemaVersion(
            id=entry["id"],
            subject=entry["subject"],
            version=entry["version"],
            schema=json.loads((root / entry["file"]).read_text()),
        )
        for entry in entries
    ]
