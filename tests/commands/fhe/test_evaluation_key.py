"""Evaluation keys: registered once per fingerprint, deleted once, never half."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commands.billing.account_state import Account, EvaluationKeysExhausted
from commands.billing.account_state import evolve as evolve_account
from commands.billing.plans import PLANS, Plan
from commands.decider import Context, Emit, Ref
from commands.fhe.evaluation_key import (
    DECIDER,
    DeleteEvaluationKey,
    EvaluationKeyAnswer,
    EvaluationKeyCommand,
    KeyNotFound,
    RegisterEvaluationKey,
)
from commands.refusals import InvalidCommand, Refusal
from schemas.billing.account import (
    ACCOUNT_ID,
    STREAM,
    EvaluationKeyAdmitted,
    EvaluationKeyReleased,
)
from schemas.fhe.evaluation_key import EvaluationKeyDeleted, EvaluationKeyRegistered
from tests.commands.fhe.cases import FINGERPRINT, RELIN, ROTATE
from tests.given import HUMAN, NOW, Given

REGISTER = RegisterEvaluationKey("ckks-n13", FINGERPRINT, "laptop", [RELIN, ROTATE])
REGISTERED = EvaluationKeyRegistered(
    "ek_1", "ckks-n13", FINGERPRINT, "laptop", [RELIN, ROTATE], NOW, is_counted=True
)
ADMITTED = Emit(STREAM, ACCOUNT_ID, EvaluationKeyAdmitted(key_id="ek_1", live=1))
RELEASED = Emit(STREAM, ACCOUNT_ID, EvaluationKeyReleased(key_id="ek_1", live=0))
ONE_KEY = {Ref(STREAM, ACCOUNT_ID): Account(evaluation_keys=1)}
DELETED = EvaluationKeyDeleted("ek_1", [RELIN.object, ROTATE.object], NOW)


def test_a_key_is_registered() -> None:
    Given(DECIDER, id="ek_1").when(REGISTER).then(REGISTERED, ADMITTED)


def test_the_same_key_again_is_the_same_key() -> None:
    again = msgspec.structs.replace(RELIN, object="fhe/ten_1/keys/2/aa")
    command = msgspec.structs.replace(REGISTER, parts=[again], name="other")
    given_key = Given(DECIDER, REGISTERED, id="ek_1").when(command).then_quiet()
    context = Context("ten_1", "ek_1", HUMAN, NOW, "cmd_1", {}, {})
    answer = DECIDER.answer(command, given_key.state, context)
    assert isinstance(answer, EvaluationKeyAnswer)
    # The caller sees which objects are the key's, and removes its own.
    assert (answer.is_new, answer.parts, answer.name) == (False, [RELIN, ROTATE], "laptop")


def test_an_unknown_parameter_set_and_an_empty_key_are_refused() -> None:
    for command in (
        msgspec.structs.replace(REGISTER, params_id="ckks-n99"),
        msgspec.structs.replace(REGISTER, parts=[]),
    ):
        Given(DECIDER, id="ek_1").when(command).then_refused(InvalidCommand)


def test_a_key_is_deleted_with_its_objects() -> None:
    given = Given(DECIDER, REGISTERED, id="ek_1", states=ONE_KEY)
    given.when(DeleteEvaluationKey()).then(DELETED, RELEASED)


def test_a_key_from_before_the_plans_limits_takes_no_place() -> None:
    old = msgspec.structs.replace(REGISTERED, is_counted=False)
    Given(DECIDER, old, id="ek_1").when(DeleteEvaluationKey()).then(DELETED)


@pytest.mark.parametrize("plan", PLANS.values(), ids=lambda plan: plan.code)
def test_a_plan_allows_so_many_keys_and_says_so_when_there_is_one_more(plan: Plan) -> None:
    most = plan.evaluation_keys_max

    def register(live: int) -> Given:
        account = Account(plan_code=plan.code, evaluation_keys=live)
        states = {Ref(STREAM, ACCOUNT_ID): account}
        return Given(DECIDER, id="ek_1", states=states).when(REGISTER)

    last = Emit(STREAM, ACCOUNT_ID, EvaluationKeyAdmitted(key_id="ek_1", live=most))
    register(most - 1).then(REGISTERED, last)
    # More than a plan allows is what a downgrade leaves: it stays, and nothing is added.
    for live in (most, most + 5):
        refusal = register(live).then_refused(EvaluationKeysExhausted)
        assert refusal.kind == "payment_required"
        assert refusal.details == {
            "plan": plan.code,
            "evaluation_keys_max": most,
            "evaluation_keys": live,
        }
    full = {Ref(STREAM, ACCOUNT_ID): Account(plan_code=plan.code, evaluation_keys=most)}
    Given(DECIDER, REGISTERED, id="ek_1", states=full).when(REGISTER).then_quiet()


def test_deleting_what_never_was_is_refused() -> None:
    Given(DECIDER, id="ek_1").when(DeleteEvaluationKey()).then_refused(KeyNotFound)


def test_deleting_twice_is_deleting_once() -> None:
    Given(DECIDER, REGISTERED, DELETED, id="ek_1").when(DeleteEvaluationKey()).then_quiet()


def test_a_deleted_key_can_be_registered_anew() -> None:
    Given(DECIDER, REGISTERED, DELETED, id="ek_1").when(REGISTER).then(REGISTERED, ADMITTED)


@settings(max_examples=60)
@given(st.lists(st.sampled_from([REGISTER, DeleteEvaluationKey()]), max_size=12))
def test_registrations_and_deletions_alternate(commands: list[EvaluationKeyCommand]) -> None:
    state, account, recorded = DECIDER.initial, Account(), []
    for command in commands:
        states = {Ref(STREAM, ACCOUNT_ID): account}
        context = Context("ten_1", "ek_1", HUMAN, NOW, "cmd_1", states, {})
        try:
            events = DECIDER.decide(command, state, context)
        except Refusal:
            continue
        for event in events:
            if isinstance(event, Emit):
                account = evolve_account(account, event.event)
                continue
            recorded.append(type(event))
            state = DECIDER.evolve(state, event)
    expected = [EvaluationKeyRegistered, EvaluationKeyDeleted] * len(recorded)
    assert recorded == expected[: len(recorded)]
    assert state.is_live == (len(recorded) % 2 == 1) == bool(account.evaluation_keys)
