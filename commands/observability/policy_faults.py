"""What cannot be meant in a policy, and where: `rule.patterns[0]`."""

import re
from collections.abc import Iterator, Sequence
from typing import assert_never

from commands.faults import MAX_LIST, MAX_TEXT, Fault, hours_faults, text_faults
from commands.refusals import InvalidCommand
from schemas.observability.policy import (
    AgentsRule,
    BudgetRule,
    Definition,
    ModelsRule,
    RateRule,
    RedactionRule,
    Rule,
    ScheduleRule,
)

# In nanodollars it has to fit 64 bits.
MAX_USD = 1e9


def check(definition: Definition) -> None:
    """Refuse what cannot be meant. Raises InvalidCommand, naming the first fault."""
    for fault in faults(definition):
        raise InvalidCommand(f"{fault.place}: {fault.message}", field=fault.place)


def faults(definition: Definition) -> Iterator[Fault]:
    """Every fault, in document order."""
    yield from text_faults(definition.name, "name")
    yield from text_faults(definition.reason, "reason", least=0)
    rules = definition.rules.given
    if len(rules) != 1:
        yield Fault("rule", "a policy has one rule")
    for rule in rules:
        yield from _rule(rule)
    for name in ("agent_names", "workflow_names", "agent_ids"):
        yield from _texts(getattr(definition.scope, name), f"scope.{name}")


def _rule(rule: Rule) -> Iterator[Fault]:
    match rule:
        case BudgetRule():
            if rule.unit == "usd" and rule.limit > MAX_USD:
                yield Fault("rule.limit", f"at most {MAX_USD:.0f} dollars")
            if rule.unit != "usd" and not rule.limit.is_integer():
                yield Fault("rule.limit", f"{rule.unit} are whole")
        case RateRule():
            pass
        case AgentsRule():
            yield from _texts(rule.allow, "rule.allow")
            yield from _texts(rule.deny, "rule.deny")
            if not rule.allow and not rule.deny:
                yield Fault("rule", "needs allow or deny")
        case ModelsRule():
            yield from _texts(rule.allow, "rule.allow")
            if not rule.allow:
                yield Fault("rule.allow", "needs at least one model")
        case RedactionRule():
            yield from _texts(rule.fields, "rule.fields")
            yield from _texts(rule.patterns, "rule.patterns")
            yield from _patterns(rule.patterns[:MAX_LIST])
            if not rule.fields and not rule.patterns:
                yield Fault("rule", "needs fields or patterns")
        case ScheduleRule():
            yield from hours_faults(rule, "rule")
        case _:
            assert_never(rule)


def _texts(texts: Sequence[str], place: str) -> Iterator[Fault]:
    if len(texts) > MAX_LIST:
        yield Fault(place, f"at most {MAX_LIST} values")
    for index, text in enumerate(texts[:MAX_LIST]):
        yield from text_faults(text, f"{place}[{index}]")


def _patterns(patterns: Sequence[str]) -> Iterator[Fault]:
    for index, pattern in enumerate(patterns):
        if len(pattern) > MAX_TEXT:
            continue
        try:
            re.compile(pattern)
        except (re.error, OverflowError, RecursionError) as error:
            yield Fault(f"rule.patterns[{index}]", f"is no regular expression: {error}")
