"""What a proposed policy would have changed for past runs."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from commands.observability.policy_check import SEVERITY, Amount, Asked, Policy
from commands.observability.policy_replay import Began, Used, replay
from schemas.observability.policy import (
    AgentsRule,
    BudgetRule,
    Definition,
    ModelsRule,
    PolicyScope,
    RateRule,
    Rule,
    rules_of,
)

AT = 1_700_000_000_000_000
SECOND, DAY = 1_000_000, 86_400_000_000
BOT = Asked("bot", "w")


def policy(rule: Rule, id: str = "pol_1", **more: Any) -> Policy:
    return Policy(id, 1, Definition(name=id, rules=rules_of(rule), **more))


def began(at: int, asked: Asked = BOT, models: tuple[str, ...] = ()) -> Began:
    return Began(at, f"run_{at}", asked, models)


def used(at: int, calls: int, asked: Asked = BOT) -> Used:
    return Used(at, asked, Amount(calls=calls))


def test_a_budget_would_have_stopped_those_that_came_after_it_was_used() -> None:
    moments = [began(AT), used(AT + 1, 10), began(AT + 2), began(AT + DAY)]
    budget = policy(BudgetRule(unit="calls", limit=10, window="day"))
    found = replay([], [budget], moments, AT, 5)
    assert (found.runs, found.changed) == (3, 1)
    assert (found.before, found.after) == ({"allow": 3}, {"allow": 2, "block": 1})
    (told,) = found.sample
    assert (told.run_id, told.before.action) == (f"run_{AT + 2}", "allow")
    assert told.after.reason == "budget exhausted: 10 of 10 calls used in this day"


def test_what_was_used_before_the_period_and_by_others_counts_where_it_should() -> None:
    moments = [
        used(AT - 2 * SECOND, 6),
        began(AT - SECOND),
        used(AT, 100, Asked("other", "w")),
        began(AT + SECOND),
    ]
    scope = PolicyScope(agent_names=["bot"])
    for limit, action in ((6, "block"), (7, "allow")):
        budget = policy(BudgetRule(unit="calls", limit=limit, window="day"), scope=scope)
        found = replay([], [budget], moments, AT, 5)
        assert (found.runs, found.after) == (1, {action: 1})


def test_a_rate_counts_the_runs_before() -> None:
    moments = [began(AT + n * SECOND) for n in range(5)]
    found = replay([], [policy(RateRule(unit="runs", limit=3, window="hour"))], moments, AT, 5)
    assert found.after == {"allow": 3, "throttle": 2}
    assert [told.at for told in found.sample] == [AT + 4 * SECOND, AT + 3 * SECOND]


def test_models_are_those_that_the_run_called() -> None:
    moments = [began(AT, models=("good",)), began(AT + 1, models=("bad", "good")), began(AT + 2)]
    found = replay([], [policy(ModelsRule(["good"]))], moments, AT, 5)
    assert [told.run_id for told in found.sample] == [f"run_{AT + 1}"]


def test_another_reason_for_the_same_action_is_no_change() -> None:
    deny = AgentsRule(deny=["*"])
    found = replay([policy(deny)], [policy(deny, "pol_2", reason="else")], [began(AT)], AT, 5)
    assert (found.before, found.after, found.changed) == ({"block": 1}, {"block": 1}, 0)


moments_ = st.lists(
    st.one_of(
        st.builds(began, st.integers(AT - DAY, AT + DAY)),
        st.builds(used, st.integers(AT - DAY, AT + DAY), st.integers(1, 4)),
    ),
    max_size=20,
).map(lambda found: sorted(found, key=lambda moment: moment.at))


@given(moments_, st.integers(1, 6), st.integers(0, 3))
def test_a_further_policy_makes_no_answer_milder_and_all_runs_are_there(
    moments: list[Began | Used], limit: int, sample_max: int
) -> None:
    now = [policy(RateRule(unit="runs", limit=3, window="hour"))]
    then = [*now, policy(BudgetRule(unit="calls", limit=limit, window="day"), "pol_2")]
    found = replay(now, then, moments, AT, sample_max)
    judged = [one for one in moments if isinstance(one, Began) and one.at >= AT]
    assert found.runs == len(judged)
    assert sum(found.before.values()) == sum(found.after.values()) == len(judged)
    assert len(found.sample) == min(found.changed, sample_max)
    for told in found.sample:
        severity = SEVERITY.index
        assert severity(told.after.action) < severity(told.before.action)
    assert replay(now, now, moments, AT, sample_max).changed == 0
