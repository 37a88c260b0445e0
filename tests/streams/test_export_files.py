"""The four formats: everything that was on the log is in the file, and the same file every time."""

import base64
import csv
import io
import json
from pathlib import Path
from typing import Any

import fastavro
import msgspec
import pyarrow.parquet
import pytest

from infra.clock import iso
from schemas.avro_derivation import derive
from schemas.codec import Codec
from streams.export_files import COLUMNS, FORMATS, Format, container_schema, open_writer
from streams.replay import Entry, decode
from tests.streams.records import START, FakeRecord, Sample, sample, sample_codec, sample_record

CODEC = sample_codec()


def _entries(codec: Codec = CODEC) -> list[Entry]:
    records = [sample_record(codec, number) for number in range(5)]
    records.append(FakeRecord(offset=5, value=b'{"command_id": "cmd_1"}'))
    records.append(FakeRecord(offset=6, value=b"\xffjunk", key=None))
    return [decode(record, codec) for record in records]


def _written(format: Format, entries: list[Entry], batch: int, path: Path) -> Path:
    target = path / f"out-{batch}.{format}"
    with target.open("wb") as file:
        writer = open_writer(format, file, list(CODEC.schemas.values()), "billing")
        for at in range(0, len(entries), batch):
            writer.write(entries[at : at + batch])
        writer.finish()
    return target


def _expected(number: int) -> dict[str, Any]:
    return {
        "position": f"billing:0:{number}",
        "type": "billing.sample_taken.v1",
        "tenant": "ten_1",
        "stream": f"billing.sample/{number % 3}",
        "id": f"evt_{number}",
        "actor_kind": "user",
        "actor_id": "usr_1",
        "actor_name": "Ada",
        "correlation_id": "req_1",
        "causation_id": "cmd_1",
        "key": "ten_1",
        "problem": "",
    }


def _json_sample(number: int) -> dict[str, Any]:
    fields = msgspec.to_builtins(sample(number))
    del fields["type"]
    return dict(fields)


@pytest.mark.parametrize("format", FORMATS)
def test_the_same_records_give_the_same_bytes(format: Format, tmp_path: Path) -> None:
    one = _written(format, _entries(), 1, tmp_path).read_bytes()
    all_at_once = _written(format, _entries(), 100, tmp_path).read_bytes()
    assert one == all_at_once


def test_jsonl_holds_every_record(tmp_path: Path) -> None:
    path = _written("jsonl", _entries(), 2, tmp_path)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(rows) == 7
    for number, row in enumerate(rows[:5]):
        assert _expected(number).items() <= row.items()
        assert row["version"] == number + 1
        assert row["time"] == iso(START + number * 1_000_000)
        assert row["data"] == _json_sample(number)
        assert row["data"]["blob"] == base64.b64encode(sample(number).blob).decode()
    assert rows[5]["data"] == {"command_id": "cmd_1"}
    assert rows[6]["data"] is None and rows[6]["problem"]
    assert base64.b64decode(rows[6]["raw"]) == b"\xffjunk"


def test_csv_holds_every_record(tmp_path: Path) -> None:
    text = _written("csv", _entries(), 2, tmp_path).read_bytes().decode()
    assert text.startswith(",".join([*COLUMNS, "data"]) + "\r\n")
    rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    assert len(rows) == 7
    for number, row in enumerate(rows[:5]):
        assert _expected(number).items() <= row.items()
        assert json.loads(row["data"]) == _json_sample(number)
    assert base64.b64decode(json.loads(rows[6]["data"])) == b"\xffjunk"


def test_parquet_holds_every_record_with_types(tmp_path: Path) -> None:
    table = pyarrow.parquet.read_table(_written("parquet", _entries(), 2, tmp_path))
    assert str(table.schema.field("time").type) == "timestamp[us, tz=UTC]"
    rows = table.to_pylist()
    assert len(rows) == 7
    for number, row in enumerate(rows[:5]):
        assert _expected(number).items() <= row.items()
        assert row["time"].timestamp() == 1_700_000_000 + number
        assert json.loads(row["data"]) == _json_sample(number)


def test_avro_keeps_every_type(tmp_path: Path) -> None:
    with _written("avro", _entries(), 2, tmp_path).open("rb") as file:
        rows = list(fastavro.reader(file))
    assert len(rows) == 7
    for number, row in enumerate(rows[:5]):
        assert isinstance(row, dict)
        assert _expected(number).items() <= row.items()
        assert msgspec.convert(row["data"], Sample) == sample(number)
    assert json.loads(rows[5]["data"]) == {"command_id": "cmd_1"}
    assert rows[6]["data"] == b"\xffjunk"


@pytest.mark.parametrize("format", FORMATS)
def test_an_export_of_nothing_is_a_valid_file(format: Format, tmp_path: Path) -> None:
    path = _written(format, [], 1, tmp_path)
    match format:
        case "jsonl":
            assert path.read_bytes() == b""
        case "csv":
            assert path.read_text().count("\n") == 1
        case "parquet":
            assert pyarrow.parquet.read_table(path).num_rows == 0
        case "avro":
            with path.open("rb") as file:
                assert list(fastavro.reader(file)) == []


def test_a_type_that_an_avro_file_does_not_declare_is_kept_as_json(tmp_path: Path) -> None:
    path = tmp_path / "out.avro"
    with path.open("wb") as file:
        writer = open_writer("avro", file, [], "billing")
        writer.write(_entries()[:1])
        writer.finish()
    with path.open("rb") as file:
        (row,) = fastavro.reader(file)
    assert json.loads(row["data"]) == _json_sample(0)


def test_nested_records_are_named_after_their_event() -> None:
    renamed = container_schema(derive(Sample))
    by_name = {field["name"]: field["type"] for field in renamed["fields"]}
    assert by_name["lines"]["items"]["name"] == "sample_taken_v1_Line"
    assert by_name["maybe"] == ["null", "sample_taken_v1_Line"]


def test_every_schema_fits_in_one_union() -> None:
    members = [container_schema(version.schema) for version in CODEC.schemas.values()]
    parsed = fastavro.parse_schema(
        {"type": "record", "name": "All", "fields": [{"name": "data", "type": members}]}
    )
    assert len(parsed["fields"][0]["type"]) == len(CODEC.schemas)


def test_parquet_writes_its_groups_at_fixed_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.tabular.GROUP_ROWS", 3)
    for batch in (1, 2, 100):
        file = pyarrow.parquet.ParquetFile(_written("parquet", _entries(), batch, tmp_path))
        groups = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
        assert groups == [3, 3, 1]


def test_large_rows_make_smaller_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.tabular.GROUP_BYTES", 1)
    file = pyarrow.parquet.ParquetFile(_written("parquet", _entries(), 100, tmp_path))
    assert file.num_row_groups == 7
