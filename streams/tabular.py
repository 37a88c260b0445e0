"""Rows as csv and parquet, for every file that is made from the log."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import pyarrow
import pyarrow.parquet

GROUP_ROWS = 10_000
GROUP_BYTES = 16 * 1024 * 1024


def csv_lines(rows: Sequence[Sequence[Any]]) -> bytes:
    """RFC 4180: CRLF, quotes where needed."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


class ParquetRows:
    """Writes rows to an open file. Holds at most GROUP_ROWS of them or about GROUP_BYTES."""

    def __init__(self, file: BinaryIO, schema: pyarrow.Schema) -> None:
        self._schema = schema
        self._writer = pyarrow.parquet.ParquetWriter(file, schema, compression="zstd")
        self._rows: list[Mapping[str, Any]] = []
        self._bytes = 0

    def add(self, row: Mapping[str, Any], size_bytes: int) -> None:
        """Add a row of about this size."""
        self._rows.append(row)
        self._bytes += size_bytes
        if len(self._rows) >= GROUP_ROWS or self._bytes >= GROUP_BYTES:
            self._flush()

    def finish(self) -> None:
        """Write what is held back, and the format's end; leaves the file open."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(pyarrow.Table.from_pylist(self._rows, self._schema))
            self._rows, self._bytes = [], 0
