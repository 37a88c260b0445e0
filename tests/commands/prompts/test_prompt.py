"""A prompt: versions are numbered, labels move, names are unique while they are used."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands.decider import Claim, Context, Lookup, Ref, Release
from commands.prompts.prompt import (
    DECIDER,
    LABELS_MAX,
    MOVES_MAX,
    NAME,
    STREAM,
    VERSIONS_MAX,
    AddPromptVersion,
    CreatePrompt,
    DeletePrompt,
    LabelAnswered,
    LabelNotFound,
    MovePromptLabel,
    PromptCommand,
    PromptExists,
    PromptFull,
    PromptNameTaken,
    PromptNotFound,
    RemovePromptLabel,
    RevisePrompt,
    VersionAnswered,
    VersionNotFound,
)
from commands.prompts.prompt_state import Prompt, PromptAnswered
from commands.refusals import Refusal
from schemas.prompts.prompt import (
    PromptCreated,
    PromptDeleted,
    PromptDescribed,
    PromptEvent,
    PromptLabelMoved,
    PromptLabelRemoved,
    PromptRenamed,
    PromptVersionAdded,
)
from tests.given import HUMAN, NOW, Given

ID = "prm_0123456789abcdefghjkmnpqrs"
HASH, OTHER_HASH = "ab" * 32, "cd" * 32
CREATE = CreatePrompt(
    name="support",
    content='"Hello"',
    content_hash=HASH,
    created_by="ada@acme.example",
    prompt_type="chat",
    description="Greets",
    tags=["a", "b"],
    metadata='{"team":1}',
    config='{"model":"m","temperature":1}',
    commit_message="Initial version",
)
CREATED = PromptCreated(
    "support",
    "Greets",
    "chat",
    ["a", "b"],
    '{"team":1}',
    '{"model":"m","temperature":1}',
    "ada@acme.example",
    NOW,
)
FIRST = PromptVersionAdded(
    1, '"Hello"', HASH, CREATED.config, "Initial version", "ada@acme.example", NOW
)
ADD = AddPromptVersion('"Bye"', OTHER_HASH, "bob", '{"temperature":2}', "Shorter")
SECOND = PromptVersionAdded(
    2, '"Bye"', OTHER_HASH, '{"model":"m","temperature":2}', "Shorter", "bob", NOW
)
LIVE = PromptLabelMoved("production", 1, 0, 1, "ada", NOW)
DELETED = PromptDeleted("support", 2, ["production"], 1, NOW)


def existing(*more: PromptEvent, **changes: Any) -> Given:
    return Given(DECIDER, CREATED, FIRST, *more, id=ID, **changes)


def in_state(**fields: Any) -> Given:
    given = existing()
    given.state = msgspec.structs.replace(given.state, **fields)
    return given


def test_a_prompt_is_created_with_its_first_version() -> None:
    given = Given(DECIDER, id=ID).when(CREATE).then(CREATED, FIRST)
    assert (given.state.versions, given.state.labels) == (1, {})


def test_a_taken_name_is_refused() -> None:
    given = Given(DECIDER, id=ID, found={(NAME, "support"): "prm_9"}).when(CREATE)
    assert given.then_refused(PromptNameTaken).details == {"field": "name"}


def test_creating_the_same_prompt_again_is_quiet() -> None:
    found = {(NAME, "support"): ID}
    existing(found=found).when(CREATE).then_quiet()
    existing(SECOND, LIVE, found=found).when(CREATE).then_quiet()


@pytest.mark.parametrize("change", [{"name": "x"}, {"content_hash": OTHER_HASH}, {"tags": []}])
def test_creating_another_prompt_with_the_same_id_is_refused(change: Any) -> None:
    existing().when(msgspec.structs.replace(CREATE, **change)).then_refused(PromptExists)


def test_the_id_of_a_deleted_prompt_never_comes_back() -> None:
    existing(SECOND, LIVE, DELETED).when(CREATE).then_refused(PromptExists)


def test_a_version_gets_the_next_number_and_overrides_the_prompts_config() -> None:
    existing().when(ADD).then(SECOND)


def test_overrides_are_of_the_prompts_config_not_of_the_last_versions() -> None:
    plain = AddPromptVersion('"Hi"', HASH, "bob")
    third = PromptVersionAdded(3, '"Hi"', HASH, CREATED.config, "", "bob", NOW)
    existing(SECOND).when(plain).then(third)


def test_a_prompt_takes_no_end_of_versions() -> None:
    in_state(versions=VERSIONS_MAX).when(ADD).then_refused(PromptFull)


def test_a_prompt_is_renamed() -> None:
    given = existing(now=NOW + 5).when(RevisePrompt(name="greeting"))
    given.then(PromptRenamed("greeting", "support", NOW + 5))
    assert (given.state.name, given.state.updated_at) == ("greeting", NOW + 5)


def test_a_prompt_is_not_renamed_to_a_taken_name() -> None:
    given = existing(found={(NAME, "greeting"): "prm_9"})
    given.when(RevisePrompt(name="greeting", tags=[])).then_refused(PromptNameTaken)


def test_what_is_said_of_a_prompt_is_changed_field_by_field() -> None:
    existing().when(RevisePrompt(description="")).then(
        PromptDescribed("", ["a", "b"], '{"team":1}', NOW)
    )
    existing().when(RevisePrompt(name="x", tags=["c"], metadata="{}")).then(
        PromptRenamed("x", "support", NOW), PromptDescribed("Greets", ["c"], "{}", NOW)
    )


def test_revising_to_what_is_already_so_is_quiet() -> None:
    given = existing(found={(NAME, "support"): ID})
    given.when(RevisePrompt("support", "Greets", ["a", "b"], '{"team":1}')).then_quiet()
    given.when(RevisePrompt()).then_quiet()


def test_a_label_is_set_moved_and_moved_back() -> None:
    given = existing(SECOND).when(MovePromptLabel("production", 1, "ada")).then(LIVE)
    given.when(MovePromptLabel("production", 2, "bob"))
    given.then(PromptLabelMoved("production", 2, 1, 2, "bob", NOW))
    given.when(MovePromptLabel("production", 1, "ada"))
    given.then(PromptLabelMoved("production", 1, 2, 3, "ada", NOW))
    assert (given.state.labels, given.state.moves) == ({"production": 1}, 3)


def test_moving_a_label_to_where_it_is_is_quiet() -> None:
    existing(LIVE).when(MovePromptLabel("production", 1, "bob")).then_quiet()


@pytest.mark.parametrize("version", [0, 2, 2**31])
def test_a_label_points_at_no_version_that_is_not_there(version: int) -> None:
    existing().when(MovePromptLabel("x", version, "ada")).then_refused(VersionNotFound)


def test_a_prompt_takes_no_end_of_labels_and_of_their_moves() -> None:
    full = in_state(labels={f"l{number}": 1 for number in range(LABELS_MAX)}, versions=2)
    full.when(MovePromptLabel("x", 1, "ada")).then_refused(PromptFull)
    full.when(MovePromptLabel("l0", 2, "ada")).then(PromptLabelMoved("l0", 2, 1, 1, "ada", NOW))
    worn = in_state(labels={"l": 1}, versions=2, moves=MOVES_MAX)
    worn.when(MovePromptLabel("l", 2, "ada")).then_refused(PromptFull)
    worn.when(RemovePromptLabel("l", "ada")).then(
        PromptLabelRemoved("l", 1, MOVES_MAX + 1, "ada", NOW)
    )


def test_a_label_is_removed() -> None:
    given = existing(LIVE).when(RemovePromptLabel("production", "bob"))
    given.then(PromptLabelRemoved("production", 1, 2, "bob", NOW))
    assert given.state.labels == {}


def test_a_label_that_is_not_there_cannot_be_removed() -> None:
    existing(LIVE).when(RemovePromptLabel("staging", "bob")).then_refused(LabelNotFound)


def test_a_deleted_prompt_names_all_that_goes_with_it() -> None:
    given = existing(SECOND, LIVE).when(DeletePrompt()).then(DELETED)
    assert given.state == Prompt(deleted=True)


AFTERWARDS = [
    ADD,
    RevisePrompt(description="x"),
    MovePromptLabel("production", 1, "ada"),
    RemovePromptLabel("production", "ada"),
    DeletePrompt(),
]


@pytest.mark.parametrize("command", AFTERWARDS, ids=lambda command: type(command).__name__)
def test_nothing_is_done_to_a_prompt_that_is_not_there(command: PromptCommand) -> None:
    Given(DECIDER, id=ID).when(command).then_refused(PromptNotFound)
    existing(SECOND, LIVE, DELETED).when(command).then_refused(PromptNotFound)


def test_names_are_claimed_and_given_back() -> None:
    assert DECIDER.claims(CREATED, ID) == (Claim(NAME, "support"),)
    assert DECIDER.claims(PromptRenamed("b", "a", NOW), ID) == (
        Release(NAME, "a"),
        Claim(NAME, "b"),
    )
    assert DECIDER.claims(DELETED, ID) == (Release(NAME, "support"),)
    assert DECIDER.claims(SECOND, ID) == DECIDER.claims(LIVE, ID) == ()


def test_what_a_command_needs_is_named() -> None:
    assert DECIDER.loads(CREATE, ID) == (Lookup(NAME, "support"),)
    assert DECIDER.loads(RevisePrompt(name="x"), ID) == (Lookup(NAME, "x"),)
    assert DECIDER.loads(RevisePrompt(tags=[]), ID) == ()
    assert DECIDER.loads(MovePromptLabel("x", 1, ""), ID) == (Ref(STREAM, ID),)
    assert DECIDER.loads(ADD, ID) == ()


def folded(*events: PromptEvent) -> Prompt:
    state = Prompt()
    for event in events:
        state = DECIDER.evolve(state, event)
    return state


def test_the_answers_tell_how_things_stand() -> None:
    state = folded(CREATED, FIRST, SECOND, LIVE)
    context = Context("ten_1", ID, HUMAN, NOW, "cmd_1", {Ref(STREAM, ID): Prompt()}, {})
    expected = PromptAnswered(
        id=ID,
        name="support",
        description="Greets",
        prompt_type="chat",
        tags=["a", "b"],
        metadata='{"team":1}',
        config=CREATED.config,
        latest_version=2,
        labels=["production"],
        created_by="ada@acme.example",
        created_at=NOW,
        updated_at=NOW,
    )
    assert DECIDER.answer(CREATE, state, context) == expected
    assert DECIDER.answer(RevisePrompt(), state, context) == expected
    added = VersionAnswered(2, OTHER_HASH, "Shorter", "bob", NOW)
    assert DECIDER.answer(ADD, state, context) == added
    move = MovePromptLabel("production", 1, "ada")
    assert DECIDER.answer(move, state, context) == LabelAnswered("production", 1, True)
    before = msgspec.structs.replace(context, states={Ref(STREAM, ID): state})
    assert DECIDER.answer(move, state, before) == LabelAnswered("production", 1, False)
    assert DECIDER.answer(DeletePrompt(), state, context) is None


def test_the_audit_is_told_hashes_and_no_content() -> None:
    assert DECIDER.describe(CREATE) == {"name": "support", "content_hash": HASH}
    assert DECIDER.describe(ADD) == {"content_hash": OTHER_HASH, "commit_message": "Shorter"}
    revise = RevisePrompt(name="x", metadata="{}")
    assert DECIDER.describe(revise) == {"name": "x", "fields": ["name", "metadata"]}
    assert DECIDER.describe(AFTERWARDS[2]) == {"label": "production", "version": 1}
    assert DECIDER.describe(AFTERWARDS[3]) == {"label": "production"}
    assert DECIDER.describe(DeletePrompt()) == {}


NAMES = st.sampled_from(["a", "b", "c"])
LABELS = st.sampled_from(["production", "staging"])
COMMANDS = st.one_of(
    st.builds(lambda name: msgspec.structs.replace(CREATE, name=name), NAMES),
    st.just(ADD),
    st.builds(RevisePrompt, name=st.none() | NAMES, description=st.none() | NAMES),
    st.builds(MovePromptLabel, LABELS, st.integers(0, 4), st.just("ada")),
    st.builds(RemovePromptLabel, LABELS, st.just("ada")),
    st.just(DeletePrompt()),
)


@given(st.lists(st.tuples(st.integers(0, 2), COMMANDS), max_size=25))
def test_whatever_is_asked_names_are_unique_versions_have_no_gap_and_labels_point_at_versions(
    sequence: Sequence[tuple[int, PromptCommand]],
) -> None:
    names: dict[tuple[str, str], str] = {}
    prompts = {f"prm_{number}": Prompt() for number in range(3)}
    seen: dict[str, list[int]] = {id: [] for id in prompts}
    for number, command in sequence:
        id = f"prm_{number}"
        context = Context("ten_1", id, HUMAN, NOW, "cmd_1", {}, dict(names))
        try:
            events = DECIDER.decide(command, prompts[id], context)
        except Refusal:
            continue
        for event in events:
            for claim in DECIDER.claims(event, id):
                if isinstance(claim, Claim):
                    assert (claim.index, claim.key) not in names
                    names[claim.index, claim.key] = id
                else:
                    assert names.pop((claim.index, claim.key)) == id
            prompts[id] = DECIDER.evolve(prompts[id], event)
            if isinstance(event, PromptVersionAdded):
                seen[id].append(event.version)
    assert names == {(NAME, item.name): id for id, item in prompts.items() if item.name}
    for id, prompt in prompts.items():
        assert seen[id] == list(range(1, len(seen[id]) + 1))
        if not prompt.deleted:
            assert prompt.versions == len(seen[id])
        assert all(1 <= version <= prompt.versions for version in prompt.labels.values())
