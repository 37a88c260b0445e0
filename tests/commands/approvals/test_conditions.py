"""Each kind of condition: when it holds, when not, and what absence means."""

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands.approvals.conditions import Asked, context_test_holds, matched
from commands.approvals.json_path import ABSENT, PathFault, find, parse_path
from commands.opening_hours import minutes_of
from schemas.approvals.policies import Conditions, ContextTest, Schedule, TextMatch, TrustRange
from tests.given import NOW


def asked(**fields: Any) -> Asked:
    defaults: dict[str, Any] = {
        "action": "Delete customer 17",
        "risk_level": "high",
        "urgency": "normal",
        "agent_id": "agt_1",
        "platform": "langchain",
        "context": "{}",
        "at": NOW,
        "trust_score": 15.0,
    }
    return Asked(**defaults | fields)


@pytest.mark.parametrize(
    ("match", "holds"),
    [
        (TextMatch(equals="delete customer 17"), True),
        (TextMatch(equals="delete customer"), False),
        (TextMatch(prefix="DELETE "), True),
        (TextMatch(prefix="drop "), False),
        (TextMatch(glob="delete*1[0-9]"), True),
        (TextMatch(glob="delete"), False),
        (TextMatch(prefix="delete", glob="*18"), False),
    ],
)
def test_an_action_is_matched_without_regard_to_letter_case(match: TextMatch, holds: bool) -> None:
    assert (matched(Conditions(action=match), asked()) == ["action"]) is holds


@pytest.mark.parametrize(
    ("when", "held"),
    [
        (Conditions(risk_levels=["high", "critical"]), ["risk_levels"]),
        (Conditions(risk_levels=["low"]), None),
        (Conditions(urgencies=["normal"]), ["urgencies"]),
        (Conditions(urgencies=["urgent"]), None),
        (Conditions(agent_ids=["agt_2", "agt_1"]), ["agent_ids"]),
        (Conditions(agent_ids=["agt_2"]), None),
        (Conditions(platforms=["langchain"]), ["platforms"]),
        (Conditions(platforms=["crewai"]), None),
        (Conditions(trust=TrustRange(min=15)), ["trust"]),
        (Conditions(trust=TrustRange(max=14.9)), None),
        (Conditions(risk_levels=["high"], trust=TrustRange(max=15)), ["risk_levels", "trust"]),
        (Conditions(risk_levels=["high"], urgencies=["low"]), None),
    ],
)
def test_all_given_conditions_must_hold(when: Conditions, held: list[str] | None) -> None:
    assert matched(when, asked()) == held


DOCUMENT = {
    "amount": 120,
    "rate": 0.5,
    "env": "prod-eu",
    "tags": ["a", "b"],
    "flag": True,
    "nothing": None,
    "lines": [{"sku": "x"}, {"sku": "y"}],
}


@pytest.mark.parametrize(
    ("path", "operator", "value", "holds"),
    [
        ("$.amount", "gt", 100, True),
        ("$.amount", "gt", 120, False),
        ("$.amount", "gte", 120, True),
        ("$.rate", "lt", 1, True),
        ("$.rate", "lte", 0.4, False),
        ("$.env", "gt", "a", True),
        ("$.env", "gt", 1, False),
        ("$.flag", "gte", 1, False),
        ("$.amount", "eq", 120.0, True),
        ("$.flag", "eq", 1, False),
        ("$.nothing", "eq", None, True),
        ("$.tags", "eq", ["a", "b"], True),
        ("$.lines[1]", "eq", {"sku": "y"}, True),
        ("$.amount", "ne", 1, True),
        ("$.env", "in", ["dev", "prod-eu"], True),
        ("$.env", "not_in", ["dev"], True),
        ("$.env", "not_in", ["prod-eu"], False),
        ("$.tags", "contains", "b", True),
        ("$.env", "contains", "-eu", True),
        ("$.env", "contains", 1, False),
        ("$.amount", "contains", 1, False),
        ("$.env", "starts_with", "prod", True),
        ("$.amount", "starts_with", "1", False),
        ("$.env", "glob", "prod-*", True),
        ("$.lines[0].sku", "glob", "X", False),
        ("$.nothing", "exists", True, True),
        ("$.missing", "exists", False, True),
        ("$.missing", "exists", True, False),
        ("$.missing", "ne", 1, False),
        ("$.missing", "not_in", [1], False),
        ("$.lines[7].sku", "eq", "x", False),
        ("$.env[0]", "exists", False, True),
    ],
)
def test_a_context_test(path: str, operator: Any, value: Any, holds: bool) -> None:
    test = ContextTest(path, operator, msgspec.json.encode(value).decode())
    assert context_test_holds(test, DOCUMENT) is holds


def test_every_context_test_of_a_rule_must_hold() -> None:
    tests = [ContextTest("$.a", "eq", "1"), ContextTest("$.b", "eq", "2")]
    assert matched(Conditions(context=tests), asked(context='{"a":1,"b":2}')) == ["context"]
    assert matched(Conditions(context=tests), asked(context='{"a":1,"b":3}')) is None


def berlin(text: str) -> int:
    moment = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo("Europe/Berlin"))
    return int(moment.timestamp()) * 1_000_000


@pytest.mark.parametrize(
    ("schedule", "at", "holds"),
    [
        (Schedule("Europe/Berlin", ["fri"]), "2026-01-02T23:59", True),
        (Schedule("Europe/Berlin", ["fri"]), "2026-01-03T00:00", False),
        (Schedule("UTC", ["fri"]), "2026-01-03T00:30", True),
        (Schedule("Europe/Berlin", [], "09:00", "17:00"), "2026-01-02T09:00", True),
        (Schedule("Europe/Berlin", [], "09:00", "17:00"), "2026-01-02T17:00", False),
        (Schedule("Europe/Berlin", [], "09:00"), "2026-01-02T23:59", True),
        (Schedule("Europe/Berlin", [], None, "09:00"), "2026-01-02T00:00", True),
        # A night that starts on a Friday ends on the Saturday, and still counts as Friday's.
        (Schedule("Europe/Berlin", ["fri"], "22:00", "06:00"), "2026-01-03T05:59", True),
        (Schedule("Europe/Berlin", ["fri"], "22:00", "06:00"), "2026-01-03T06:00", False),
        (Schedule("Europe/Berlin", ["fri"], "22:00", "06:00"), "2026-01-03T23:00", False),
        (Schedule("Europe/Berlin", ["fri"], "22:00", "06:00"), "2026-01-02T05:00", False),
        # Summer time: nine in Berlin is seven in UTC.
        (Schedule("UTC", [], "07:00", "07:01"), "2026-07-01T09:00", True),
    ],
)
def test_a_schedule_is_read_in_its_own_zone(schedule: Schedule, at: str, holds: bool) -> None:
    found = matched(Conditions(schedule=schedule), asked(at=berlin(at)))
    assert (found == ["schedule"]) is holds


@pytest.mark.parametrize("text", ["9:00", "24:01", "12:60", "noon", "", "12:0", "-1:00", "٠٩:٠٠x"])
def test_a_malformed_time_of_day_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="time of day"):
        minutes_of(text)


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("$.a.b", ("a", "b")),
        ("a.b", ("a", "b")),
        ("$.a[0][12].b-c", ("a", 0, 12, "b-c")),
        ("$['unit price'].x", ("unit price", "x")),
        ("$[3]", (3,)),
    ],
)
def test_a_path_is_read_into_steps(text: str, steps: tuple[str | int, ...]) -> None:
    assert parse_path(text) == steps


@pytest.mark.parametrize("text", ["", "$", "$a", ".a", "$..a", "$.a[", "$.a[-1]", "a b", "$.a.*"])
def test_a_malformed_path_is_refused(text: str) -> None:
    with pytest.raises(PathFault):
        parse_path(text)


@given(
    st.recursive(st.none() | st.integers(), lambda x: st.lists(x) | st.dictionaries(st.text(), x))
)
def test_finding_never_fails(document: Any) -> None:
    assert find(document, ("a", 0, "b")) is ABSENT or document["a"][0]["b"] is not ABSENT
