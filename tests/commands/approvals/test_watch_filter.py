"""A watcher's filter: values, lists, operators; what is absent matches nothing."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands.approvals.watch_filter import filter_faults, passes

EVENT = {
    "risk_level": "high",
    "context": {"amount": 70, "tags": ["urgent"]},
    "overdue": True,
    "agent_id": None,
}


def passed(wanted: dict[str, Any]) -> bool:
    assert list(filter_faults(wanted)) == []
    return passes(msgspec.json.encode(wanted).decode(), EVENT)


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"risk_level": "high"},
        {"risk_level": ["low", "high"]},
        {"$.context.amount": 70.0},
        {"context.amount": {"gte": 50, "lt": 100}},
        {"context.tags[0]": "urgent", "overdue": True},
        {"context.missing": {"exists": False}},
        {"agent_id": None},
    ],
)
def test_what_is_wanted_passes(wanted: dict[str, Any]) -> None:
    assert passed(wanted)


@pytest.mark.parametrize(
    "wanted",
    [
        {"risk_level": "low"},
        {"risk_level": ["low", "medium"]},
        {"context.amount": {"gte": 50, "lt": 60}},
        {"risk_level": "high", "overdue": False},
        {"overdue": 1},
        {"context.missing": "x"},
        {"context.missing": {"ne": "x"}},
        {"context.amount": "70"},
    ],
)
def test_what_is_not_does_not(wanted: dict[str, Any]) -> None:
    assert not passed(wanted)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"$a": 1}, "not a path"),
        ({"a": {}}, "names no operator"),
        ({"a": {"like": 1}}, "is not one of"),
        ({"a": {"gte": []}}, "compares with a number or a text"),
        ({"a": []}, "compares with a list of at least one value"),
        ({"a": "x" * 2000}, "bytes of JSON"),
        ({f"a{number}": 1 for number in range(101)}, "at most 100 fields"),
    ],
)
def test_a_filter_that_cannot_be_meant_is_told(wanted: dict[str, Any], message: str) -> None:
    assert message in next(filter_faults(wanted)).message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(st.dictionaries(st.text(max_size=8), JSON, max_size=4), JSON)
def test_a_filter_without_faults_judges_any_event(wanted: dict[str, Any], event: Any) -> None:
    if not list(filter_faults(wanted)):
        assert passes(msgspec.json.encode(wanted).decode(), event) in (True, False)
