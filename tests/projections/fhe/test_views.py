"""The read models of encrypted computation: every event, the statements it gives, no database."""

from types import ModuleType
from typing import Any, get_args

import msgspec
import pytest

from projections.fhe import FHE_JOBS, FHE_KEYS, fhe_jobs, fhe_key_uploads, fhe_keys
from projections.statements import Delete, Put, Set, Statement
from schemas.envelope import Actor, Envelope
from schemas.fhe import EVENTS
from schemas.fhe.evaluation_key import (
    EvaluationKeyDeleted,
    EvaluationKeyErased,
    EvaluationKeyRegistered,
)
from schemas.fhe.job import JobCancelled, JobFailed, JobProgressed, JobSubmitted, JobSucceeded
from schemas.fhe.key_upload import (
    DeclaredPart,
    KeyPieceReceived,
    KeyUploadAbandoned,
    KeyUploadCompleted,
    KeyUploadEvent,
    KeyUploadOpened,
)
from tests.commands.fhe.cases import FINGERPRINT, RELIN, ROTATE, cipher

AT = 1_700_000
KEY = {"tenant": "ten_1", "key_id": "ek_1"}
JOB = {"tenant": "ten_1", "job_id": "job_1"}


def envelope(stream: str) -> Envelope:
    return Envelope("evt_1", "x", "ten_1", stream, 1, AT, Actor("api_key", "key_9", "Root"))


REGISTERED = EvaluationKeyRegistered("ek_1", "ckks-n13", FINGERPRINT, "mine", [RELIN, ROTATE], 5)
SUBMITTED = JobSubmitted("job_1", "ek_1", "ckks-n13", "add", [cipher()], [RELIN], [], 5, 9)

# A receipt is for whoever reads the log, and how far a job is for whoever follows it live; uploads
# have a test of their own.
UNSHOWN = {EvaluationKeyErased, JobProgressed, *get_args(KeyUploadEvent)}
CASES: list[tuple[ModuleType, str, Any, Statement]] = [
    (
        fhe_keys,
        "fhe.evaluation_key/ek_1",
        REGISTERED,
        Put(
            KEY,
            {
                "params_id": "ckks-n13",
                "fingerprint": FINGERPRINT,
                "name": "mine",
                "size_bytes": RELIN.size_bytes + ROTATE.size_bytes,
                "parts": msgspec.json.encode([RELIN, ROTATE]).decode(),
                "created_at": 5,
                "created_by": "key_9",
                "generated": False,
                "last_used_at": None,
                "deleted_at": None,
            },
        ),
    ),
    (
        fhe_keys,
        "fhe.evaluation_key/ek_1",
        EvaluationKeyDeleted("ek_1", [RELIN.object], 7),
        Set(KEY, {"deleted_at": 7}),
    ),
    (fhe_keys, "fhe.job/job_1", SUBMITTED, Set(KEY, {"last_used_at": 5})),
    (
        fhe_jobs,
        "fhe.job/job_1",
        SUBMITTED,
        Put(
            JOB,
            {
                "status": "queued",
                "key_id": "ek_1",
                "params_id": "ckks-n13",
                "operation": "add",
                "created_at": 5,
                "created_by": "key_9",
                "deadline": 9,
                "finished_at": None,
                "result": None,
                "error_bound": None,
                "cpu_us": None,
                "reason": "",
                "message": "",
                "price_nanodollars": 0,
                "price_version": "",
            },
        ),
    ),
    (
        fhe_jobs,
        "fhe.job/job_1",
        JobSucceeded("ek_1", "ckks-n13", "add", cipher("out"), 1e-6, 300, 1, 7),
        Set(
            JOB,
            {
                "status": "succeeded",
                "finished_at": 7,
                "result": msgspec.json.encode(cipher("out")).decode(),
                "error_bound": 1e-6,
                "cpu_us": 300,
            },
        ),
    ),
    (
        fhe_jobs,
        "fhe.job/job_1",
        JobFailed("ek_1", "engine_failure", "died", 7),
        Set(
            JOB,
            {
                "status": "failed",
                "finished_at": 7,
                "reason": "engine_failure",
                "message": "died",
            },
        ),
    ),
    (
        fhe_jobs,
        "fhe.job/job_1",
        JobCancelled("job_1", "ek_1", 7),
        Set(JOB, {"status": "cancelled", "finished_at": 7}),
    ),
]
UPLOAD = {"tenant": "ten_1", "upload_id": "ku_1"}
OPENED = KeyUploadOpened("ckks-n13", "mine", [DeclaredPart("relin", 9)], 0, 5)
RECEIVED = KeyPieceReceived(0, ["a"], 9, RELIN, 6)
UPLOADS: list[tuple[Any, Statement, list[Statement]]] = [
    (
        OPENED,
        Put(
            UPLOAD,
            {
                "params_id": "ckks-n13",
                "name": "mine",
                "status": "open",
                "key_id": "",
                "opened_at": 5,
                "updated_at": 5,
            },
        ),
        [
            Put(
                {**UPLOAD, "part": 0},
                {
                    "kind": "relin",
                    "size_bytes": 9,
                    "received_bytes": 0,
                    "pieces": "[]",
                    "stored": None,
                },
            )
        ],
    ),
    (
        RECEIVED,
        Set(UPLOAD, {"updated_at": 6}),
        [
            Set(
                {**UPLOAD, "part": 0},
                {
                    "received_bytes": 9,
                    "pieces": '["a"]',
                    "stored": msgspec.json.encode(RELIN).decode(),
                },
            )
        ],
    ),
    (
        KeyUploadCompleted("ek_1", [RELIN.object], 0, 7),
        Set(UPLOAD, {"status": "completed", "key_id": "ek_1", "updated_at": 7}),
        [],
    ),
    (
        KeyUploadAbandoned("expired", 0, 7),
        Set(UPLOAD, {"status": "expired", "updated_at": 7}),
        [],
    ),
]


@pytest.mark.parametrize(("event", "upload", "parts"), UPLOADS)
def test_an_upload_has_a_row_and_each_of_its_parts(
    event: Any, upload: Statement, parts: list[Statement]
) -> None:
    about = envelope("fhe.key_upload/ku_1")
    assert list(fhe_key_uploads.reduce(event, about)) == [upload]
    assert list(fhe_key_uploads.reduce_parts(event, about)) == parts


@pytest.mark.parametrize(
    ("view", "stream", "event", "expected"), CASES, ids=lambda case: type(case).__name__
)
def test_each_event_gives_its_statement(
    view: ModuleType, stream: str, event: Any, expected: Statement
) -> None:
    assert list(view.reduce(event, envelope(stream))) == [expected]


def test_every_event_has_a_case_and_no_view_takes_anothers() -> None:
    assert {type(event) for _, _, event, _ in CASES} == set(EVENTS) - UNSHOWN
    events = {type(event): event for _, _, event, _ in CASES}
    for view in (FHE_KEYS, FHE_JOBS):
        taken = {kind for kind in events if view.reduce(events[kind], envelope("x/ek_1"))}
        own = {type(event) for module, _, event, _ in CASES if module.__name__.endswith(view.name)}
        assert taken == own


def test_no_statement_names_a_column_that_its_table_lacks() -> None:
    for module, _, _, statement in CASES:
        [view] = [view for view in (FHE_KEYS, FHE_JOBS) if module.__name__.endswith(view.name)]
        values = {} if isinstance(statement, Delete) else statement.values
        assert set(statement.key) == set(view.key)
        assert set(values) | set(statement.key) <= set(view.columns)
