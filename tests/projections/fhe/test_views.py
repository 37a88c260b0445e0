"""The read models of encrypted computation: every event, the statements it gives, no database."""

from types import ModuleType
from typing import Any

import msgspec
import pytest

from projections.fhe import VIEWS, fhe_jobs, fhe_keys
from projections.statements import Delete, Put, Set, Statement
from schemas.envelope import Actor, Envelope
from schemas.fhe import EVENTS
from schemas.fhe.evaluation_key import EvaluationKeyDeleted, EvaluationKeyRegistered
from schemas.fhe.job import JobCancelled, JobFailed, JobProgressed, JobSubmitted, JobSucceeded
from tests.commands.fhe.cases import FINGERPRINT, RELIN, ROTATE, cipher

AT = 1_700_000
KEY = {"tenant": "ten_1", "key_id": "ek_1"}
JOB = {"tenant": "ten_1", "job_id": "job_1"}


def envelope(stream: str) -> Envelope:
    return Envelope("evt_1", "x", "ten_1", stream, 1, AT, Actor("api_key", "key_9", "Root"))


REGISTERED = EvaluationKeyRegistered("ek_1", "ckks-n13", FINGERPRINT, "mine", [RELIN, ROTATE], 5)
SUBMITTED = JobSubmitted("job_1", "ek_1", "ckks-n13", "add", [cipher()], [RELIN], [], 5, 9)

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
            },
        ),
    ),
    (
        fhe_keys,
        "fhe.evaluation_key/ek_1",
        EvaluationKeyDeleted("ek_1", [RELIN.object], 7),
        Delete(KEY),
    ),
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


@pytest.mark.parametrize(
    ("view", "stream", "event", "expected"), CASES, ids=lambda case: type(case).__name__
)
def test_each_event_gives_its_statement(
    view: ModuleType, stream: str, event: Any, expected: Statement
) -> None:
    assert list(view.reduce(event, envelope(stream))) == [expected]


def test_every_event_has_a_case_and_no_view_takes_anothers() -> None:
    # How far a job is, is told and not looked up.
    assert {type(event) for _, _, event, _ in CASES} == set(EVENTS) - {JobProgressed}
    for view in VIEWS:
        taken = [event for _, _, event, _ in CASES if view.reduce(event, envelope("x/ek_1"))]
        own = [event for module, _, event, _ in CASES if module.__name__.endswith(view.name)]
        assert taken == own


def test_no_statement_names_a_column_that_its_table_lacks() -> None:
    for module, _, _, statement in CASES:
        [view] = [view for view in VIEWS if module.__name__.endswith(view.name)]
        values = {} if isinstance(statement, Delete) else statement.values
        assert set(statement.key) == set(view.key)
        assert set(values) | set(statement.key) <= set(view.columns)
