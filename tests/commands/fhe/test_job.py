"""Jobs: one end each, whatever workers report, and refusals before any worker is touched."""

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from commands.decider import ClearTimer, Context, Emit, Ref, SetTimer
from commands.fhe.evaluation_key import EvaluationKey, KeyDeleted, KeyNotFound
from commands.fhe.job import (
    DEADLINE_MICROS,
    DECIDER,
    CancelJob,
    CiphertextNotFound,
    ExpireJob,
    Input,
    Job,
    JobCommand,
    JobFinished,
    JobNotFound,
    KeyMismatch,
    KeyMissingRelin,
    LevelExhausted,
    RecordJobFailure,
    RecordJobResult,
    SubmitJob,
)
from commands.refusals import InvalidCommand, Refusal
from schemas.billing.usage import UsageRecorded
from schemas.fhe.job import JobCancelled, JobFailed, JobSubmitted, JobSucceeded, Operand, Operation
from schemas.fhe.parameters import ERROR_BOUND
from tests.commands.fhe.cases import KEY, RELIN, ROTATE, cipher, plain
from tests.given import HUMAN, NOW, Given

KEY_REF = Ref("fhe.evaluation_key", "ek_1")
RESULT = cipher("out", level=1)


def submit(*inputs: Input, operation: Operation = "multiply") -> SubmitJob:
    return SubmitJob("ek_1", operation, list(inputs))


def submitted(operands: list[Operand], own: list[str], operation: Operation = "multiply") -> Any:
    return JobSubmitted(
        "job_1", "ek_1", "ckks-n13", operation, operands, [RELIN], own, NOW, NOW + DEADLINE_MICROS
    )


STORED = [Input(cipher("a")), Input(cipher("b"))]
OPERANDS = [cipher("a"), cipher("b")]
SUBMITTED = submitted(OPERANDS, [operand.object for operand in OPERANDS])
SUCCEEDED = JobSucceeded("ek_1", "ckks-n13", "multiply", RESULT, ERROR_BOUND, 3_300, 1, NOW)
FAILED = JobFailed("ek_1", "engine_failure", "the engine died twice", NOW)
CANCELLED = JobCancelled("job_1", "ek_1", NOW)
USAGE = [
    Emit(
        "billing.usage",
        f"job_1.{meter}",
        UsageRecorded(
            usage_id=f"job_1.{meter}",
            meter=meter,
            quantity=quantity,
            occurred_at=NOW,
            source="fhe",
            resource="job_1",
        ),
    )
    for meter, quantity in (("fhe.operations", 1), ("fhe.cpu_microseconds", 3_300))
]
RECORD = RecordJobResult(RESULT, 3_300, 1)
RECORD_FAILURE = RecordJobFailure("engine_failure", "the engine died twice")


def a_job(*events: Any, key: EvaluationKey = KEY, states: dict[Ref, Any] | None = None) -> Given:
    return Given(DECIDER, *events, id="job_1", states={KEY_REF: key, **(states or {})})


def test_a_job_is_submitted_with_all_that_a_worker_needs() -> None:
    a_job().when(submit(*STORED)).then(SUBMITTED)
    sum_of_values = submit(Input(cipher("a")), Input(plain("v")), operation="add")
    expected = submitted(
        [cipher("a"), plain("v")], [cipher("a").object, plain("v").object], operation="add"
    )
    a_job().when(sum_of_values).then(expected)


def test_an_operand_may_be_the_result_of_an_earlier_job() -> None:
    source = {Ref("fhe.job", "job_0"): Job("succeeded", "ek_1", "ckks-n13", "add", RESULT)}
    command = submit(Input(source_job_id="job_0"), Input(cipher("b")))
    # The earlier result is not the job's own: it stays when the job is over.
    expected = submitted([RESULT, cipher("b")], [cipher("b").object])
    a_job(states=source).when(command).then(expected)


def test_the_same_submission_again_is_the_same_job() -> None:
    a_job(SUBMITTED).when(submit(*STORED)).then_quiet()
    a_job(SUBMITTED, SUCCEEDED).when(submit(*STORED)).then_quiet()


def test_submissions_that_cannot_succeed_are_refused() -> None:
    both = submit(*STORED)
    a_job(key=EvaluationKey()).when(both).then_refused(KeyNotFound)
    deleted = EvaluationKey(was_deleted=True)
    a_job(key=deleted).when(both).then_refused(KeyDeleted)
    rotation_only = msgspec.structs.replace(KEY, parts=[ROTATE])
    a_job(key=rotation_only).when(both).then_refused(KeyMissingRelin)
    lowest = submit(Input(cipher("a")), Input(cipher("b", level=2)))
    refusal = a_job().when(lowest).then_refused(LevelExhausted)
    assert refusal.details == {"level": 2, "depth": 2}
    a_job().when(submit(Input(cipher("a")))).then_refused(InvalidCommand)
    a_job().when(submit(Input(plain()), Input(plain()))).then_refused(InvalidCommand)


def test_an_addition_needs_neither_a_level_nor_a_relinearisation_key() -> None:
    rotation_only = msgspec.structs.replace(KEY, parts=[ROTATE])
    command = submit(Input(cipher("a", level=2)), Input(cipher("b")), operation="add")
    [event] = a_job(key=rotation_only).when(command).decided()
    assert isinstance(event, JobSubmitted)


def test_a_foreign_or_missing_result_is_refused() -> None:
    command = submit(Input(source_job_id="job_0"), Input(cipher("b")))
    ref = Ref("fhe.job", "job_0")
    a_job().when(command).then_refused(CiphertextNotFound)
    queued = {ref: Job("queued", "ek_1", "ckks-n13", "add")}
    a_job(states=queued).when(command).then_refused(CiphertextNotFound)
    others = {ref: Job("succeeded", "ek_2", "ckks-n13", "add", RESULT)}
    a_job(states=others).when(command).then_refused(KeyMismatch)


def test_a_result_is_recorded_and_counted_once() -> None:
    a_job(SUBMITTED).when(RECORD).then(SUCCEEDED, *USAGE).when(RECORD).then_quiet()
    a_job().when(RECORD).then_refused(JobNotFound)


def test_a_failure_is_recorded_once_and_never_after_a_result() -> None:
    a_job(SUBMITTED).when(RECORD_FAILURE).then(FAILED).when(RECORD_FAILURE).then_quiet()
    a_job(SUBMITTED, SUCCEEDED).when(RECORD_FAILURE).then_quiet()
    a_job().when(RECORD_FAILURE).then_refused(JobNotFound)


def test_a_job_is_cancelled_while_it_waits() -> None:
    a_job(SUBMITTED).when(CancelJob()).then(CANCELLED).when(CancelJob()).then_quiet()
    a_job(SUBMITTED, SUCCEEDED).when(CancelJob()).then_refused(JobFinished)
    a_job(SUBMITTED, FAILED).when(CancelJob()).then_refused(JobFinished)
    a_job().when(CancelJob()).then_refused(JobNotFound)


def test_a_late_report_of_a_cancelled_job_changes_nothing() -> None:
    a_job(SUBMITTED, CANCELLED).when(RECORD).then_quiet()


def test_a_job_that_nobody_does_fails_at_its_deadline() -> None:
    late = JobFailed("ek_1", "deadline_exceeded", "no worker was free in time", NOW)
    a_job(SUBMITTED).when(ExpireJob()).then(late)
    a_job(SUBMITTED, SUCCEEDED).when(ExpireJob()).then_quiet()
    a_job().when(ExpireJob()).then_refused(JobNotFound)


def test_the_deadline_is_a_timer_that_the_end_clears() -> None:
    assert DECIDER.timers(SUBMITTED, "job_1") == [
        SetTimer("deadline", NOW + DEADLINE_MICROS, ExpireJob())
    ]
    for event in (SUCCEEDED, FAILED, CANCELLED):
        assert DECIDER.timers(event, "job_1") == [ClearTimer("deadline")]


_COMMANDS = st.sampled_from([submit(*STORED), RECORD, RECORD_FAILURE, CancelJob(), ExpireJob()])


@settings(max_examples=100)
@given(st.lists(_COMMANDS, max_size=12))
def test_no_sequence_of_commands_ends_or_counts_a_job_twice(commands: list[JobCommand]) -> None:
    state, recorded, counted = DECIDER.initial, [], 0
    for command in commands:
        context = Context("ten_1", "job_1", HUMAN, NOW, "cmd_1", {KEY_REF: KEY}, {})
        try:
            events = DECIDER.decide(command, state, context)
        except Refusal:
            continue
        counted += sum(isinstance(event, Emit) for event in events)
        for event in events:
            if isinstance(event, Emit):
                continue
            recorded.append(event)
            state = DECIDER.evolve(state, event)
    assert len(recorded) <= 2
    assert [type(event) for event in recorded[:1]] in ([], [JobSubmitted])
    ended = state.status in ("succeeded", "failed", "cancelled")
    assert ended == (len(recorded) == 2)
    assert (state.result is not None) == (state.status == "succeeded")
    assert counted == (2 if state.status == "succeeded" else 0)
