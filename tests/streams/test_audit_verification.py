"""`weir audit verify --file`: whatever is done to an export, the first break is named."""

import csv
import json
import random
from pathlib import Path
from typing import Any

import fastavro
import msgspec
import pyarrow
import pyarrow.parquet
import pytest
import typer
from typer.testing import CliRunner

from schemas.platform.audit import AuditRecorded
from schemas.platform.audit_chain import Link, seal
from streams.audit_verification import ChainReport, NotAnAuditExport, verify_file
from streams.cli import register
from streams.export import FileSummary, Manifest, summarize
from streams.export_files import FORMATS, Format, open_writer
from streams.replay import Filter, decode
from tests.streams.records import audit_chain, audit_log_record, sample_codec, sample_record

CODEC = sample_codec()
FIELDS = AuditRecorded.__struct_fields__


def _export(format: Format, records: list[AuditRecorded], folder: Path) -> Path:
    path = folder / f"audit.{format}"
    entries = [
        decode(audit_log_record(CODEC, record, 2 * offset), CODEC)
        for offset, record in enumerate(records)
    ]
    with path.open("wb") as file:
        writer = open_writer(format, file, list(CODEC.schemas.values()), "audit")
        writer.write(entries)
        writer.finish()
    return path


def _only(path: Path, **options: Any) -> ChainReport:
    (report,) = verify_file(path, **options).chains
    return report


def _changed(value: Any) -> Any:
    match value:
        case int():
            return value + 1
        case list():
            return []
        case _:
            return {"user": "system", "accepted": "refused"}.get(value, value + "x")


@pytest.mark.parametrize("format", FORMATS)
def test_an_export_as_written_holds(format: Format, tmp_path: Path) -> None:
    records = audit_chain(5)
    report = _only(_export(format, records, tmp_path))
    assert report == ChainReport("ten_1", 5, 1, Link(5, records[4].hash), None)


@pytest.mark.parametrize("format", FORMATS)
def test_the_chains_of_several_tenants_are_told_apart(format: Format, tmp_path: Path) -> None:
    one, two = audit_chain(3), audit_chain(4, "ten_2")
    mixed = [*one[:1], *two[:2], *one[1:], *two[2:]]
    reports = verify_file(_export(format, mixed, tmp_path)).chains
    assert [(item.tenant, item.records, item.broken) for item in reports] == [
        ("ten_1", 3, None),
        ("ten_2", 4, None),
    ]
    assert _only(_export(format, mixed, tmp_path), tenant="ten_2").records == 4


def _edit(path: Path, row: int, field: str, value: Any) -> None:
    """Change a field of one record in an export, as somebody with an editor would."""
    match path.suffix:
        case ".jsonl":
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            lines[row]["data"][field] = value
            path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        case ".csv":
            with path.open(newline="") as file:
                rows = list(csv.DictReader(file))
            rows[row]["data"] = json.dumps(json.loads(rows[row]["data"]) | {field: value})
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
        case ".parquet":
            table = pyarrow.parquet.read_table(path)
            rows = table.to_pylist()
            rows[row]["data"] = json.dumps(json.loads(rows[row]["data"]) | {field: value})
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, table.schema), path)
        case ".avro":
            with path.open("rb") as file:
                reader = fastavro.reader(file, return_record_name=True)
                schema, found = reader.writer_schema, list(reader)
            found[row]["data"][1][field] = value
            with path.open("wb") as file:
                fastavro.writer(file, schema, found)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("field", FIELDS)
def test_an_edited_field_is_named_with_its_record(
    format: Format, field: str, tmp_path: Path
) -> None:
    records = audit_chain(5)
    path = _export(format, records, tmp_path)
    value = _changed(getattr(records[2], field))
    _edit(path, 2, field, value)
    report = _only(path)
    assert report.broken is not None
    assert (report.records, report.broken.index) == (2, 2)
    assert report.broken.seq == (value if field == "seq" else 3)
    assert report.broken.position == "audit:0:4"
    assert report.broken.fault == ("other_tenant" if field == "tenant" else "edited")


def test_a_field_of_another_type_cannot_be_read(tmp_path: Path) -> None:
    path = _export("jsonl", audit_chain(3), tmp_path)
    _edit(path, 1, "seq", "two")
    report = _only(path)
    assert report.broken is not None
    assert (report.broken.seq, report.broken.fault) == (2, "unreadable")
    assert "$.seq" in report.broken.message


@pytest.mark.parametrize("format", ["jsonl", "csv", "parquet"])
def test_an_added_field_is_not_taken_for_vouched_for(format: Format, tmp_path: Path) -> None:
    path = _export(format, audit_chain(3), tmp_path)
    _edit(path, 1, "approved_by", "the board")
    report = _only(path)
    assert report.broken is not None
    assert (report.broken.index, report.broken.fault) == (1, "unreadable")
    assert "approved_by" in report.broken.message


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("gone", [0, 1, 3])
def test_a_deleted_record_is_a_gap(format: Format, gone: int, tmp_path: Path) -> None:
    records = audit_chain(5)
    del records[gone]
    report = _only(_export(format, records, tmp_path))
    assert report.broken is not None
    assert (report.broken.seq, report.broken.fault) == (gone + 2, "gap")


@pytest.mark.parametrize("format", FORMATS)
def test_swapped_and_inserted_records_are_found(format: Format, tmp_path: Path) -> None:
    first, second, third, fourth = audit_chain(4)
    swapped = _only(_export(format, [first, third, second, fourth], tmp_path))
    assert swapped.broken is not None and swapped.broken.seq == 3
    forged = seal(msgspec.structs.replace(third, actor_id="usr_evil"), second.hash)
    inserted = _only(_export(format, [first, second, forged, third, fourth], tmp_path))
    assert inserted.broken is not None
    assert (inserted.broken.index, inserted.broken.fault) == (3, "out_of_order")


def test_a_cut_off_end_shows_against_a_kept_link_only(tmp_path: Path) -> None:
    records = audit_chain(5)
    path = _export("jsonl", records[:3], tmp_path)
    assert _only(path).broken is None
    broken = _only(path, tenant="ten_1", seen=Link(5, records[4].hash)).broken
    assert broken is not None and (broken.seq, broken.fault) == (4, "truncated")


def test_a_window_of_a_chain_holds_when_it_is_said_to_be_one(tmp_path: Path) -> None:
    records = audit_chain(6)
    path = _export("jsonl", records[3:], tmp_path)
    broken = _only(path).broken
    assert broken is not None and broken.fault == "gap"
    report = _only(path, window=True)
    assert (report.records, report.first, report.broken) == (3, 4, None)


def _manifest(path: Path, files: list[FileSummary], start: str = "") -> None:
    manifest = Manifest(
        topic="audit",
        format="jsonl",
        from_=start,
        filter=Filter(),
        records=0,
        undecodable=0,
        types={},
        partitions=[],
        schemas=[],
        files=files,
    )
    path.write_bytes(msgspec.json.encode(manifest))


@pytest.mark.parametrize("name", ["manifest.json", "audit.jsonl.manifest.json"])
def test_a_file_that_is_not_its_manifests_is_told(name: str, tmp_path: Path) -> None:
    path = _export("jsonl", audit_chain(3), tmp_path)
    _manifest(tmp_path / name, [summarize(path, path.name)])
    assert verify_file(path).manifest_problem == ""
    _export("jsonl", audit_chain(4), tmp_path)
    verdict = verify_file(path)
    assert "its manifest says" in verdict.manifest_problem
    assert verdict.chains[0].broken is None


def test_a_manifest_with_a_beginning_makes_a_window(tmp_path: Path) -> None:
    path = _export("jsonl", audit_chain(6)[3:], tmp_path)
    _manifest(tmp_path / "manifest.json", [summarize(path, path.name)], start="2024-01-01")
    assert _only(path).broken is None


def test_what_is_no_audit_export_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "notes.txt"
    other.write_text("hello")
    with pytest.raises(NotAnAuditExport, match="ends in"):
        verify_file(other)
    for suffix in ("jsonl", "csv", "parquet", "avro"):
        junk = tmp_path / f"junk.{suffix}"
        junk.write_bytes(b"\x00junk\xff")
        with pytest.raises(NotAnAuditExport):
            verify_file(junk)


def test_an_export_of_another_topic_is_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "billing.jsonl"
    with path.open("wb") as file:
        writer = open_writer("jsonl", file, [], "billing")
        writer.write([decode(sample_record(CODEC, 1), CODEC)])
        writer.finish()
    report = _only(path)
    assert report.broken is not None and report.broken.fault == "unreadable"


def test_any_damage_to_a_record_is_noticed(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    lines = _export("jsonl", audit_chain(4), tmp_path).read_text().splitlines()
    kept = Link(4, json.loads(lines[3])["data"]["hash"])
    path = tmp_path / "damaged.jsonl"
    for _ in range(300):
        row = dice.randrange(4)
        line = lines[row]
        at = dice.randrange(line.index('"data":') + len('"data":'), len(line))
        damaged = line[:at] + dice.choice('x0 {}",') + line[at + 1 :]
        path.write_text("\n".join([*lines[:row], damaged, *lines[row + 1 :]]))
        try:
            same = json.loads(damaged)["data"] == json.loads(line)["data"]
        except ValueError:
            same = False
        try:
            noticed = any(chain.broken for chain in verify_file(path, "ten_1", kept).chains)
        except NotAnAuditExport:
            noticed = True
        assert noticed is not same, damaged


def _run(*arguments: str) -> tuple[int, str]:
    app = typer.Typer()
    register(app)
    result = CliRunner().invoke(app, ["audit", "verify", *arguments])
    return result.exit_code, result.output


def test_the_command_ends_with_0_and_the_head(tmp_path: Path) -> None:
    records = audit_chain(3)
    code, said = _run("--file", str(_export("csv", records, tmp_path)))
    assert code == 0
    assert said == f"ten_1: 3 records hold, head 3:{records[2].hash}\n"


def test_the_command_ends_with_1_and_the_break(tmp_path: Path) -> None:
    path = _export("jsonl", audit_chain(3), tmp_path)
    _edit(path, 1, "actor_id", "usr_evil")
    code, said = _run("--file", str(path))
    assert code == 1
    assert "ten_1: 1 records hold, then it BREAKS at record 2 at audit:0:2: edited" in said


def test_the_command_ends_with_1_when_there_is_nothing(tmp_path: Path) -> None:
    path = _export("jsonl", audit_chain(3), tmp_path)
    code, said = _run("--file", str(path), "--tenant", "ten_9")
    assert code == 1
    assert "no audit records of ten_9" in said


def test_a_kept_link_must_be_one_and_needs_a_tenant(tmp_path: Path) -> None:
    path = str(_export("jsonl", audit_chain(3), tmp_path))
    assert _run("--file", path, "--tenant", "ten_1", "--seen", "3:abc")[0] == 2
    assert _run("--file", path, "--seen", f"3:{'0' * 64}")[0] == 2
    code, said = _run("--file", path, "--tenant", "ten_1", "--seen", f"3:{'0' * 64}")
    assert code == 1 and "replaced" in said
