"""An upload in parts: opened within limits, sent in order, completed as one key, or given up."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands.billing.account_state import Account, EvaluationKeysExhausted
from commands.decider import Claim, ClearTimer, Emit, Ref, Release, SetTimer
from commands.fhe.evaluation_key import STREAM as KEY_STREAM
from commands.fhe.evaluation_key import EvaluationKey
from commands.fhe.key_upload import (
    DECIDER,
    PATIENCE_MICROS,
    UPLOADS_MAX,
    CancelKeyUpload,
    CompleteKeyUpload,
    ExpireKeyUpload,
    HashMismatch,
    KeyUploadEnded,
    KeyUploadNotFound,
    KeyUploadsExhausted,
    OffsetMismatch,
    OpenKeyUpload,
    PartMissing,
    RecordKeyPiece,
)
from commands.refusals import ActorForbidden, InvalidCommand
from schemas.billing.account import ACCOUNT_ID, STREAM, EvaluationKeyAdmitted
from schemas.envelope import SYSTEM, Actor
from schemas.fhe.evaluation_key import EvaluationKeyRegistered, StoredPart
from schemas.fhe.key_upload import (
    DeclaredPart,
    KeyPieceReceived,
    KeyUploadAbandoned,
    KeyUploadCompleted,
    KeyUploadOpened,
)
from schemas.fhe.parameters import KEY_BYTES_MAX
from tests.commands.fhe.cases import FINGERPRINT
from tests.given import HUMAN, NOW, Given

ID = "ku_1"
PARTS = [DeclaredPart("relin", 10), DeclaredPart("rotate", 20)]
OPEN = OpenKeyUpload("ckks-n13", "mine", PARTS)
OPENED = KeyUploadOpened("ckks-n13", "mine", PARTS, 0, NOW)
RELIN = StoredPart("relin", "k/relin", "aa" * 32, 10)
ROTATE = StoredPart("rotate", "k/rotate", "bb" * 32, 20, [1])
WHOLE = (
    KeyPieceReceived(0, ["a"], 10, RELIN, NOW),
    KeyPieceReceived(1, ["b"], 20, ROTATE, NOW),
)
COMPLETE = CompleteKeyUpload("ek_1", FINGERPRINT, [RELIN.sha256, ROTATE.sha256])
COMPLETED = KeyUploadCompleted("ek_1", [RELIN.object, ROTATE.object], 0, NOW)
REGISTERED = EvaluationKeyRegistered(
    "ek_1", "ckks-n13", FINGERPRINT, "mine", [RELIN, ROTATE], NOW, is_counted=True
)
ADMITTED = Emit(STREAM, ACCOUNT_ID, EvaluationKeyAdmitted(key_id="ek_1", live=1))


def upload(*events: Any, actor: Actor = HUMAN, taken: int = 0, live: bool = False) -> Given:
    found = {("fhe.key_upload_slot", str(slot)): f"ku_{slot + 10}" for slot in range(taken)}
    states = {Ref(KEY_STREAM, "ek_1"): EvaluationKey(is_live=live)}
    return Given(DECIDER, *events, id=ID, actor=actor, states=states, found=found)


def piece(offset: int, size: int, stored: StoredPart | None = None, part: int = 0) -> Any:
    return RecordKeyPiece(part, offset, size, f"o{offset}", stored)


def test_an_upload_is_opened_once() -> None:
    upload().when(OPEN).then(OPENED)
    upload(OPENED).when(OPEN).then_quiet()


@pytest.mark.parametrize(
    "fields",
    [
        {"params_id": "ckks-n99"},
        {"parts": []},
        {"parts": [*PARTS, PARTS[0]]},
        {"parts": [DeclaredPart("relin", 0)]},
        {"parts": [DeclaredPart("relin", KEY_BYTES_MAX + 1)]},
        {"parts": [DeclaredPart(f"gal{n}", KEY_BYTES_MAX) for n in range(38)]},
        {"parts": [DeclaredPart(f"gal{n}", 1) for n in range(65)]},
    ],
)
def test_what_can_be_no_key_is_refused(fields: dict[str, Any]) -> None:
    upload().when(msgspec.structs.replace(OPEN, **fields)).then_refused(InvalidCommand)


def test_a_tenant_has_so_many_at_a_time() -> None:
    upload(taken=UPLOADS_MAX).when(OPEN).then_refused(KeyUploadsExhausted)
    assert DECIDER.claims(OPENED, ID) == [Claim("fhe.key_upload_slot", "0")]
    for end in (COMPLETED, KeyUploadAbandoned("expired", 0, NOW)):
        assert DECIDER.claims(end, ID) == [Release("fhe.key_upload_slot", "0")]
        assert DECIDER.timers(end, ID) == [ClearTimer("expiry")]


def test_the_timer_starts_anew_with_each_piece() -> None:
    later = KeyPieceReceived(0, ["a"], 4, None, NOW + 5)
    assert DECIDER.timers(later, ID) == [
        SetTimer("expiry", NOW + 5 + PATIENCE_MICROS, ExpireKeyUpload())
    ]


def test_pieces_come_in_order_and_a_part_may_begin_anew() -> None:
    it = upload(OPENED)
    it.when(piece(0, 4)).then(KeyPieceReceived(0, ["o0"], 4, None, NOW))
    refusal = it.when(piece(5, 2)).then_refused(OffsetMismatch)
    assert refusal.details == {"offset": 4}
    it.when(piece(4, 6, RELIN)).then(KeyPieceReceived(0, ["o0", "o4"], 10, RELIN, NOW))
    it.when(piece(0, 3)).then(KeyPieceReceived(0, ["o0"], 3, None, NOW))


def test_pieces_that_do_not_fit() -> None:
    it = upload(OPENED)
    it.when(piece(0, 11, RELIN)).then_refused(InvalidCommand)
    it.when(piece(0, 10)).then_refused(InvalidCommand)  # the last, and not stored
    it.when(piece(0, 9, RELIN)).then_refused(InvalidCommand)
    it.when(piece(0, 1, part=2)).then_refused(KeyUploadNotFound)
    upload().when(piece(0, 1)).then_refused(KeyUploadNotFound)


def test_the_parts_become_a_key_in_the_same_decision() -> None:
    registered = Emit(KEY_STREAM, "ek_1", REGISTERED)
    upload(OPENED, *WHOLE).when(COMPLETE).then(COMPLETED, registered, ADMITTED)
    upload(OPENED, *WHOLE, COMPLETED, live=True).when(COMPLETE).then_quiet()


def test_one_key_more_than_the_plan_allows_leaves_the_upload_as_it_is() -> None:
    it = upload(OPENED, *WHOLE)
    it.states[Ref(STREAM, ACCOUNT_ID)] = Account(plan_code="trial", evaluation_keys=2)
    it.when(COMPLETE).then_refused(EvaluationKeysExhausted)


def test_a_key_that_is_live_already_keeps_its_own_objects() -> None:
    surplus = KeyUploadCompleted("ek_1", [], 0, NOW)
    upload(OPENED, *WHOLE, live=True).when(COMPLETE).then(surplus)


def test_what_is_not_there_or_not_what_it_should_be_is_no_key() -> None:
    refusal = upload(OPENED, WHOLE[0]).when(COMPLETE).then_refused(PartMissing)
    assert refusal.details == {"parts": [1]}
    other = msgspec.structs.replace(COMPLETE, hashes=[RELIN.sha256, "cc" * 32])
    refusal = upload(OPENED, *WHOLE).when(other).then_refused(HashMismatch)
    assert refusal.details == {"parts": [1]}


def test_an_upload_is_given_up_by_its_client_or_its_timer() -> None:
    upload(OPENED).when(CancelKeyUpload()).then(KeyUploadAbandoned("cancelled", 0, NOW))
    it = upload(OPENED, actor=SYSTEM)
    it.when(ExpireKeyUpload()).then(KeyUploadAbandoned("expired", 0, NOW))
    it.when(ExpireKeyUpload()).then_quiet()
    it.when(CancelKeyUpload()).then_quiet()
    it.when(piece(0, 1)).then_refused(KeyUploadNotFound)
    upload(OPENED).when(ExpireKeyUpload()).then_refused(ActorForbidden)


def test_a_complete_upload_takes_nothing_more() -> None:
    done = upload(OPENED, *WHOLE, COMPLETED, actor=SYSTEM)
    done.when(ExpireKeyUpload()).then_quiet()
    done.when(CancelKeyUpload()).then_refused(KeyUploadEnded)
    done.when(piece(0, 1)).then_refused(KeyUploadEnded)


@given(st.lists(st.tuples(st.integers(0, 10), st.integers(1, 10)), max_size=30))
def test_a_part_never_has_a_hole_nor_more_than_it_should(pieces: list[tuple[int, int]]) -> None:
    it, length = upload(OPENED), 0
    for offset, size in pieces:
        whole = RELIN if offset + size == 10 else None
        try:
            (event,) = it.when(piece(offset, size, whole)).decided()
        except (OffsetMismatch, InvalidCommand):
            continue
        assert offset in (0, length)
        it.state = DECIDER.evolve(it.state, event)
        length = offset + size
        assert it.state.parts[0].received_bytes == length <= 10
        assert (it.state.parts[0].stored is not None) == (length == 10)
