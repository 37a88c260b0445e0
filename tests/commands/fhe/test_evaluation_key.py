"""Evaluation keys: registered once per fingerprint, deleted once, never half."""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from commands.decider import Context
from commands.fhe.evaluation_key import (
    DECIDER,
    DeleteEvaluationKey,
    EvaluationKeyAnswer,
    EvaluationKeyCommand,
    KeyNotFound,
    RegisterEvaluationKey,
)
from commands.refusals import InvalidCommand, Refusal
from schemas.fhe.evaluation_key import EvaluationKeyDeleted, EvaluationKeyRegistered
from tests.commands.fhe.cases import FINGERPRINT, RELIN, ROTATE
from tests.given import HUMAN, NOW, Given

REGISTER = RegisterEvaluationKey("ckks-n13", FINGERPRINT, "laptop", [RELIN, ROTATE])
REGISTERED = EvaluationKeyRegistered(
    "ek_1", "ckks-n13", FINGERPRINT, "laptop", [RELIN, ROTATE], NOW
)
DELETED = EvaluationKeyDeleted("ek_1", [RELIN.object, ROTATE.object], NOW)


def test_a_key_is_registered() -> None:
    Given(DECIDER, id="ek_1").when(REGISTER).then(REGISTERED)


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
    Given(DECIDER, REGISTERED, id="ek_1").when(DeleteEvaluationKey()).then(DELETED)


def test_deleting_what_never_was_is_refused() -> None:
    Given(DECIDER, id="ek_1").when(DeleteEvaluationKey()).then_refused(KeyNotFound)


def test_deleting_twice_is_deleting_once() -> None:
    Given(DECIDER, REGISTERED, DELETED, id="ek_1").when(DeleteEvaluationKey()).then_quiet()


def test_a_deleted_key_can_be_registered_anew() -> None:
    Given(DECIDER, REGISTERED, DELETED, id="ek_1").when(REGISTER).then(REGISTERED)


@settings(max_examples=60)
@given(st.lists(st.sampled_from([REGISTER, DeleteEvaluationKey()]), max_size=12))
def test_registrations_and_deletions_alternate(commands: list[EvaluationKeyCommand]) -> None:
    state, recorded = DECIDER.initial, []
    for command in commands:
        context = Context("ten_1", "ek_1", HUMAN, NOW, "cmd_1", {}, {})
        try:
            events = DECIDER.decide(command, state, context)
        except Refusal:
            continue
        for event in events:
            recorded.append(type(event))
            state = DECIDER.evolve(state, event)
    expected = [EvaluationKeyRegistered, EvaluationKeyDeleted] * len(recorded)
    assert recorded == expected[: len(recorded)]
    assert state.is_live == (len(recorded) % 2 == 1)
