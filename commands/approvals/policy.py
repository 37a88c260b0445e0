"""The policy engine: what a room's policies say of a check-in, and whether they make sense.

Order, the first that speaks decides: a `forbid` rule anywhere in the list; the first other rule
that matches; the trust thresholds (low and medium risk only); the default action.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from commands.approvals.conditions import Asked, is_number, matched
from commands.approvals.json_path import PathFault, parse_path
from commands.faults import MAX_LIST, MAX_TEXT, Fault, hours_faults, text_faults
from commands.refusals import InvalidCommand
from schemas.approvals.policies import (
    Conditions,
    ContextTest,
    Policies,
    Rule,
    TextMatch,
    TrustRange,
    Verdict,
)

MAX_RULES = 100
MAX_VALUE_BYTES = 1024
MAX_APPROVALS = 20
MAX_REVIEWERS = 20

DEFAULT_POLICIES = Policies(
    default_action="require_approval", timeout_minutes=60, timeout_action="cancel"
)


def judge(policies: Policies, asked: Asked) -> Verdict:
    """What the policies say of a check-in. Pure and total on policies without faults."""
    for index, rule in enumerate(policies.rules):
        held = matched(rule.when, asked)
        if held is not None:
            return _by_rule(index, rule, held)
    return _by_trust(policies, asked) or Verdict(
        policies.default_action,
        "default",
        f"no rule matched; default_action is {policies.default_action}",
    )


def approvals_required(policies: Policies, verdict: Verdict) -> int:
    """How many people must approve what the policies gave this verdict on."""
    if verdict.action != "require_approval":
        return 1
    if verdict.rule_index is not None:
        of_rule = policies.rules[verdict.rule_index].approvals_required
        if of_rule is not None:
            return of_rule
    return policies.approvals_required


def _by_rule(index: int, rule: Rule, held: list[str]) -> Verdict:
    name = f" ({rule.name})" if rule.name else ""
    reason = rule.reason or f"rules[{index}]{name} matched on {', '.join(held)}"
    return Verdict(rule.action, "rule", reason, index, rule.name)


def _by_trust(policies: Policies, asked: Asked) -> Verdict | None:
    thresholds = policies.trust_thresholds
    if thresholds is None or asked.risk_level not in ("low", "medium"):
        return None
    name = f"auto_approve_{asked.risk_level}"
    threshold: float | None = getattr(thresholds, name)
    if threshold is None or asked.trust_score < threshold:
        return None
    reason = f"trust score {asked.trust_score:g} reaches {name} {threshold:g}"
    return Verdict("auto_approve", "trust", reason)


def check(policies: Policies) -> None:
    """Refuse policies that cannot be meant. Raises InvalidCommand, naming the first fault."""
    for fault in faults(policies):
        place = f"policies.{fault.place}"
        raise InvalidCommand(f"{place}: {fault.message}", field=place)


def faults(policies: Policies) -> Iterator[Fault]:
    """Every fault, in document order."""
    for name in ("timeout_minutes", "claim_minutes"):
        if not 1 <= getattr(policies, name) <= 10_080:
            yield Fault(name, "must be between 1 and 10080")
    yield from _approvals_faults(policies.approvals_required, "approvals_required")
    yield from _escalation_faults(policies)
    if len(policies.rules) > MAX_RULES:
        yield Fault("rules", f"at most {MAX_RULES} rules")
    for index, rule in enumerate(policies.rules[:MAX_RULES]):
        yield from _rule_faults(rule, f"rules[{index}]")
    thresholds = policies.trust_thresholds
    if thresholds is not None:
        for name in ("auto_approve_low", "auto_approve_medium"):
            yield from _score_faults(getattr(thresholds, name), f"trust_thresholds.{name}")


def _approvals_faults(count: int, place: str) -> Iterator[Fault]:
    if not 1 <= count <= MAX_APPROVALS:
        yield Fault(place, f"must be between 1 and {MAX_APPROVALS}")


def _escalation_faults(policies: Policies) -> Iterator[Fault]:
    minutes, reviewers = policies.escalate_after_minutes, policies.escalate_to
    if minutes is None:
        if reviewers:
            yield Fault("escalate_after_minutes", "is needed with escalate_to")
        return
    if not 1 <= minutes <= 10_080:
        yield Fault("escalate_after_minutes", "must be between 1 and 10080")
    elif minutes >= policies.timeout_minutes and policies.timeout_action != "hold":
        yield Fault("escalate_after_minutes", "must be less than timeout_minutes, which ends it")
    if not reviewers:
        yield Fault("escalate_to", "is needed with escalate_after_minutes")
    if len(reviewers) > MAX_REVIEWERS:
        yield Fault("escalate_to", f"at most {MAX_REVIEWERS} people")
    if len(set(reviewers)) != len(reviewers):
        yield Fault("escalate_to", "names somebody twice")


def _rule_faults(rule: Rule, place: str) -> Iterator[Fault]:
    for name in ("name", "reason"):
        yield from text_faults(getattr(rule, name), f"{place}.{name}", least=0)
    if rule.approvals_required is not None:
        yield from _approvals_faults(rule.approvals_required, f"{place}.approvals_required")
        if rule.action != "require_approval":
            yield Fault(f"{place}.approvals_required", "is for require_approval only")
    when = rule.when
    if when == Conditions():
        yield Fault(
            f"{place}.when", "needs at least one condition; default_action covers everything else"
        )
    if when.action is not None:
        yield from _text_match_faults(when.action, f"{place}.when.action")
    for name in ("agent_ids", "platforms"):
        values = getattr(when, name)
        if len(values) > MAX_LIST:
            yield Fault(f"{place}.when.{name}", f"at most {MAX_LIST} values")
        for index, value in enumerate(values[:MAX_LIST]):
            yield from text_faults(value, f"{place}.when.{name}[{index}]")
    if len(when.context) > MAX_LIST:
        yield Fault(f"{place}.when.context", f"at most {MAX_LIST} tests")
    for index, test in enumerate(when.context[:MAX_LIST]):
        yield from context_faults(test, f"{place}.when.context[{index}]")
    if when.schedule is not None:
        yield from hours_faults(when.schedule, f"{place}.when.schedule")
    if when.trust is not None:
        yield from _trust_faults(when.trust, f"{place}.when.trust")


def _text_match_faults(match: TextMatch, place: str) -> Iterator[Fault]:
    given = {name: getattr(match, name) for name in ("equals", "glob", "prefix")}
    if not any(value is not None for value in given.values()):
        yield Fault(place, "needs equals, glob or prefix")
    for name, value in given.items():
        if value is not None:
            yield from text_faults(value, f"{place}.{name}")


def context_faults(test: ContextTest, place: str) -> Iterator[Fault]:
    """What is wrong with a comparison at `place`."""
    try:
        parse_path(test.path)
    except PathFault as fault:
        yield Fault(f"{place}.path", str(fault))
    if len(test.path) > MAX_TEXT:
        yield Fault(f"{place}.path", f"at most {MAX_TEXT} characters")
    if len(test.value.encode()) > MAX_VALUE_BYTES:
        yield Fault(f"{place}.value", f"at most {MAX_VALUE_BYTES} bytes of JSON")
        return
    try:
        value = msgspec.json.decode(test.value)
    except (msgspec.DecodeError, RecursionError):
        yield Fault(f"{place}.value", "is not JSON")
        return
    expected = _operand_fault(test.operator, value)
    if expected:
        yield Fault(f"{place}.value", f"{test.operator} compares with {expected}")


def _operand_fault(operator: str, value: Any) -> str:
    """What the operator needs, in words, when the value is not that."""
    match operator:
        case "gt" | "gte" | "lt" | "lte":
            return "" if is_number(value) or isinstance(value, str) else "a number or a text"
        case "in" | "not_in":
            return "" if isinstance(value, list) and value else "a list of at least one value"
        case "starts_with" | "glob":
            return "" if isinstance(value, str) and value else "a text"
        case "exists":
            return "" if isinstance(value, bool) else "true or false"
    return ""


def _trust_faults(trust: TrustRange, place: str) -> Iterator[Fault]:
    if trust.min is None and trust.max is None:
        yield Fault(place, "needs min or max")
    for name in ("min", "max"):
        yield from _score_faults(getattr(trust, name), f"{place}.{name}")
    if trust.min is not None and trust.max is not None and trust.min > trust.max:
        yield Fault(f"{place}.max", "must not be below min")


def _score_faults(score: float | None, place: str) -> Iterator[Fault]:
    if score is not None and not 0 <= score <= 100:
        yield Fault(place, "must be between 0 and 100")
