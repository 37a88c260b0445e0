"""Whether a rule's conditions hold for a check-in. Pure; total on anything that was validated."""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import Struct

from commands.approvals.json_path import ABSENT, find, parse_path
from commands.opening_hours import is_open
from schemas.approvals.policies import Conditions, ContextTest, TextMatch, TrustRange
from schemas.approvals.vocabulary import RiskLevel, Urgency
from schemas.types import Json


class Asked(Struct, frozen=True):
    """What the policies see of a check-in. at: microseconds UTC; trust_score: 0 to 100."""

    action: str
    risk_level: RiskLevel
    urgency: Urgency
    agent_id: str
    platform: str
    context: Json
    at: int
    trust_score: float


def matched(when: Conditions, asked: Asked) -> list[str] | None:
    """The names of the conditions that held, in order; None when one of them did not."""
    held: list[str] = []
    for name, holds in _checks(when, asked):
        if not holds:
            return None
        held.append(name)
    return held


def _checks(when: Conditions, asked: Asked) -> Iterator[tuple[str, bool]]:
    """Each condition that is given, cheapest first; lazily, so that the first miss is the last."""
    if when.risk_levels:
        yield "risk_levels", asked.risk_level in when.risk_levels
    if when.urgencies:
        yield "urgencies", asked.urgency in when.urgencies
    if when.agent_ids:
        yield "agent_ids", asked.agent_id in when.agent_ids
    if when.platforms:
        yield "platforms", asked.platform in when.platforms
    if when.trust is not None:
        yield "trust", _trust_holds(when.trust, asked.trust_score)
    if when.action is not None:
        yield "action", _text_holds(when.action, asked.action)
    if when.schedule is not None:
        yield "schedule", is_open(when.schedule, asked.at)
    if when.context:
        yield "context", _context_holds(when.context, asked.context)


def _text_holds(match: TextMatch, text: str) -> bool:
    folded = text.casefold()
    return (
        (match.equals is None or folded == match.equals.casefold())
        and (match.prefix is None or folded.startswith(match.prefix.casefold()))
        and (match.glob is None or fnmatchcase(folded, match.glob.casefold()))
    )


def _trust_holds(trust: TrustRange, score: float) -> bool:
    return (trust.min is None or score >= trust.min) and (trust.max is None or score <= trust.max)


def _context_holds(tests: list[ContextTest], context: Json) -> bool:
    document = msgspec.json.decode(context)
    return all(context_test_holds(test, document) for test in tests)


def context_test_holds(test: ContextTest, document: Any) -> bool:
    """Whether one comparison holds. What is absent, or of another type, holds for none.

    Hence no rule fires on a field that the agent left out, unless it asks `exists: false`.
    """
    found = find(document, parse_path(test.path))
    wanted = _value(test.value)
    if test.operator == "exists":
        return (found is not ABSENT) is bool(wanted)
    if found is ABSENT:
        return False
    match test.operator:
        case "eq":
            return same(found, wanted)
        case "ne":
            return not same(found, wanted)
        case "in":
            return any(same(found, one) for one in wanted)
        case "not_in":
            return not any(same(found, one) for one in wanted)
        case "contains":
            if isinstance(found, str):
                return isinstance(wanted, str) and wanted in found
            return isinstance(found, list) and any(same(one, wanted) for one in found)
        case "starts_with":
            return isinstance(found, str) and found.startswith(wanted)
        case "glob":
            return isinstance(found, str) and fnmatchcase(found, wanted)
        case "gt" | "gte" | "lt" | "lte":
            return _compares(test.operator, found, wanted)


@lru_cache(maxsize=4096)
def _value(text: Json) -> Any:
    return msgspec.json.decode(text)


def same(left: Any, right: Any) -> bool:
    """Equality of JSON values: 1 is 1.0, but never true."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    return bool(left == right)


def is_number(value: Any) -> bool:
    """Whether a decoded JSON value is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _compares(operator: str, found: Any, wanted: Any) -> bool:
    both = (found, wanted)
    if not (all(map(is_number, both)) or all(isinstance(one, str) for one in both)):
        return False
    match operator:
        case "gt":
            return bool(found > wanted)
        case "gte":
            return bool(found >= wanted)
        case "lt":
            return bool(found < wanted)
    return bool(found <= wanted)
