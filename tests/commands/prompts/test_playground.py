"""The provider of the playground is set, changed and removed; its key is only known sealed."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from commands.decider import Context
from commands.prompts.playground import (
    DECIDER,
    Playground,
    PlaygroundCommand,
    PlaygroundProviderNotFound,
    ProviderAnswered,
    RemovePlaygroundProvider,
    SetPlaygroundProvider,
)
from commands.refusals import Refusal
from schemas.prompts.playground import PlaygroundProviderRemoved, PlaygroundProviderSet
from tests.given import HUMAN, NOW, Given

URL, SEALED = "https://llm.example/v1", "c2VhbGVk"
SET = SetPlaygroundProvider(base_url=URL, sealed_key=SEALED, key_hint="4f2a", set_by="ada")
WAS_SET = PlaygroundProviderSet(
    base_url=URL, sealed_key=SEALED, key_hint="4f2a", set_by="ada", set_at=NOW
)
REMOVE = RemovePlaygroundProvider(removed_by="ada")


def test_a_provider_is_set() -> None:
    Given(DECIDER).when(SET).then(WAS_SET)


def test_the_same_provider_again_stays_quiet_and_another_takes_its_place() -> None:
    given = Given(DECIDER, WAS_SET).at(NOW + 7)
    given.when(msgspec.structs.replace(SET, set_by="bob")).then_quiet()
    for change in ({"base_url": "https://other.example/v1"}, {"sealed_key": "b3RoZXI="}):
        changed = msgspec.structs.replace(WAS_SET, set_at=NOW + 7, **change)
        Given(DECIDER, WAS_SET).at(NOW + 7).when(msgspec.structs.replace(SET, **change)).then(
            changed
        )


def test_a_provider_is_removed_and_may_come_back() -> None:
    given = Given(DECIDER, WAS_SET).at(NOW + 5).when(REMOVE)
    given.then(PlaygroundProviderRemoved("ada", NOW + 5))
    given.when(REMOVE).then_refused(PlaygroundProviderNotFound)
    given.when(SET).then(msgspec.structs.replace(WAS_SET, set_at=NOW + 5))


def test_removing_what_was_never_set_is_refused() -> None:
    Given(DECIDER).when(REMOVE).then_refused(PlaygroundProviderNotFound)


def test_neither_the_answer_nor_the_audit_says_more_of_the_key_than_its_hint() -> None:
    context = Context("ten_1", "provider", HUMAN, NOW, "cmd_1", {}, {})
    answer = DECIDER.answer(SET, Playground(WAS_SET), context)
    assert answer == ProviderAnswered(URL, "4f2a", "ada", NOW)
    assert DECIDER.describe(SET) == {"base_url": URL, "key_hint": "4f2a"}
    assert DECIDER.answer(REMOVE, Playground(), context) is None
    assert DECIDER.describe(REMOVE) == {}


commands = st.builds(
    SetPlaygroundProvider,
    base_url=st.sampled_from(["a", "b"]),
    sealed_key=st.sampled_from(["x", "y"]),
    key_hint=st.just(""),
    set_by=st.just("ada"),
) | st.just(REMOVE)


@given(st.lists(commands, max_size=20))
def test_what_stands_is_what_was_set_last(sequence: list[PlaygroundCommand]) -> None:
    state, last = Playground(), None
    context = Context("ten_1", "provider", HUMAN, NOW, "cmd_1", {}, {})
    for command in sequence:
        try:
            events = DECIDER.decide(command, state, context)
        except Refusal:
            assert last is None
            continue
        for event in events:
            state = DECIDER.evolve(state, event)
        last = command if isinstance(command, SetPlaygroundProvider) else None
        stands = state.provider
        assert (stands is None) == (last is None)
        if stands is not None and last is not None:
            assert (stands.base_url, stands.sealed_key) == (last.base_url, last.sealed_key)
