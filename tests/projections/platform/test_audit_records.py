"""The audit trail in ClickHouse: rows as values, and what its queries find."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from infra.clickhouse import ClickHouse
from projections.batches import Place, RowBatch
from projections.platform.audit_records import (
    AUDIT_RECORDS,
    AuditFilter,
    count_audit,
    list_audit,
    rows,
)
from schemas.envelope import SYSTEM, Envelope
from schemas.platform.audit import AuditRecorded
from tests.streams.records import START, audit_chain, audit_record

SECOND = 1_000_000


def _envelope(record: AuditRecorded) -> Envelope:
    return Envelope(
        id="aud_1",
        type="platform.audit_recorded.v1",
        tenant=record.tenant,
        stream=f"platform.audit/{record.tenant}",
        version=record.seq,
        time=record.at,
        actor=SYSTEM,
    )


def test_a_record_is_one_row_in_the_order_of_the_columns() -> None:
    record = audit_chain(1)[0]
    (row,) = rows(record, _envelope(record))
    assert dict(zip(AUDIT_RECORDS.columns, row, strict=True)) == {
        name: getattr(record, name) for name in AuditRecorded.__struct_fields__
    }


def test_the_columns_are_the_fields_of_the_record() -> None:
    assert set(AUDIT_RECORDS.columns) == set(AuditRecorded.__struct_fields__)


@pytest.fixture
async def clickhouse(tmp_path: Path) -> AsyncIterator[ClickHouse]:
    """An engine with three tenants' trails."""
    engine = ClickHouse(f"chdb://{tmp_path / 'clickhouse'}")
    await engine.start()
    await engine.command(AUDIT_RECORDS.ddl())
    batch = RowBatch(AUDIT_RECORDS)
    for offset, record in enumerate([*TRAIL, *audit_chain(3, "ten_2")]):
        batch.add([record], [_envelope(record)], [Place(0, offset)])
    for turn in range(2):  # the second time under another token: replaced, not doubled
        await engine.insert(
            AUDIT_RECORDS.table,
            AUDIT_RECORDS.stored,
            AUDIT_RECORDS.types,
            batch.columns(),
            token=f"turn {turn}",
        )
    yield engine
    await engine.stop()


TRAIL = [
    audit_record(1, resource_id="room_1", related=[]),
    audit_record(
        2,
        action="approvals.create_check_in",
        actor_kind="agent",
        actor_id="agt_1",
        resource_type="approvals.check_in",
        resource_id="ci_1",
        related=["approvals.agent/agt_1", "approvals.room/room_1"],
        events=["approvals.check_in_created.v1"],
        details='{"action": "deploy \\u0000 it"}',
    ),
    audit_record(
        3,
        action="approvals.approve_check_in",
        resource_type="approvals.check_in",
        resource_id="ci_1",
        related=["approvals.room/room_1", "approvals.trust/agt_1-room_1"],
        outcome="refused",
        code="conflict",
        message="it's been decided; 'quoted' \\ ünï",
        events=[],
    ),
    audit_record(4, actor_kind="system", actor_id="weir", resource_id="room_2", related=[]),
    audit_record(
        5,
        action="billing.record_usage",
        actor_kind="api_key",
        actor_id="room_1",
        resource_type="billing.account",
        resource_id="room_1",
        related=[],
        events=["billing.usage_recorded.v1"],
    ),
]


async def _seqs(clickhouse: ClickHouse, **wanted: Any) -> list[int]:
    found = await list_audit(clickhouse, "ten_1", AuditFilter(**wanted), limit=100)
    assert await count_audit(clickhouse, "ten_1", AuditFilter(**wanted)) == len(found)
    return [record.seq for record in found]


async def test_what_is_read_back_is_what_was_recorded(clickhouse: ClickHouse) -> None:
    found = await list_audit(clickhouse, "ten_1", limit=100)
    assert found == TRAIL[::-1]


@pytest.mark.parametrize(
    ("wanted", "seqs"),
    [
        ({}, [5, 4, 3, 2, 1]),
        ({"since": START + 3 * SECOND}, [5, 4, 3]),
        ({"until": START + 3 * SECOND}, [2, 1]),
        ({"since": START + 2 * SECOND, "until": START + 4 * SECOND}, [3, 2]),
        ({"actor_kinds": ("agent",)}, [2]),
        ({"actor_kinds": ("agent", "system")}, [4, 2]),
        ({"actor_id": "usr_1"}, [3, 1]),
        ({"action": "approvals.create_room"}, [4, 1]),
        ({"action": "create_room"}, [4, 1]),
        ({"action": "room"}, []),
        ({"event": "approvals.check_in_created.v1"}, [2]),
        ({"outcome": "refused"}, [3]),
        ({"about": ("approvals.room/room_1",)}, [3, 2, 1]),
        ({"about": ("approvals.room/room_1", "approvals.room/room_2")}, [4, 3, 2, 1]),
        ({"about_or_by": "approvals.agent/agt_1"}, [2]),
        ({"about_or_by": "approvals.agent/usr_1"}, [3, 1]),
        ({"action": "x' OR 1 = 1 --"}, []),
    ],
)
async def test_filters(clickhouse: ClickHouse, wanted: dict[str, Any], seqs: list[int]) -> None:
    assert await _seqs(clickhouse, **wanted) == seqs


async def test_pages_by_cursor_and_by_offset(clickhouse: ClickHouse) -> None:
    first = await list_audit(clickhouse, "ten_1", limit=2)
    assert [record.seq for record in first] == [5, 4]
    second = await list_audit(clickhouse, "ten_1", limit=2, before=4)
    assert [record.seq for record in second] == [3, 2]
    assert second == await list_audit(clickhouse, "ten_1", limit=2, offset=2)
    assert await list_audit(clickhouse, "ten_1", limit=2, before=1) == []


async def test_another_tenants_records_are_not_there(clickhouse: ClickHouse) -> None:
    found = await list_audit(clickhouse, "ten_2", limit=100)
    assert [record.tenant for record in found] == ["ten_2"] * 3
    assert await list_audit(clickhouse, "ten_3", limit=100) == []
    assert await count_audit(clickhouse, "ten_3") == 0


def test_a_record_survives_the_way_there_and_back() -> None:
    for record in TRAIL:
        assert msgspec.convert(msgspec.to_builtins(record), AuditRecorded) == record
