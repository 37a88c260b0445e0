"""What the policies say of a request to run. Pure: the counts and the instant are given.

Every policy that is enabled and whose scope fits is asked. The most severe action wins, in the
order of `SEVERITY`; of the policies that say it, the one with the highest priority (then the
first by id) tells the reason. Who is told to redact is told of all that any policy wants left out.
"""

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple, assert_never

from msgspec import Struct

from commands.opening_hours import is_open, opens_at
from schemas.billing.window import window_of
from schemas.instants import iso
from schemas.observability.policy import (
    Action,
    AgentsRule,
    BudgetRule,
    Definition,
    ModelsRule,
    PolicyScope,
    RateRule,
    RedactionRule,
    Rule,
    RuleKind,
    ScheduleRule,
    kind_of,
)

SEVERITY: tuple[Action, ...] = ("block", "throttle", "skip", "retry", "redact", "warn", "allow")
NANODOLLARS = 1_000_000_000
_RANK = {action: rank for rank, action in enumerate(SEVERITY)}
_SECOND = 1_000_000
_MINUTE = 60 * _SECOND


class Policy(Struct, frozen=True):
    """A policy as it stands."""

    id: str
    revision: int
    definition: Definition


class Asked(Struct, frozen=True):
    """Who wants to run; `model` is empty when the agent does not say which it will call."""

    agent_name: str
    workflow_name: str
    agent_id: str = ""
    model: str = ""


class Amount(NamedTuple):
    """What was used."""

    runs: int = 0
    calls: int = 0
    tokens: int = 0
    nanodollars: int = 0

    def plus(self, other: "Amount") -> "Amount":
        """Both together."""
        return Amount(*map(sum, zip(self, other, strict=True)))


class Usage(Struct, frozen=True):
    """What one agent, workflow and agent id used in the current window of a kind."""

    window: str
    agent_name: str
    workflow_name: str
    agent_id: str
    amount: Amount


class Total(Struct, frozen=True):
    """What a policy's scope used in the window that begins at `start`."""

    start: int
    amount: Amount


class Evaluation(Struct, frozen=True):
    """What one policy said."""

    policy_id: str
    policy_name: str
    revision: int
    kind: RuleKind
    action: Action
    reason: str
    metadata: dict[str, Any]


class Verdict(Struct, frozen=True):
    """What to do, as the reason's policy tells it, and what each policy said."""

    action: Action = "allow"
    reason: str = ""
    metadata: dict[str, Any] = {}
    evaluations: list[Evaluation] = []


class _Said(NamedTuple):
    action: Action
    reason: str = ""
    metadata: Mapping[str, Any] = {}


def span_of(window: str, at: int) -> tuple[int, int]:
    """Start and end of the minute, hour, day or month (UTC) that the instant is in."""
    if window == "minute":
        start = at - at % _MINUTE
        return start, start + _MINUTE
    assert window in ("hour", "day", "month"), window
    found = window_of(window, at)  # type: ignore[arg-type]
    return found.start, found.end


def window_counted(rule: Rule) -> str:
    """The kind of window that a rule counts in, empty for one that counts nothing."""
    return rule.window if isinstance(rule, BudgetRule | RateRule) else ""


def totals_of(policies: Iterable[Policy], usages: Sequence[Usage], now: int) -> dict[str, Total]:
    """By policy id what its scope used, for the policies that count."""
    found: dict[str, Total] = {}
    for policy in policies:
        window = window_counted(policy.definition.rule)
        if window:
            amount = Amount()
            for usage in usages:
                if usage.window == window and covers(policy.definition.scope, usage):
                    amount = amount.plus(usage.amount)
            found[policy.id] = Total(span_of(window, now)[0], amount)
    return found


def evaluate(
    policies: Iterable[Policy], asked: Asked, totals: Mapping[str, Total], now: int
) -> Verdict:
    """What the policies say. A total of a window that has passed counts as nothing."""
    speaking = [
        policy
        for policy in policies
        if policy.definition.enabled and covers(policy.definition.scope, asked)
    ]
    speaking.sort(key=lambda policy: (-policy.definition.priority, policy.id))
    evaluations = [_evaluation(policy, asked, totals.get(policy.id), now) for policy in speaking]
    if not evaluations:
        return Verdict()
    winner = min(evaluations, key=lambda said: _RANK[said.action])
    if winner.action == "allow":
        return Verdict(evaluations=evaluations)
    metadata = {
        **winner.metadata,
        "policy_id": winner.policy_id,
        "policy_name": winner.policy_name,
    }
    if winner.action == "redact":
        metadata["redact"] = _everything_redacted(evaluations)
    return Verdict(winner.action, winner.reason, metadata, evaluations)


def _everything_redacted(evaluations: Sequence[Evaluation]) -> dict[str, list[str]]:
    named = [said.metadata["redact"] for said in evaluations if said.action == "redact"]
    # A dict keeps the first of each, in order.
    return {
        part: list(dict.fromkeys(text for redact in named for text in redact[part]))
        for part in ("fields", "patterns")
    }


def covers(scope: PolicyScope, asked: Asked | Usage) -> bool:
    """Whether the scope is about whoever asks or used something."""
    return (
        _fits(scope.agent_names, asked.agent_name)
        and _fits(scope.workflow_names, asked.workflow_name)
        and _fits(scope.agent_ids, asked.agent_id)
    )


def _fits(patterns: Sequence[str], text: str) -> bool:
    return not patterns or _first(patterns, text) is not None


def _first(patterns: Sequence[str], text: str) -> str | None:
    """The first that is the text, or a glob of it."""
    return next((one for one in patterns if one == text or fnmatchcase(text, one)), None)


def _evaluation(policy: Policy, asked: Asked, total: Total | None, now: int) -> Evaluation:
    definition = policy.definition
    rule = definition.rule
    said = _ask(rule, asked, total, now)
    reason = said.reason
    if said.action != "allow" and definition.reason:
        reason = definition.reason
    return Evaluation(
        policy.id,
        definition.name,
        policy.revision,
        kind_of(rule),
        said.action,
        reason,
        dict(said.metadata),
    )


def _ask(rule: Rule, asked: Asked, total: Total | None, now: int) -> _Said:
    match rule:
        case BudgetRule():
            return _budget(rule, total, now)
        case RateRule():
            return _rate(rule, total, now)
        case AgentsRule():
            return _agents(rule, asked.agent_name)
        case ModelsRule():
            return _models(rule, asked.model)
        case RedactionRule():
            redact = {"fields": list(rule.fields), "patterns": list(rule.patterns)}
            return _Said("redact", _what_is_redacted(rule), {"redact": redact})
        case ScheduleRule():
            return _schedule(rule, now)
    assert_never(rule)


def _used(window: str, total: Total | None, now: int) -> tuple[Amount, int, int]:
    """What was used in the window that it is now, and that window."""
    start, end = span_of(window, now)
    current = total is not None and total.start == start
    return (total.amount if total is not None and current else Amount()), start, end


def _budget(rule: BudgetRule, total: Total | None, now: int) -> _Said:
    amount, start, end = _used(rule.window, total, now)
    scale = NANODOLLARS if rule.unit == "usd" else 1
    limit = round(rule.limit * scale)
    used = {"usd": amount.nanodollars, "tokens": amount.tokens, "calls": amount.calls}[rule.unit]
    left = max(0, limit - used)
    metadata: dict[str, Any] = {
        "budget": {
            "unit": rule.unit,
            "window": rule.window,
            "limit": rule.limit,
            "used": used / scale if scale > 1 else used,
            "remaining": left / scale if scale > 1 else left,
            "window_start": iso(start),
            "resets_at": iso(end),
        }
    }
    amounts = f"{used / scale:g} of {rule.limit:g} {rule.unit} used in this {rule.window}"
    if used >= limit:
        if rule.action in ("throttle", "retry"):
            metadata["retry_after_seconds"] = _seconds_until(end, now)
        return _Said(rule.action, f"budget exhausted: {amounts}", metadata)
    if rule.warn_percent is not None and used * 100 >= limit * rule.warn_percent:
        return _Said("warn", f"budget at {used * 100 // limit} percent: {amounts}", metadata)
    return _Said("allow", "", metadata)


def _rate(rule: RateRule, total: Total | None, now: int) -> _Said:
    amount, _, end = _used(rule.window, total, now)
    used = amount.runs if rule.unit == "runs" else amount.calls
    metadata: dict[str, Any] = {
        "rate": {"unit": rule.unit, "window": rule.window, "limit": rule.limit, "used": used}
    }
    if used < rule.limit:
        return _Said("allow", "", metadata)
    metadata["retry_after_seconds"] = rule.retry_after_seconds or _seconds_until(end, now)
    reason = f"rate exceeded: {used} of {rule.limit} {rule.unit} in this {rule.window}"
    return _Said("throttle", reason, metadata)


def _agents(rule: AgentsRule, name: str) -> _Said:
    denied = _first(rule.deny, name)
    if denied is not None:
        return _Said(rule.action, f"agent {name!r} is denied", {"matched": denied})
    if not _fits(rule.allow, name):
        return _Said(rule.action, f"agent {name!r} is not among those allowed")
    return _Said("allow")


def _models(rule: ModelsRule, model: str) -> _Said:
    metadata = {"allowed_models": list(rule.allow)}
    if model and not _fits(rule.allow, model):
        return _Said(rule.action, f"model {model!r} is not among those allowed", metadata)
    return _Said("allow", "", metadata)


def _what_is_redacted(rule: RedactionRule) -> str:
    named = [f"fields {', '.join(rule.fields)}"] if rule.fields else []
    if rule.patterns:
        named.append(f"texts of {len(rule.patterns)} patterns")
    return f"leave out {' and '.join(named)}"


def _schedule(rule: ScheduleRule, now: int) -> _Said:
    if is_open(rule, now):
        return _Said("allow")
    opening = opens_at(rule, now)
    metadata: dict[str, Any] = {"opens_at": iso(opening)}
    if rule.outside == "retry":
        metadata["retry_after_seconds"] = _seconds_until(opening, now)
    return _Said(rule.outside, f"outside the schedule until {iso(opening)}", metadata)


def _seconds_until(end: int, now: int) -> int:
    """Whole seconds, rounded up, so that who waits them is not too early."""
    return max(1, -((now - end) // _SECOND))
