"""Many Avro records read at once, into a column per field of the items they hold.

For an event that is one list of flat items, such as `LlmCallsRecorded`, and maybe bytes behind it,
which are empty: a record with some is left. Where a field begins
depends on those before it, so one record gives its fields only in turn; but the n-th fields of a
thousand records can be looked for together. numpy steps through all of them side by side, and Arrow
takes the texts as they lie there, without a Python object for each.

It reads what is well-formed and ordinary and leaves the rest: a record that is cut short or too
long, whose values break the bounds of their struct, or that is merely unusual is reported as left,
and the caller decodes that one by itself. So nothing here decides what is an error.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
from msgspec import Struct
from msgspec.inspect import (
    BytesType,
    FloatType,
    IntType,
    ListType,
    Metadata,
    NoneType,
    StrType,
    StructType,
    UnionType,
)

from schemas.avro_derivation import AvroSchema

Integers = np.ndarray[tuple[int], np.dtype[np.int64]]
Floats = np.ndarray[tuple[int], np.dtype[np.float64]]
Octets = np.ndarray[tuple[int], np.dtype[np.uint8]]
Flags = np.ndarray[tuple[int], np.dtype[np.bool_]]
Column = Any
"""An Arrow array of text, or a numpy array of numbers."""

# Where a reading starts is never beyond the last record; a number takes less than this.
_PADDING = bytes(64)
# Records that still have another item are read on side by side only while there are so many: the
# steps cost the same for one as for a few hundred.
_TOGETHER_MIN = 32
_BITS_MAX = 56


class Columns(NamedTuple):
    """What was read of some records.

    counts: how many items each record has; 0 for one that is left. columns: by field, the items of
    all records in order; an absent float is NaN.
    """

    counts: Integers
    columns: dict[str, Column]

    def part(self, records: slice, ends: Sequence[int]) -> "Columns":
        """What is of these records. ends: where the items of each record end, after a zero."""
        if records == slice(0, len(self.counts)):
            return self
        items = slice(ends[records.start], ends[records.stop])
        columns = {name: column[items] for name, column in self.columns.items()}
        return Columns(self.counts[records], columns)


def column_kinds(items: Any) -> dict[str, str]:
    """The kind of column of each field, for a type such as `list[LlmCall]`: string, long, double,
    or `double?`, which may be null. Raises TypeError for what has no column."""
    info = msgspec.inspect.type_info(items)
    if not isinstance(info, ListType) or not isinstance(info.item_type, StructType):
        raise TypeError(f"{items!r} is no list of structs")
    return {field.name: _field(field.name, field.type).kind for field in info.item_type.fields}


def column_of(values: list[Any], kind: str) -> Column:
    """Values of one field as a column."""
    if kind == "string":
        return pa.array(values, pa.string())
    if kind == "long":
        return np.array(values, np.int64)
    return np.array([np.nan if value is None else value for value in values], np.float64)


class _Field(NamedTuple):
    name: str
    kind: str
    least: float = -np.inf
    greatest: float = np.inf


class ColumnReader:
    """Reads records of one writer's schema, whose bodies begin after `skip` bytes.

    Raises TypeError when the event is no list of flat items of text and bounded numbers, or the
    writer's schema is not the struct's own.
    """

    def __init__(self, event: type[Struct], schema: AvroSchema, skip: int) -> None:
        self._skip = skip
        self._fields = _fields(event, schema)
        self._behind = len(schema["fields"]) - 1

    def read(self, records: Sequence[bytes]) -> Columns:
        """The items of those records that can be read this way."""
        reading = _Reading(records, self._skip, self._fields, self._behind)
        try:
            return reading.columns()
        except pa.ArrowInvalid:  # a text that is no UTF-8
            none = {field.name: column_of([], field.kind) for field in self._fields}
            return Columns(np.zeros(len(records), np.int64), none)


_WRITTEN: dict[str, Any] = {
    "string": "string",
    "long": "long",
    "double": "double",
    "double?": ["null", "double"],
}


def _fields(event: type[Struct], schema: AvroSchema) -> list[_Field]:
    info = msgspec.inspect.type_info(event)
    if not isinstance(info, StructType) or not info.fields or not schema["fields"]:
        raise TypeError(f"{event.__name__} is not just a list")
    (only, *others), (written, *behind) = info.fields, schema["fields"]
    if not all(isinstance(field.type, BytesType) for field in others) or not all(
        field["type"] == "bytes" for field in behind
    ):
        raise TypeError(f"{event.__name__} is not just a list")
    item, kind = only.type, written["type"]
    if (
        isinstance(item, ListType)
        and isinstance(kind, dict)
        and only.encode_name == written["name"]
    ):
        inner, record = item.item_type, kind.get("items")
        if isinstance(inner, StructType) and isinstance(record, dict) and "fields" in record:
            fields = [_field(field.name, field.type) for field in inner.fields]
            expected = [
                (field.encode_name, _WRITTEN[made.kind])
                for field, made in zip(inner.fields, fields, strict=True)
            ]
            if expected == [(field["name"], field["type"]) for field in record["fields"]]:
                return fields
    raise TypeError(f"{event.__name__} is no list of items as they were written")


def _field(name: str, info: Any) -> _Field:
    if isinstance(info, Metadata):  # a description, which restricts nothing
        info = info.type
    match info:
        case StrType(min_length=None, max_length=None, pattern=None):
            return _Field(name, "string")
        case IntType(gt=None, lt=None, multiple_of=None):
            return _Field(name, "long", *_bounds(info))
        case FloatType(gt=None, lt=None, multiple_of=None):
            return _Field(name, "double", *_bounds(info))
        case UnionType(types=(FloatType(gt=None, lt=None, multiple_of=None) as some, NoneType())):
            # Bounds rule NaN out, so that it can stand for null.
            if some.ge is not None or some.le is not None:
                return _Field(name, "double?", *_bounds(some))
    raise TypeError(f"{name}: {info!r} is not read in columns")


def _bounds(info: Any) -> tuple[float, float]:
    return (
        -np.inf if info.ge is None else info.ge,
        np.inf if info.le is None else info.le,
    )


class _Reading:
    """One reading of some records: where each of them is, and which are still good."""

    def __init__(
        self, records: Sequence[bytes], skip: int, fields: list[_Field], behind: int
    ) -> None:
        self._fields, self._behind = fields, behind
        self._data = b"".join([*records, _PADDING])
        self._octets: Octets = np.frombuffer(self._data, np.uint8)
        sizes = np.fromiter(map(len, records), np.int64, len(records))
        self._ends: Integers = np.cumsum(sizes)
        self._limit = len(self._data) - len(_PADDING)
        starts = np.minimum(self._ends - sizes + skip, self._limit)
        bad = np.zeros(len(records), np.int64)
        raw, self._at = _varints(self._octets, starts, bad)
        # A count written as negative has a size after it. An item has a byte for each field.
        self._counts = raw >> 1
        self._good: Flags = (bad | raw & 1) == 0
        self._good &= (self._counts > 0) & (self._counts * len(fields) <= sizes)
        self._counts[~self._good] = 0
        self._first = np.cumsum(self._counts) - self._counts

    def columns(self) -> Columns:
        """Raises ArrowInvalid when a text is no UTF-8."""
        rows = int(self._counts.sum())
        numbers: dict[str, Any] = {
            f.name: np.zeros(rows, np.int64 if f.kind in ("string", "long") else np.float64)
            for f in self._fields
        }
        begins = {f.name: np.zeros(rows, np.int64) for f in self._fields if f.kind == "string"}
        for index in range(int(self._counts.max(initial=0))):
            live = np.flatnonzero(self._good & (self._counts > index))
            if len(live) < _TOGETHER_MIN:
                self._good[live] = False
                break
            at, row = self._at[live], self._first[live] + index
            bad = np.zeros(len(live), np.int64)
            for field in self._fields:
                np.minimum(at, self._limit, out=at)
                if field.kind == "string":
                    raw, at = _varints(self._octets, at, bad)
                    bad |= raw & 1  # a negative length
                    begins[field.name][row] = at
                    at = at + (raw >> 1)
                    numbers[field.name][row] = at
                else:
                    numbers[field.name][row], at = self._number(field, at, bad)
            self._at[live] = at
            if bad.any():
                self._good[live[bad != 0]] = False
        # The list ends with an empty block; with it, or with empty bytes behind it, the record. A
        # position only ever grows: one that has left its record does not come back to its end.
        np.minimum(self._at, self._limit, out=self._at)
        self._good &= self._at + 1 + self._behind == self._ends
        for place in range(1 + self._behind):
            self._good &= self._octets[self._at + place] == 0
        return self._kept(numbers, begins)

    def _number(self, field: _Field, at: Integers, bad: Integers) -> tuple[Any, Integers]:
        """The numbers at these places and the places after them; marks those that are `bad`."""
        value: Any
        if field.kind == "long":
            raw, at = _varints(self._octets, at, bad)
            value = (raw >> 1) ^ -(raw & 1)
            bad |= ~((value >= field.least) & (value <= field.greatest))
            return value, at
        if field.kind == "double":
            value = self._doubles(at)
            bad |= ~((value >= field.least) & (value <= field.greatest))
            return value, at + 8
        branch = self._octets.take(at)
        some, value = branch == 2, self._doubles(at + 1)
        within = (value >= field.least) & (value <= field.greatest)
        bad |= ~((branch == 0) | (some & within))
        return np.where(some, value, np.nan), at + 1 + 8 * some

    def _doubles(self, at: Integers) -> Floats:
        octets = self._octets.take(at[:, None] + np.arange(8))
        found: Floats = octets.view("<f8")[:, 0]
        return found

    def _kept(self, numbers: dict[str, Any], begins: dict[str, Integers]) -> Columns:
        keep = np.repeat(self._good, self._counts)
        whole = bool(keep.all())
        data = pa.py_buffer(self._data)
        columns: dict[str, Column] = {}
        for field in self._fields:
            found = numbers[field.name] if whole else numbers[field.name][keep]
            if field.kind == "string":
                begin = begins[field.name] if whole else begins[field.name][keep]
                columns[field.name] = _texts(data, begin, found)
            else:
                columns[field.name] = found
        self._counts[~self._good] = 0
        return Columns(self._counts, columns)


def _texts(data: Any, begins: Integers, ends: Integers) -> Any:
    """The texts at these places, which are in order. Raises ArrowInvalid for what is no UTF-8.

    Arrow tells texts by where each ends and the next begins: what lies between two of ours is one
    too, and every other is taken.
    """
    places = np.zeros(2 * len(begins) + 1, np.int32)
    places[1::2], places[2::2] = begins, ends
    every = pa.Array.from_buffers(pa.string(), 2 * len(begins), [None, pa.py_buffer(places), data])
    found = every.take(pa.array(np.arange(1, 2 * len(begins), 2)))
    found.validate(full=True)
    return found


def _varints(octets: Octets, at: Integers, bad: Integers) -> tuple[Integers, Integers]:
    """The unsigned numbers at these places and the places after them.

    Of more than 56 bits none is read: those are marked `bad`.
    """
    raw = octets.take(at).astype(np.int64)
    at = at + 1
    more = np.flatnonzero(raw > 0x7F)
    if len(more):
        raw[more] &= 0x7F
        for shift in range(7, _BITS_MAX, 7):
            octet = octets.take(at[more]).astype(np.int64)
            at[more] += 1
            raw[more] |= (octet & 0x7F) << shift
            more = more[octet > 0x7F]
            if not len(more):
                break
        bad[more] = 1
    return raw, at
