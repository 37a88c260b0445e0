"""A tenant's own export: every record whole, the same bytes every time, and proof against edits."""

import csv
import json
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet
import pytest

from schemas.platform.audit import AuditRecorded
from schemas.platform.audit_chain import Link
from streams.audit_verification import verify_file
from streams.platform.trail_files import COLUMNS, SUFFIXES, NotARecord, TrailWriter
from streams.replay import Entry, decode
from tests.streams.records import audit_chain, audit_log_record, sample_codec, sample_record

CODEC = sample_codec()


def _entries(records: list[AuditRecorded]) -> list[Entry]:
    return [
        decode(audit_log_record(CODEC, record, offset), CODEC)
        for offset, record in enumerate(records)
    ]


def _written(
    format: str, records: list[AuditRecorded], folder: Path, batch: int = 2
) -> tuple[Path, TrailWriter]:
    path = folder / f"trail-{batch}{SUFFIXES[format]}"
    entries = _entries(records)
    with path.open("wb") as file:
        writer = TrailWriter(format, file, "ten_1")
        for at in range(0, len(entries), batch):
            writer.write(entries[at : at + batch])
        writer.finish()
    return path, writer


def _rows(path: Path) -> list[dict[str, Any]]:
    match path.suffix:
        case ".json":
            return list(json.loads(path.read_text())["records"])
        case ".jsonl":
            return [json.loads(line) for line in path.read_text().splitlines()]
        case ".csv":
            with path.open(newline="") as file:
                rows: list[dict[str, Any]] = list(csv.DictReader(file))
            for row in rows:
                row |= {name: json.loads(row[name]) for name in ("seq", "at", "events", "related")}
            return rows
        case _:
            return list(pyarrow.parquet.read_table(path).to_pylist())


@pytest.mark.parametrize("format", SUFFIXES)
def test_every_record_is_whole_and_the_file_proves_itself(format: str, tmp_path: Path) -> None:
    records = audit_chain(5)
    path, writer = _written(format, records, tmp_path)
    rows = _rows(path)
    assert [row.pop("position") for row in rows] == [f"audit:0:{n}" for n in range(5)]
    assert [msgspec.convert(row, AuditRecorded) for row in rows] == records
    (report,) = verify_file(path).chains
    assert (report.records, report.head, report.broken) == (5, Link(5, records[4].hash), None)
    assert (writer.first_seq, writer.last_seq, writer.broken) == (1, 5, "")
    assert writer.chain.head == Link(5, records[4].hash)


@pytest.mark.parametrize("format", SUFFIXES)
def test_the_same_records_give_the_same_bytes(format: str, tmp_path: Path) -> None:
    one, _ = _written(format, audit_chain(5), tmp_path, batch=1)
    all_at_once, _ = _written(format, audit_chain(5), tmp_path, batch=100)
    assert one.read_bytes() == all_at_once.read_bytes()


@pytest.mark.parametrize("format", SUFFIXES)
def test_nothing_to_export_is_a_valid_file(format: str, tmp_path: Path) -> None:
    path, writer = _written(format, [], tmp_path)
    assert _rows(path) == []
    assert (writer.first_seq, writer.last_seq) == (0, 0)


@pytest.mark.parametrize("format", SUFFIXES)
@pytest.mark.parametrize("field", AuditRecorded.__struct_fields__)
def test_an_edit_shows(format: str, field: str, tmp_path: Path) -> None:
    records = audit_chain(3)
    value = getattr(records[1], field)
    match value:
        case int():
            value += 1
        case list():
            value = []
        case _:
            value = {"user": "system", "accepted": "refused"}.get(value, value + "x")
    records[1] = msgspec.structs.replace(records[1], **{field: value})
    path, writer = _written(format, records, tmp_path)
    broken = [chain.broken for chain in verify_file(path, "ten_1").chains if chain.broken]
    if field == "tenant":  # the record is another's now, and missing in this chain
        assert [item.fault for item in broken] == ["gap"]
    else:
        assert [(item.index, item.fault) for item in broken] == [(1, "edited")]
    assert writer.broken


def test_a_window_of_the_chain_begins_anywhere(tmp_path: Path) -> None:
    path, writer = _written("json", audit_chain(5)[2:], tmp_path)
    assert (writer.first_seq, writer.last_seq, writer.broken) == (3, 5, "")
    assert verify_file(path, window=True).chains[0].broken is None


def test_what_is_no_audit_record_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "x").open("wb") as file:
        writer = TrailWriter("json", file, "ten_1")
        with pytest.raises(NotARecord, match="billing:0:1"):
            writer.write([decode(sample_record(CODEC, 1), CODEC)])


def test_the_columns_are_the_records_fields_and_its_position() -> None:
    assert ("position", *AuditRecorded.__struct_fields__) == COLUMNS
