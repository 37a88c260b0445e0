"""The order in which policies speak, the reasons they give, and the faults they may have."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands.approvals.conditions import Asked
from commands.approvals.policy import DEFAULT_POLICIES, check, faults, judge
from commands.refusals import InvalidCommand
from schemas.approvals.policies import (
    Conditions,
    ContextTest,
    Policies,
    Rule,
    Schedule,
    TextMatch,
    TrustRange,
    TrustThresholds,
    Verdict,
)
from tests.commands.approvals.test_conditions import asked

REFUNDS = Conditions(action=TextMatch(prefix="refund"))
EVERY_RISK = Conditions(risk_levels=["low", "medium", "high", "critical"])


def policies(*rules: Rule, **fields: Any) -> Policies:
    return msgspec.structs.replace(DEFAULT_POLICIES, rules=list(rules), **fields)


def test_without_a_rule_the_default_decides() -> None:
    assert judge(policies(default_action="forbid"), asked()) == Verdict(
        "forbid", "default", "no rule matched; default_action is forbid"
    )


def test_the_first_matching_rule_decides_and_says_which_it_was() -> None:
    rules = (
        Rule("require_approval", REFUNDS),
        Rule("auto_approve", EVERY_RISK, name="anything"),
        Rule("require_approval", EVERY_RISK),
    )
    assert judge(policies(*rules), asked(action="restart")) == Verdict(
        "auto_approve", "rule", "rules[1] (anything) matched on risk_levels", 1, "anything"
    )
    assert judge(policies(*rules), asked(action="Refund 3")).rule_index == 0


def test_the_first_rule_that_matches_decides_whatever_it_says() -> None:
    let = Rule("auto_approve", EVERY_RISK)
    stop = Rule("forbid", REFUNDS, name="no refunds", reason="refunds are frozen")
    question = asked(action="refund 3")
    assert judge(policies(stop, let), question) == Verdict(
        "forbid", "rule", "refunds are frozen", 0, "no refunds"
    )
    assert judge(policies(let, stop), question).action == "auto_approve"


@pytest.mark.parametrize(
    ("risk_level", "score", "action"),
    [
        ("low", 20.0, "auto_approve"),
        ("low", 19.9, "require_approval"),
        ("medium", 60.0, "auto_approve"),
        ("medium", 59.9, "require_approval"),
        ("high", 100.0, "require_approval"),
        ("critical", 100.0, "require_approval"),
    ],
)
def test_trust_answers_for_low_and_medium_risk_only(
    risk_level: Any, score: float, action: str
) -> None:
    thresholds = TrustThresholds(auto_approve_low=20, auto_approve_medium=60)
    verdict = judge(
        policies(trust_thresholds=thresholds), asked(risk_level=risk_level, trust_score=score)
    )
    assert verdict.action == action


def test_trust_says_which_threshold_was_reached() -> None:
    thresholds = TrustThresholds(auto_approve_low=20.5)
    verdict = judge(
        policies(trust_thresholds=thresholds), asked(risk_level="low", trust_score=31.2)
    )
    assert verdict == Verdict(
        "auto_approve", "trust", "trust score 31.2 reaches auto_approve_low 20.5"
    )


def test_a_rule_that_asks_for_a_person_is_stronger_than_trust() -> None:
    thresholds = TrustThresholds(auto_approve_low=0)
    rules = Rule("require_approval", EVERY_RISK)
    verdict = judge(policies(rules, trust_thresholds=thresholds), asked(risk_level="low"))
    assert (verdict.action, verdict.source) == ("require_approval", "rule")


@pytest.mark.parametrize(
    ("when", "place", "message"),
    [
        (Conditions(), "when", "at least one condition"),
        (Conditions(action=TextMatch()), "when.action", "equals, glob or prefix"),
        (Conditions(action=TextMatch(glob="")), "when.action.glob", "1 to 500 characters"),
        (Conditions(platforms=["x", ""]), "when.platforms[1]", "1 to 500 characters"),
        (Conditions(agent_ids=["a"] * 101), "when.agent_ids", "at most 100"),
        (
            Conditions(context=[ContextTest("$.a", "eq", "1"), ContextTest("$$", "eq", "1")]),
            "when.context[1].path",
            "not a path from character 2",
        ),
        (Conditions(context=[ContextTest("$.a", "gt", "true")]), "when.context[0].value", "number"),
        (Conditions(context=[ContextTest("$.a", "in", "[]")]), "when.context[0].value", "a list"),
        (Conditions(context=[ContextTest("$.a", "eq", "{")]), "when.context[0].value", "not JSON"),
        (Conditions(context=[ContextTest("$.a", "exists", "1")]), "when.context[0].value", "true"),
        (Conditions(schedule=Schedule("Mars/Base", ["mon"])), "when.schedule.timezone", "no such"),
        (Conditions(schedule=Schedule("../etc", ["mon"])), "when.schedule.timezone", "no such"),
        (Conditions(schedule=Schedule()), "when.schedule", "weekdays, from_time or until_time"),
        (
            Conditions(schedule=Schedule(from_time="9:00")),
            "when.schedule.from_time",
            "written HH:MM",
        ),
        (
            Conditions(schedule=Schedule(from_time="09:00", until_time="09:00")),
            "when.schedule.until_time",
            "differ",
        ),
        (Conditions(trust=TrustRange()), "when.trust", "min or max"),
        (Conditions(trust=TrustRange(min=101)), "when.trust.min", "between 0 and 100"),
        (Conditions(trust=TrustRange(min=9, max=8)), "when.trust.max", "below min"),
    ],
)
def test_a_fault_is_refused_with_its_place(when: Conditions, place: str, message: str) -> None:
    place = f"policies.rules[1].{place}"
    with pytest.raises(InvalidCommand, match=message) as caught:
        check(policies(Rule("forbid", REFUNDS), Rule("forbid", when)))
    assert caught.value.details == {"field": place}
    assert caught.value.message.startswith(f"{place}: ")


def test_limits_of_the_whole() -> None:
    assert [fault.place for fault in faults(policies(timeout_minutes=0))] == ["timeout_minutes"]
    assert [fault.place for fault in faults(policies(timeout_minutes=10_081))] == [
        "timeout_minutes"
    ]
    assert [fault.place for fault in faults(policies(*[Rule("forbid", REFUNDS)] * 101))] == [
        "rules"
    ]
    thresholds = TrustThresholds(auto_approve_medium=-1)
    assert [fault.place for fault in faults(policies(trust_thresholds=thresholds))] == [
        "trust_thresholds.auto_approve_medium"
    ]
    assert list(faults(DEFAULT_POLICIES)) == []


WHENS = st.builds(
    Conditions,
    risk_levels=st.lists(st.sampled_from(["low", "medium", "high", "critical"]), max_size=2),
    action=st.none() | st.builds(TextMatch, prefix=st.text(max_size=2)),
    trust=st.none() | st.builds(TrustRange, min=st.floats(0, 100)),
)
POLICIES = st.builds(
    Policies,
    default_action=st.sampled_from(["auto_approve", "require_approval", "forbid"]),
    timeout_minutes=st.just(60),
    timeout_action=st.just("cancel"),
    rules=st.lists(
        st.builds(
            Rule,
            action=st.sampled_from(["auto_approve", "require_approval", "forbid"]),
            when=WHENS,
        ),
        max_size=5,
    ),
    trust_thresholds=st.none()
    | st.builds(TrustThresholds, auto_approve_low=st.none() | st.floats(0, 100)),
)
QUESTIONS = st.builds(
    asked,
    action=st.text(max_size=3),
    risk_level=st.sampled_from(["low", "medium", "high", "critical"]),
    trust_score=st.floats(0, 100),
)


@given(POLICIES, QUESTIONS, WHENS, st.integers(0, 5))
def test_adding_a_forbid_rule_never_lets_more_through(
    before: Policies, question: Asked, when: Conditions, place: int
) -> None:
    rules = list(before.rules)
    rules.insert(place, Rule("forbid", when))
    after = msgspec.structs.replace(before, rules=rules)
    first, then = judge(before, question), judge(after, question)
    assert then.action in (first.action, "forbid")


@given(POLICIES, QUESTIONS)
def test_raising_trust_never_takes_an_approval_by_threshold_away(
    policies: Policies, question: Asked
) -> None:
    plain = msgspec.structs.replace(policies, rules=[])
    if judge(plain, question).source == "trust":
        higher = msgspec.structs.replace(question, trust_score=100.0)
        assert judge(plain, higher).action == "auto_approve"
