"""Jobs: one end each, whatever workers report, and refusals before any worker is touched."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commands.billing.account_state import Account, BudgetCapReached, UsagePeriod
from commands.billing.account_state import evolve as evolve_account
from commands.billing.usage import Usage
from commands.decider import ClearTimer, Context, Emit, Ref, SetTimer
from commands.fhe.evaluation_key import EvaluationKey, KeyDeleted, KeyNotFound
from commands.fhe.job import DEADLINE_MICROS, DECIDER
from commands.fhe.job_state import (
    CancelJob,
    CiphertextNotFound,
    ExpireJob,
    Input,
    Job,
    JobCommand,
    JobFinished,
    JobNotFound,
    KeyMismatch,
    RecordJobFailure,
    RecordJobProgress,
    RecordJobResult,
    ReuseResult,
    SubmitJob,
)
from commands.fhe.needs import (
    KeyMissingPart,
    KeyMissingRelin,
    KeyMissingRotation,
    LevelExhausted,
)
from commands.fhe.operations import ValueOverflow, need_of
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
from schemas.fhe.job import (
    JobCancelled,
    JobFailed,
    JobProgressed,
    JobSubmitted,
    JobSucceeded,
    Operand,
    Operation,
)
from schemas.fhe.parameters import CKKS_N13
from tests.commands.fhe.cases import KEY, RELIN, ROTATE, cipher, plain
from tests.given import HUMAN, NOW, Given

KEY_REF = Ref("fhe.evaluation_key", "ek_1")
ACCOUNT_REF = Ref("billing.account", "account")
PRICES = price_list_at(NOW)
ADD, MULTIPLY = (PRICES.price(operation, "ckks-n13") for operation in ("add", "multiply"))
CACHED = PRICES.cached_price(MULTIPLY)
DAY, MONTH = window_of("day", NOW), window_of("month", NOW)
# Something was spent in this month before.
ACCOUNT = Account(period=UsagePeriod(MONTH.start, MONTH.end))
RESULT = cipher("out", level=1)
# A rotation part without the rotation by 1.
FOUR = msgspec.structs.replace(ROTATE, rotations=[4])


def submit(*inputs: Input, operation: Operation = "multiply", request: str = "r1") -> SubmitJob:
    return SubmitJob("ek_1", operation, list(inputs), request_id=request)


def submitted(operands: list[Operand], own: list[str], operation: Operation = "multiply") -> Any:
    estimate = need_of(operation, operands, "{}", CKKS_N13).estimate
    return JobSubmitted(
        job_id="job_1",
        key_id="ek_1",
        params_id="ckks-n13",
        operation=operation,
        operands=operands,
        key_parts=[RELIN],
        own_objects=own,
        submitted_at=NOW,
        deadline=NOW + DEADLINE_MICROS,
        request_id="r1",
        magnitude=estimate.magnitude,
        error=estimate.error,
    )


STORED = [Input(cipher("a")), Input(cipher("b"))]
OPERANDS = [cipher("a"), cipher("b")]
SUBMITTED = submitted(OPERANDS, [operand.object for operand in OPERANDS])
SUCCEEDED = JobSucceeded(
    key_id="ek_1",
    params_id="ckks-n13",
    operation="multiply",
    result=msgspec.structs.replace(RESULT, magnitude=1.0, error=SUBMITTED.error),
    error_bound=SUBMITTED.error,
    cpu_us=3_300,
    tries=1,
    succeeded_at=NOW,
)
FAILED = JobFailed("ek_1", "engine_failure", "the engine died twice", NOW)
CANCELLED = JobCancelled("job_1", "ek_1", NOW)


def usage(usage_id: str, meter: str, quantity: int) -> Emit:
    return Emit(
        "billing.usage",
        usage_id,
        UsageRecorded(
            usage_id=usage_id,
            meter=meter,
            quantity=quantity,
            occurred_at=NOW,
            source="fhe",
            resource="job_1",
        ),
    )


def usage_of(name: str) -> list[Emit]:
    return [
        usage(f"{name}.fhe.operations", "fhe.operations", 1),
        usage(f"{name}.fhe.cpu_microseconds", "fhe.cpu_microseconds", 3_300),
    ]


def of_account(event: Any) -> Emit:
    return Emit("billing.account", "account", event)


def balance(reserved: int = 0, spent: int = 0) -> Balance:
    return Balance(reserved, DAY.start, spent, MONTH.start, spent)


def set_aside(amount: int, charge_id: str = "job_1") -> Emit:
    return of_account(
        ChargeReserved(
            charge_id=charge_id,
            amount=amount,
            price_version=PRICES.version,
            balance=balance(amount),
        )
    )


def spent(amount: int, charge_id: str = "job_1") -> Emit:
    after = balance(0, amount)
    return of_account(ChargeCommitted(charge_id=charge_id, amount=amount, balance=after))


def priced(job: Any, amount: int) -> list[Any]:
    """The same job with its price, and what is set aside for it."""
    charge_id = "job_1" if job.attempt == 1 else f"job_1.{job.attempt}"
    job = msgspec.structs.replace(job, price_nanodollars=amount, price_version=PRICES.version)
    return [job, set_aside(amount, charge_id)]


def reuse(request: str) -> list[Emit]:
    """What a result that is there already counts as, and costs."""
    name = f"job_1.{request}"
    return [
        usage(f"{name}.fhe.cached_operations", "fhe.cached_operations", 1),
        usage(f"{name}.fhe.price_nanodollars", "fhe.price_nanodollars", CACHED),
        set_aside(CACHED, name),
        spent(CACHED, name),
    ]


USAGE = usage_of("job_1")
RECORD = RecordJobResult(RESULT, 3_300, 1)
RECORD_FAILURE = RecordJobFailure("engine_failure", "the engine died twice")


def a_job(*events: Any, key: EvaluationKey = KEY, states: dict[Ref, Any] | None = None) -> Given:
    return Given(
        DECIDER, *events, id="job_1", states={KEY_REF: key, ACCOUNT_REF: ACCOUNT, **(states or {})}
    )


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


def test_the_same_work_is_done_once_and_a_result_that_is_there_is_counted_as_cached() -> None:
    again = submit(*STORED, request="r2")
    a_job(SUBMITTED).when(again).then_quiet().when(ReuseResult("r3")).then_quiet()
    done = a_job(SUBMITTED, SUCCEEDED)
    done.when(again).then(*reuse("r2")).when(ReuseResult("r3")).then(*reuse("r3"))
    a_job().when(ReuseResult("r3")).then_refused(JobNotFound)


@pytest.mark.parametrize("end", [FAILED, CANCELLED])
def test_work_that_ended_without_a_result_is_done_anew(end: Any) -> None:
    second = msgspec.structs.replace(SUBMITTED, attempt=2, request_id="r2")
    anew = a_job(SUBMITTED, end).when(submit(*STORED, request="r2")).then(*priced(second, MULTIPLY))
    # A failure of the first attempt comes too late; its result would be as good as any.
    anew.when(RECORD_FAILURE).then_quiet()
    late = msgspec.structs.replace(RECORD, attempt=2)
    succeeded, *emitted = anew.when(late).decided()
    assert succeeded == SUCCEEDED
    meters = ("fhe.operations", "fhe.cpu_microseconds", "fhe.price_nanodollars")
    assert [emit.id for emit in emitted] == [*(f"job_1.2.{meter}" for meter in meters), "account"]
    a_job(SUBMITTED, end, second, SUCCEEDED).when(RECORD).then_quiet()
    a_job(SUBMITTED, end).when(ReuseResult("r3")).then_quiet()


def test_a_result_that_the_store_has_lost_is_computed_anew() -> None:
    lost = msgspec.structs.replace(submit(*STORED, request="r2"), lost_object=RESULT.object)
    second = msgspec.structs.replace(SUBMITTED, attempt=2, request_id="r2")
    a_job(SUBMITTED, SUCCEEDED).when(lost).then(*priced(second, MULTIPLY)).when(lost).then_quiet()
    other = msgspec.structs.replace(lost, lost_object="fhe/ten_1/results/another")
    a_job(SUBMITTED, SUCCEEDED).when(other).then(*reuse("r2"))


def test_the_answer_says_whose_work_it_is_and_whether_it_was_done() -> None:
    context = Context("ten_1", "job_1", HUMAN, NOW, "cmd_1", {}, {})
    queued = DECIDER.evolve(DECIDER.initial, SUBMITTED)
    done = DECIDER.evolve(queued, SUCCEEDED)

    def said(command: JobCommand, state: Job) -> tuple[bool, bool]:
        answer = DECIDER.answer(command, state, context)
        return answer.is_new, answer.is_cached

    assert said(submit(*STORED), queued) == (True, False)
    assert said(submit(*STORED, request="r2"), queued) == (False, False)
    assert said(submit(*STORED, request="r2"), done) == (False, True)
    assert said(ReuseResult("r2"), done) == (False, True)
    assert said(RECORD, done) == (False, False)


def test_submissions_that_cannot_succeed_are_refused() -> None:
    both = submit(*STORED)
    a_job(key=EvaluationKey()).when(both).then_refused(KeyNotFound)
    deleted = EvaluationKey(was_deleted=True)
    a_job(key=deleted).when(both).then_refused(KeyDeleted)
    rotation_only = msgspec.structs.replace(KEY, parts=[ROTATE])
    a_job(key=rotation_only).when(both).then_refused(KeyMissingRelin)
    lowest = submit(Input(cipher("a")), Input(cipher("b", level=2)))
    refusal = a_job().when(lowest).then_refused(LevelExhausted)
    assert refusal.kind == "unprocessable"
    deeper = ["ckks-n14", "ckks-n14d5"]
    assert refusal.details == {"level": 2, "needed": 3, "depth": 2, "deeper": deeper}
    a_job().when(submit(Input(cipher("a")))).then_refused(InvalidCommand)
    a_job().when(submit(Input(plain()), Input(plain()))).then_refused(InvalidCommand)


def test_values_that_would_overflow_are_refused() -> None:
    huge = msgspec.structs.replace(plain("v"), magnitude=2.0**18)
    once = submit(Input(cipher("a", level=1)), Input(huge))
    event, _ = a_job().when(once).decided()
    assert isinstance(event, JobSubmitted) and event.magnitude == 2.0**18
    larger = msgspec.structs.replace(cipher("a", level=1), magnitude=2.0)
    refusal = a_job().when(submit(Input(larger), Input(huge))).then_refused(ValueOverflow)
    assert refusal.kind == "unprocessable"
    assert refusal.details["deeper"] == ["ckks-n14", "ckks-n14d5"]
    assert (refusal.details["magnitude"], refusal.details["level"]) == (2.0**19, 2)
    # Higher up there is room for it.
    event, _ = a_job().when(submit(Input(cipher("a")), Input(huge))).decided()
    assert isinstance(event, JobSubmitted)


def test_a_matrix_product_needs_its_rotations() -> None:
    command = SubmitJob("ek_1", "matmul", [Input(cipher("a")), Input(plain())], '{"size": 8}')
    refusal = a_job().when(command).then_refused(KeyMissingPart)
    assert refusal.details == {"part": "rotate"}
    poor = msgspec.structs.replace(KEY, parts=[RELIN, FOUR])
    refusal = a_job(key=poor).when(command).then_refused(KeyMissingRotation)
    assert refusal.details == {"missing": [1]}
    rich = msgspec.structs.replace(KEY, parts=[RELIN, ROTATE])
    event, _ = a_job(key=rich).when(command).decided()
    assert isinstance(event, JobSubmitted)


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


def test_progress_is_told_while_the_job_goes_on() -> None:
    told = JobProgressed("ek_1", 5, 9, NOW)
    progress = RecordJobProgress(5, 9)
    a_job(SUBMITTED).when(progress).then(told).when(progress).then_quiet()
    # A second try begins anew.
    a_job(SUBMITTED, told).when(RecordJobProgress(2, 9)).then_quiet()
    a_job(SUBMITTED, SUCCEEDED).when(progress).then_quiet()
    a_job(SUBMITTED, told).when(RECORD).then(SUCCEEDED, *USAGE)
    a_job().when(progress).then_refused(JobNotFound)
    assert DECIDER.timers(told, "job_1") == []


def test_gates_without_the_server_s_part_are_refused() -> None:
    bit = Input(cipher("a"))
    key = msgspec.structs.replace(KEY, params_id="tfhe-132")
    refusal = a_job(key=key).when(submit(bit, operation="not")).then_refused(KeyMissingPart)
    assert refusal.details == {"part": "server"}


def test_as_many_operations_are_counted_as_gates_were_computed() -> None:
    server = msgspec.structs.replace(RELIN, kind="server")
    key = msgspec.structs.replace(KEY, params_id="tfhe-132", parts=[server])
    three = Input(msgspec.structs.replace(cipher("a"), count=3))
    given = a_job(key=key).when(submit(three, three, operation="xor"))
    event, _ = given.decided()
    assert isinstance(event, JobSubmitted) and event.quantity == 3
    _, *emitted = a_job(event).when(RECORD).decided()
    counted = [emit.event.quantity for emit in emitted if emit.stream == "billing.usage"]
    assert counted == [3, 3_300, 3 * PRICES.price("xor", "tfhe-132")]


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
    return job, evolve_account(ACCOUNT, reserved.event)


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


def test_a_result_that_is_there_is_paid_for_once_by_each_request() -> None:
    done = [SUBMITTED, SUCCEEDED]
    counted = Ref("billing.usage", "job_1.r2.fhe.cached_operations")
    repeated = a_job(*done, states={counted: Usage("fhe.cached_operations", 1, NOW)})
    repeated.when(ReuseResult("r2")).then_quiet()
    full = Account(day_cap=SpendingCap(CACHED - 1, True, [100]))
    refused = a_job(*done, states={ACCOUNT_REF: full}).when(ReuseResult("r2"))
    refused.then_refused(BudgetCapReached)


_COMMANDS = st.sampled_from(
    [
        submit(*STORED),
        submit(*STORED, request="r2"),
        ReuseResult("r3"),
        RECORD,
        RECORD_FAILURE,
        msgspec.structs.replace(RECORD_FAILURE, attempt=2),
        CancelJob(),
        ExpireJob(),
    ]
)


@settings(max_examples=200)
@given(st.lists(_COMMANDS, max_size=12))
def test_no_sequence_of_commands_ends_or_counts_a_job_twice(commands: list[JobCommand]) -> None:
    state, account, recorded, counted = DECIDER.initial, Account(), [], []
    states: dict[Ref, Any] = {KEY_REF: KEY}
    for command in commands:
        named = {ref: Usage() for ref in DECIDER.loads(command, "job_1") if isinstance(ref, Ref)}
        states = {**named, **states, ACCOUNT_REF: account}
        context = Context("ten_1", "job_1", HUMAN, NOW, "cmd_1", states, {})
        try:
            events = DECIDER.decide(command, state, context)
        except Refusal:
            continue
        for event in events:
            if isinstance(event, Emit):
                if event.stream == "billing.account":
                    account = evolve_account(account, event.event)
                else:
                    counted.append(event.id)
                    states[Ref(event.stream, event.id)] = Usage(event.event.meter, 1, NOW)
                continue
            recorded.append(event)
            state = DECIDER.evolve(state, event)
    # Submitted, ended, submitted anew, ended ...: at most one end has a result, and it is the last.
    assert all(isinstance(event, JobSubmitted) for event in recorded[::2])
    assert not any(isinstance(event, JobSubmitted) for event in recorded[1::2])
    successes = [event for event in recorded if isinstance(event, JobSucceeded)]
    assert successes in ([], recorded[-1:])
    assert (state.result is not None) == (state.status == "succeeded") == bool(successes)
    assert len(counted) == len(set(counted))
    cached = [usage_id for usage_id in counted if usage_id.endswith("cached_operations")]
    assert len(counted) == 3 * len(successes) + 2 * len(cached)
    assert successes or not counted
    assert account.balance.reserved == (MULTIPLY if state.status == "queued" else 0)
    paid = MULTIPLY * len(successes) + CACHED * len(cached)
    assert account.balance.day_spent == paid
