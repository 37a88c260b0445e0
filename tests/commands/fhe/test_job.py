"""Jobs: one end each, whatever workers report, and refusals before any worker is touched."""

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from commands.billing.account import Account, BudgetCapReached
from commands.billing.account import evolve as evolve_account
from commands.decider import ClearTimer, Context, Emit, Ref, SetTimer
from commands.fhe.evaluation_key import EvaluationKey, KeyNotFound
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
from commands.fhe.pricing import price_list_at
from commands.refusals import InvalidCommand, Refusal
from schemas.billing.account import (
    Balance,
    ChargeCommitted,
    ChargeReleased,
    ChargeReserved,
    SpendingCap,
)
from schemas.billing.usage import UsageRecorded
from schemas.billing.window import window_of
from schemas.fhe.job import JobCancelled, JobFailed, JobSubmitted, JobSucceeded, Operand, Operation
from schemas.fhe.parameters import ERROR_BOUND
from tests.commands.fhe.cases import KEY, RELIN, ROTATE, cipher, plain
from tests.given import HUMAN, NOW, Given

KEY_REF = Ref("fhe.evaluation_key", "ek_1")
ACCOUNT_REF = Ref("billing.account", "account")
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
PRICES = price_list_at(NOW)
ADD, MULTIPLY = (PRICES.price(operation, "ckks-n13") for operation in ("add", "multiply"))
DAY, MONTH = window_of("day", NOW), window_of("month", NOW)
RECORD = RecordJobResult(RESULT, 3_300, 1)
RECORD_FAILURE = RecordJobFailure("engine_failure", "the engine died twice")


def a_job(*events: Any, key: EvaluationKey = KEY, states: dict[Ref, Any] | None = None) -> Given:
    return Given(DECIDER, *events, id="job_1", states={KEY_REF: key, **(states or {})})


def priced(job: Any, amount: int) -> list[Any]:
    """The same job with its price, and what is set aside for it."""
    balance = Balance(amount, DAY.start, 0, MONTH.start, 0)
    reserved = ChargeReserved(
        charge_id="job_1", amount=amount, price_version=PRICES.version, balance=balance
    )
    job = msgspec.structs.replace(job, price_nanodollars=amount, price_version=PRICES.version)
    return [job, Emit("billing.account", "account", reserved)]


def test_a_job_is_submitted_with_all_that_a_worker_needs() -> None:
    a_job().when(submit(*STORED)).then(*priced(SUBMITTED, MULTIPLY))
    sum_of_values = submit(Input(cipher("a")), Input(plain("v")), operation="add")
    expected = submitted(
        [cipher("a"), plain("v")], [cipher("a").object, plain("v").object], operation="add"
    )
    a_job().when(sum_of_values).then(*priced(expected, ADD))


def test_an_operand_may_be_the_result_of_an_earlier_job() -> None:
    source = {Ref("fhe.job", "job_0"): Job("succeeded", "ek_1", "ckks-n13", "add", RESULT)}
    command = submit(Input(source_job_id="job_0"), Input(cipher("b")))
    # The earlier result is not the job's own: it stays when the job is over.
    expected = submitted([RESULT, cipher("b")], [cipher("b").object])
    a_job(states=source).when(command).then(*priced(expected, MULTIPLY))


def test_the_same_submission_again_is_the_same_job() -> None:
    a_job(SUBMITTED).when(submit(*STORED)).then_quiet()
    a_job(SUBMITTED, SUCCEEDED).when(submit(*STORED)).then_quiet()


def test_submissions_that_cannot_succeed_are_refused() -> None:
    both = submit(*STORED)
    a_job(key=EvaluationKey()).when(both).then_refused(KeyNotFound)
    deleted = EvaluationKey(was_deleted=True)
    a_job(key=deleted).when(both).then_refused(KeyNotFound)
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
    event, _ = a_job(key=rotation_only).when(command).decided()
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


def paid_job() -> tuple[Any, Account]:
    """A job that was submitted at a price, and the account that it is reserved on."""
    job, reserved = priced(SUBMITTED, MULTIPLY)
    return job, evolve_account(Account(), reserved.event)


def test_a_result_is_paid_for_in_its_own_transaction_and_once() -> None:
    job, account = paid_job()
    balance = Balance(0, DAY.start, MULTIPLY, MONTH.start, MULTIPLY)
    committed = ChargeCommitted(charge_id="job_1", amount=MULTIPLY, balance=balance)
    given_ = a_job(job, states={ACCOUNT_REF: account}).when(RECORD)
    events = given_.decided()
    assert events[-1] == Emit("billing.account", "account", committed)
    used = [item.event for item in events[1:-1]]
    assert [(event.meter, event.quantity) for event in used] == [
        ("fhe.operations", 1),
        ("fhe.cpu_microseconds", 3_300),
        ("fhe.price_nanodollars", MULTIPLY),
    ]
    a_job(job, SUCCEEDED, states={ACCOUNT_REF: account}).when(RECORD).then_quiet()


def test_what_was_set_aside_is_free_again_when_nothing_is_delivered() -> None:
    job, account = paid_job()
    late = JobFailed("ek_1", "deadline_exceeded", "no worker was free in time", NOW)
    balance = Balance(0, DAY.start, 0, MONTH.start, 0)
    for command, event, reason in (
        (RECORD_FAILURE, FAILED, "failed"),
        (CancelJob(), CANCELLED, "cancelled"),
        (ExpireJob(), late, "expired"),
    ):
        released = ChargeReleased(
            charge_id="job_1",
            amount=MULTIPLY,
            reason=reason,  # type: ignore[arg-type]
            balance=balance,
        )
        given_ = a_job(job, states={ACCOUNT_REF: account}).when(command)
        given_.then(event, Emit("billing.account", "account", released))


def test_a_job_that_exceeds_a_hard_cap_is_refused_and_leaves_nothing() -> None:
    account = Account(day_cap=SpendingCap(MULTIPLY - 1, True, [100]))
    refusal = (
        a_job(states={ACCOUNT_REF: account}).when(submit(*STORED)).then_refused(BudgetCapReached)
    )
    assert refusal.details["left_nanodollars"] == MULTIPLY - 1


_COMMANDS = st.sampled_from([submit(*STORED), RECORD, RECORD_FAILURE, CancelJob(), ExpireJob()])


@settings(max_examples=100)
@given(st.lists(_COMMANDS, max_size=12))
def test_no_sequence_of_commands_ends_or_counts_a_job_twice(commands: list[JobCommand]) -> None:
    state, account, recorded, emitted = DECIDER.initial, Account(), [], list[Any]()
    for command in commands:
        states = {KEY_REF: KEY, ACCOUNT_REF: account}
        context = Context("ten_1", "job_1", HUMAN, NOW, "cmd_1", states, {})
        try:
            events = DECIDER.decide(command, state, context)
        except Refusal:
            continue
        for event in events:
            if isinstance(event, Emit):
                emitted.append(event.event)
                if event.stream == "billing.account":
                    account = evolve_account(account, event.event)
                continue
            recorded.append(event)
            state = DECIDER.evolve(state, event)
    assert len(recorded) <= 2
    assert [type(event) for event in recorded[:1]] in ([], [JobSubmitted])
    ended = state.status in ("succeeded", "failed", "cancelled")
    assert ended == (len(recorded) == 2)
    assert (state.result is not None) == (state.status == "succeeded")
    is_done = state.status == "succeeded"
    assert sum(isinstance(event, UsageRecorded) for event in emitted) == (3 if is_done else 0)
    assert account.balance.reserved == (MULTIPLY if state.status == "queued" else 0)
    assert account.balance.day_spent == (MULTIPLY if is_done else 0)
