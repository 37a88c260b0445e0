"""What a ClickHouse view declares is what its table and its inserts are."""

import pytest
from msgspec import Struct

from projections.batches import Place, RowBatch
from projections.clickhouse import INSTANT, TENANT, ClickHouseView, Row
from schemas.envelope import Actor, Envelope


class Noted(Struct, frozen=True, tag="platform.noted.v1"):
    notes: list[str]


def rows(event: Noted, envelope: Envelope) -> list[Row]:
    return [(envelope.tenant, note, envelope.time) for note in event.notes]


NOTES = ClickHouseView(
    name="notes",
    version=2,
    topic="audit",
    events=(Noted,),
    columns={"tenant": TENANT, "note": "String", "at": INSTANT},
    order_by=("tenant", "note"),
    rows=rows,
)


def envelope(time: int = 7) -> Envelope:
    return Envelope(
        "evt_1", "platform.noted.v1", "ten_1", "platform.note/1", 0, time, Actor("user", "u")
    )


def test_rows_carry_their_place_in_the_log() -> None:
    batch = RowBatch(NOTES)
    assert batch.add([Noted(["a", "b"])], [envelope()], [Place(3, 41)]) == 2
    assert dict(zip(NOTES.stored, batch.columns(), strict=True)) == {
        "tenant": ["ten_1", "ten_1"],
        "note": ["a", "b"],
        "at": [7, 7],
        "_partition": [3, 3],
        "_offset": [41, 41],
        "_index": [0, 1],
    }


def test_the_token_names_each_partitions_range() -> None:
    batch = RowBatch(NOTES)
    for partition, offset in ((2, 10), (0, 5), (2, 12), (2, 19)):
        batch.add([Noted(["x"])], [envelope()], [Place(partition, offset)])
    batch.add([Noted([])], [envelope()], [Place(1, 99)])
    assert batch.token == "audit:0:5-5,2:10-19"


def test_a_ragged_row_is_refused() -> None:
    batch = RowBatch(NOTES)
    batch.rows = [("ten_1", "a", 1, 0, 0)]
    with pytest.raises(ValueError, match="notes"):
        batch.columns()


def test_the_table_replaces_by_event_identity_and_remembers_tokens() -> None:
    ddl = NOTES.ddl()
    assert ddl.startswith("CREATE TABLE IF NOT EXISTS notes_v2 (")
    assert "ReplacingMergeTree(_offset)" in ddl
    assert "ORDER BY (tenant, note)" in ddl
    assert "non_replicated_deduplication_window" in ddl
