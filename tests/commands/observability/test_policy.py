"""Policies are made, revised and deleted; what cannot be meant is refused by name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands.decider import Context
from commands.observability.policy import (
    DECIDER,
    CreatePolicy,
    DeletePolicy,
    PolicyExists,
    PolicyNotFound,
    PolicyState,
    RevisePolicy,
    StaleRevision,
)
from commands.refusals import InvalidCommand, Refusal
from schemas.observability.policy import (
    AgentsRule,
    BudgetRule,
    Definition,
    ModelsRule,
    PolicyCreated,
    PolicyDeleted,
    PolicyRevised,
    PolicyScope,
    RedactionRule,
    Rule,
    Rules,
    ScheduleRule,
    rules_of,
)
from tests.given import HUMAN, NOW, Given

BUDGET = BudgetRule(unit="usd", limit=10, window="day")
FIRST = Definition(name="daily", rules=rules_of(BUDGET))
SECOND = Definition(name="daily", rules=rules_of(BUDGET), enabled=False)
CREATED = PolicyCreated(policy_id="pol_1", revision=1, definition=FIRST, at=NOW)
REVISED = PolicyRevised(policy_id="pol_1", revision=2, definition=SECOND, at=NOW)
DELETED = PolicyDeleted(policy_id="pol_1", revision=2, at=NOW)


def stream(*events: object) -> Given:
    return Given(DECIDER, *events, id="pol_1")


def test_a_policy_is_made_and_a_repeat_stays_quiet() -> None:
    given = stream().when(CreatePolicy(definition=FIRST)).then(CREATED)
    given.when(CreatePolicy(definition=FIRST)).then_quiet()


def test_another_policy_under_the_same_id_is_refused() -> None:
    stream(CREATED).when(CreatePolicy(definition=SECOND)).then_refused(PolicyExists)


def test_a_revision_replaces_all_of_it_and_a_repeat_stays_quiet() -> None:
    given = stream(CREATED).when(RevisePolicy(definition=SECOND, expected_revision=1)).then(REVISED)
    given.when(RevisePolicy(definition=SECOND, expected_revision=1)).then_quiet()
    assert given.state == PolicyState(2, SECOND, NOW, NOW)


def test_a_revision_of_what_somebody_else_revised_is_refused() -> None:
    given = stream(CREATED, REVISED).when(RevisePolicy(definition=FIRST, expected_revision=1))
    assert given.then_refused(StaleRevision).details == {"revision": 2}


def test_a_policy_is_deleted_once_and_for_ever() -> None:
    given = stream(CREATED).when(DeletePolicy()).then(DELETED)
    given.when(DeletePolicy()).then_quiet()
    given.when(RevisePolicy(definition=SECOND)).then_refused(PolicyNotFound)
    given.when(CreatePolicy(definition=FIRST)).then_refused(PolicyExists)


@pytest.mark.parametrize("command", [RevisePolicy(definition=FIRST), DeletePolicy()])
def test_what_never_was_is_not_found(command: RevisePolicy | DeletePolicy) -> None:
    stream().when(command).then_refused(PolicyNotFound)


def of(rule: Rule) -> Definition:
    return Definition(name="p", rules=rules_of(rule))


@pytest.mark.parametrize(
    ("definition", "field"),
    [
        (Definition(name="", rules=rules_of(BUDGET)), "name"),
        (Definition(name="x" * 501, rules=rules_of(BUDGET)), "name"),
        (Definition(name="p", rules=rules_of(BUDGET), reason="x" * 501), "reason"),
        (Definition(name="p", rules=Rules()), "rule"),
        (Definition(name="p", rules=Rules(budget=BUDGET, models=ModelsRule(["m"]))), "rule"),
        (
            Definition(name="p", rules=rules_of(BUDGET), scope=PolicyScope(agent_names=["a", ""])),
            "scope.agent_names[1]",
        ),
        (
            Definition(name="p", rules=rules_of(BUDGET), scope=PolicyScope(agent_ids=["a"] * 101)),
            "scope.agent_ids",
        ),
        (of(BudgetRule(unit="usd", limit=2e9, window="day")), "rule.limit"),
        (of(BudgetRule(unit="calls", limit=1.5, window="day")), "rule.limit"),
        (of(AgentsRule()), "rule"),
        (of(AgentsRule(deny=[""])), "rule.deny[0]"),
        (of(ModelsRule([])), "rule.allow"),
        (of(RedactionRule()), "rule"),
        (of(RedactionRule(patterns=["fine", "("])), "rule.patterns[1]"),
        (of(RedactionRule(patterns=["x" * 501])), "rule.patterns[0]"),
        (of(ScheduleRule()), "rule"),
        (of(ScheduleRule(timezone="Mars/Base", weekdays=["mon"])), "rule.timezone"),
        (of(ScheduleRule(timezone="../etc", weekdays=["mon"])), "rule.timezone"),
        (of(ScheduleRule(from_time="9:00")), "rule.from_time"),
        (of(ScheduleRule(from_time="24:00")), "rule.from_time"),
        (of(ScheduleRule(until_time="24:01")), "rule.until_time"),
        (of(ScheduleRule(from_time="08:00", until_time="08:00")), "rule.until_time"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_its_place(definition: Definition, field: str) -> None:
    refused = stream().when(CreatePolicy(definition=definition)).then_refused(InvalidCommand)
    assert refused.details == {"field": field}
    assert refused.message.startswith(f"{field}: ")
    stream(CREATED).when(RevisePolicy(definition=definition)).then_refused(InvalidCommand)


definitions = st.sampled_from([FIRST, SECOND, of(ModelsRule(["m"])), of(AgentsRule())])
steps = st.one_of(
    st.builds(CreatePolicy, definition=definitions),
    st.builds(
        RevisePolicy,
        definition=definitions,
        expected_revision=st.none() | st.integers(1, 6),
    ),
    st.just(DeletePolicy()),
)


@given(st.lists(steps, max_size=20))
def test_revisions_have_no_gap_and_nothing_follows_the_end(
    commands: list[CreatePolicy | RevisePolicy | DeletePolicy],
) -> None:
    state, events = DECIDER.initial, []
    for command in commands:
        context = Context("ten_1", "pol_1", HUMAN, NOW, "cmd_1", {}, {})
        try:
            recorded = DECIDER.decide(command, state, context)
        except Refusal:
            continue
        for event in recorded:
            events.append(event)
            state = DECIDER.evolve(state, event)
    assert [event.revision for event in events] == list(range(1, len(events) + 1))
    assert not any(isinstance(event, PolicyDeleted) for event in events[:-1])
    assert not any(isinstance(event, PolicyCreated) for event in events[1:])
    assert state.definition != of(AgentsRule()), "what cannot be meant never stands"
