"""Proposed policies over past check-ins: each as it was when it was asked."""

from typing import Any

import msgspec
import pytest

from commands.approvals.conditions import Asked
from commands.approvals.policy import DEFAULT_POLICIES, judge
from commands.approvals.policy_replay import Judged, Replayed, Tally
from schemas.approvals.policies import (
    Conditions,
    Policies,
    Rule,
    Schedule,
    TextMatch,
    TrustRange,
    TrustThresholds,
    Verdict,
)

# A Monday, 10:00 UTC.
MONDAY = 1_700_474_400_000_000
WAITED = judge(DEFAULT_POLICIES, Asked("x", "low", "normal", "a", "", "{}", 0, 0.0))


def asked(id: str = "ci_1", verdict: Verdict = WAITED, count: int = 1, **fields: Any) -> Replayed:
    about = Asked(
        **{
            "action": "refund an order",
            "risk_level": "low",
            "urgency": "normal",
            "agent_id": "agt_1",
            "platform": "crewai",
            "context": '{"amount":40}',
            "at": MONDAY,
            "trust_score": 15.0,
        }
        | fields
    )
    return Replayed(id, about, Judged(verdict, count))


def policies(*rules: Rule, **fields: Any) -> Policies:
    return msgspec.structs.replace(DEFAULT_POLICIES, rules=list(rules), **fields)


def test_those_that_would_have_gone_otherwise_are_told_with_the_rule() -> None:
    rule = Rule("forbid", Conditions(action=TextMatch(prefix="drop")), name="no drops")
    tally = Tally(policies(rule))
    (found,) = tally.add([asked(), asked("ci_2", action="drop tables")])
    assert (found.check_in.id, found.after.verdict.rule_name) == ("ci_2", "no drops")
    assert (dict(tally.before), dict(tally.after)) == (
        {"require_approval": 2},
        {"require_approval": 1, "forbid": 1},
    )


def test_the_same_answer_by_another_rule_is_no_change() -> None:
    rule = Rule("require_approval", Conditions(action=TextMatch(prefix="refund")))
    assert Tally(policies(rule)).add([asked()]) == []


@pytest.mark.parametrize(
    ("condition", "fitting", "other"),
    [
        ({"trust": TrustRange(min=20)}, {"trust_score": 20.0}, {"trust_score": 19.9}),
        (
            {"schedule": Schedule(weekdays=["mon"], from_time="09:00", until_time="17:00")},
            {"at": MONDAY},
            {"at": MONDAY + 86_400_000_000},
        ),
        ({"platforms": ["crewai"]}, {"platform": "crewai"}, {"platform": "langchain"}),
    ],
    ids=["trust", "schedule", "platform"],
)
def test_it_is_judged_as_it_was_when_it_was_asked(
    condition: dict[str, Any], fitting: dict[str, Any], other: dict[str, Any]
) -> None:
    tally = Tally(policies(Rule("auto_approve", Conditions(**condition))))
    found = tally.add([asked("ci_1", **fitting), asked("ci_2", **other)])
    assert [one.check_in.id for one in found] == ["ci_1"]


def test_thresholds_count_with_the_trust_of_then() -> None:
    tally = Tally(policies(trust_thresholds=TrustThresholds(auto_approve_low=30)))
    found = tally.add([asked("ci_1", trust_score=29.9), asked("ci_2", trust_score=30.0)])
    assert [(one.check_in.id, one.after.verdict.source) for one in found] == [("ci_2", "trust")]


def test_more_people_are_a_change_where_people_are_asked() -> None:
    tally = Tally(policies(approvals_required=2))
    (found,) = tally.add([asked("ci_1"), asked("ci_2", count=2)])
    assert (found.check_in.id, found.after.approvals_required) == ("ci_1", 2)
