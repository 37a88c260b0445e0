"""The audit chain: whatever is done to a record, the first break is named."""

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest

from schemas.platform.audit import AuditRecorded
from schemas.platform.audit_chain import (
    GENESIS_HASH,
    START,
    Break,
    ChainVerifier,
    Link,
    canonical_bytes,
    chain_hash,
    seal,
    verify,
)

EXAMPLES = Path(__file__).resolve().parents[3] / "schemas" / "examples"


def _record(seq: int, tenant: str = "ten_1", **changes: Any) -> AuditRecorded:
    fields: dict[str, Any] = {
        "tenant": tenant,
        "seq": seq,
        "at": 1_700_000_000_000_000 + seq,
        "actor_kind": "user",
        "actor_id": "usr_1",
        "actor_name": "Ada",
        "action": "approvals.create_room",
        "resource_type": "approvals.room",
        "resource_id": f"room_{seq}",
        "outcome": "accepted",
        "command_id": f"cmd_{seq}",
        "correlation_id": "req_1",
        "details": '{"name": "Zürich \\u0007"}',
        "events": ["approvals.room_created.v1"],
        "related": ["approvals.agent/agt_1"],
    }
    return AuditRecorded(**(fields | changes))


def _chain(length: int, tenant: str = "ten_1") -> list[AuditRecorded]:
    records: list[AuditRecorded] = []
    for seq in range(1, length + 1):
        prev = records[-1].hash if records else GENESIS_HASH
        records.append(seal(_record(seq, tenant), prev))
    return records


def _other(value: Any) -> Any:
    match value:
        case int():
            return value + 1
        case list():
            return [*value, "approvals.room_renamed.v1"]
        case _:
            return {"user": "system", "accepted": "refused"}.get(value, value + "x")


def test_a_chain_as_written_holds() -> None:
    records = _chain(5)
    assert [record.seq for record in records] == [1, 2, 3, 4, 5]
    assert records[0].prev_hash == GENESIS_HASH
    assert verify(records) is None
    assert verify([]) is None


def test_the_hash_is_sha256_of_canonical_json_without_the_hash() -> None:
    record = seal(_record(1), GENESIS_HASH)
    fields = msgspec.to_builtins(record)
    del fields["hash"], fields["type"]
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert canonical_bytes(record) == text.encode()
    assert record.hash == hashlib.sha256(text.encode()).hexdigest()
    assert chain_hash(_record(1), GENESIS_HASH) == record.hash


def test_every_character_is_written_as_rfc_8785_asks() -> None:
    # What json.dumps does: two-letter and \\u00xx escapes for controls, the rest as UTF-8.
    text = "".join(chr(code) for code in range(0x11000) if not 0xD800 <= code < 0xE000)
    record = _record(1, message=text)
    expected = json.dumps({"message": text}, ensure_ascii=False, separators=(",", ":"))[1:-1]
    assert expected.encode() in canonical_bytes(record)


def test_the_hash_of_a_known_record_never_changes() -> None:
    # Computed once and written down: a chain written today must verify in every later release.
    record = seal(_record(1), GENESIS_HASH)
    assert record.hash == "5675ac14f360ffa1b16d5f1e97ca6f211d6cdcf34f9a7d761b484dd22081c487"


@pytest.mark.parametrize("field", AuditRecorded.__struct_fields__)
def test_an_edited_field_is_found_at_its_record(field: str) -> None:
    records = _chain(5)
    edited = msgspec.structs.replace(records[2], **{field: _other(getattr(records[2], field))})
    broken = verify([*records[:2], edited, *records[3:]])
    assert broken is not None
    assert (broken.index, broken.fault) == (2, "other_tenant" if field == "tenant" else "edited")
    assert broken.seq == edited.seq


@pytest.mark.parametrize(
    "field", [name for name in AuditRecorded.__struct_fields__ if name not in ("hash", "prev_hash")]
)
def test_an_edited_and_sealed_again_record_breaks_the_chain_at_the_next(field: str) -> None:
    records = _chain(5)
    edited = msgspec.structs.replace(records[2], **{field: _other(getattr(records[2], field))})
    forged = seal(edited, records[1].hash)
    broken = verify([*records[:2], forged, *records[3:]])
    assert broken is not None
    match field:
        case "tenant":
            assert (broken.index, broken.seq, broken.fault) == (2, 3, "other_tenant")
        case "seq":
            assert (broken.index, broken.seq, broken.fault) == (2, 4, "gap")
        case _:
            assert (broken.index, broken.seq, broken.fault) == (3, 4, "wrong_prev_hash")


@pytest.mark.parametrize("gone", range(4))
def test_a_deleted_record_is_a_gap_at_the_next(gone: int) -> None:
    records = _chain(5)
    del records[gone]
    broken = verify(records)
    assert broken is not None
    assert (broken.index, broken.seq, broken.fault) == (gone, gone + 2, "gap")
    assert f"record {gone + 1} is missing" in broken.message


def test_several_deleted_records_are_named_as_a_range() -> None:
    records = _chain(9)
    broken = verify([*records[:2], *records[6:]])
    assert broken == Break(2, 7, "gap", "record 3..6 is missing before it")


def test_two_swapped_records_are_found() -> None:
    first, second, third, fourth = _chain(4)
    broken = verify([first, third, second, fourth])
    assert broken is not None
    assert (broken.index, broken.seq, broken.fault) == (1, 3, "gap")


def test_a_repeated_record_is_out_of_order() -> None:
    first, second, third = _chain(3)
    broken = verify([first, second, second, third])
    assert broken is not None
    assert (broken.index, broken.seq, broken.fault) == (2, 2, "out_of_order")


def test_an_inserted_record_is_found_at_itself_or_at_the_next() -> None:
    records = _chain(4)
    unsealed = verify([*records[:2], _record(3), *records[2:]])
    assert unsealed is not None and (unsealed.index, unsealed.fault) == (2, "edited")
    sealed = seal(_record(3, command_id="cmd_forged"), records[1].hash)
    inserted = verify([*records[:2], sealed, *records[2:]])
    assert inserted is not None
    assert (inserted.index, inserted.seq, inserted.fault) == (3, 3, "out_of_order")


def test_a_record_of_another_tenant_does_not_fit() -> None:
    mine, theirs = _chain(3), _chain(3, "ten_2")
    broken = verify([mine[0], theirs[1], mine[2]])
    assert broken is not None
    assert (broken.index, broken.fault) == (1, "other_tenant")


def test_a_cut_off_tail_shows_against_a_kept_link_only() -> None:
    records = _chain(5)
    kept = Link(5, records[4].hash)
    assert verify(records, seen=kept) is None
    assert verify(records[:3]) is None
    broken = verify(records[:3], seen=kept)
    assert broken is not None and (broken.seq, broken.fault) == (4, "truncated")
    assert verify([], seen=kept) is not None


def test_a_chain_rewritten_from_a_record_on_shows_against_a_kept_link() -> None:
    records = _chain(5)
    rewritten = records[:2]
    for seq in range(3, 7):
        rewritten.append(seal(_record(seq, actor_id="usr_evil"), rewritten[-1].hash))
    assert verify(rewritten) is None
    broken = verify(rewritten, seen=Link(5, records[4].hash))
    assert broken is not None and (broken.index, broken.seq, broken.fault) == (4, 5, "replaced")


def test_a_window_verifies_from_a_link_or_on_trust() -> None:
    records = _chain(6)
    assert verify(records[3:], after=Link(3, records[2].hash)) is None
    assert verify(records[3:], after=None) is None
    assert verify(records[3:], after=START) is not None
    broken = verify(records[3:], after=Link(3, records[1].hash))
    assert broken is not None and broken.fault == "wrong_prev_hash"


def test_a_break_names_the_position_and_the_good_part() -> None:
    records = _chain(3)
    verifier = ChainVerifier("ten_1")
    assert verifier.check(records[0], "audit:0:7") is None
    broken = verifier.check(records[2], "audit:0:9")
    assert broken is not None and broken.position == "audit:0:9"
    assert verifier.head == Link(1, records[0].hash)
    assert verifier.verified == 1


def test_any_random_damage_is_noticed() -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    for _ in range(300):
        records = _chain(dice.randint(2, 8))
        kept = Link(len(records), records[-1].hash)
        damaged = list(records)
        match dice.choice(["delete", "swap", "insert", "edit"]):
            case "delete":
                del damaged[dice.randrange(len(damaged))]
            case "swap":
                one, two = dice.sample(range(len(damaged)), 2)
                damaged[one], damaged[two] = damaged[two], damaged[one]
            case "insert":
                damaged.insert(dice.randrange(len(damaged)), dice.choice(damaged))
            case "edit":
                place = dice.randrange(len(damaged))
                field = dice.choice(AuditRecorded.__struct_fields__)
                value = _other(getattr(damaged[place], field))
                damaged[place] = msgspec.structs.replace(damaged[place], **{field: value})
        assert verify(damaged, seen=kept) is not None, [record.seq for record in damaged]


def test_the_examples_are_a_chain() -> None:
    files = (EXAMPLES / "platform.audit_recorded.v1").glob("*.json")
    records = [msgspec.json.decode(file.read_bytes(), type=AuditRecorded) for file in files]
    assert len(records) == 2
    assert verify(sorted(records, key=lambda record: record.seq)) is None
