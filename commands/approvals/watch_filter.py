"""A watcher's filter: what the fields of an event must be for the watcher to be triggered.

`{"risk_level": "high"}` equals; `{"risk_level": ["high", "critical"]}` is one of;
`{"context.amount": {"gte": 50}}` compares, with the operators of policies. All of it must hold.
What is absent, or of another type, holds for nothing but `exists`.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, get_args

import msgspec

from commands.approvals.conditions import context_test_holds
from commands.approvals.policy import context_faults
from commands.faults import MAX_LIST, Fault
from schemas.approvals.policies import ContextTest, Operator
from schemas.types import Json

_OPERATORS = frozenset(get_args(Operator))


def filter_faults(wanted: Mapping[str, Any]) -> Iterator[Fault]:
    """Every fault of a filter, in order; places are its own fields."""
    if len(wanted) > MAX_LIST:
        yield Fault("", f"at most {MAX_LIST} fields")
    for field, value in wanted.items():
        if isinstance(value, dict):
            if not value:
                yield Fault(field, "names no operator")
            for operator in value:
                if operator not in _OPERATORS:
                    known = ", ".join(get_args(Operator))
                    yield Fault(field, f"{operator!r} is not one of {known}")
        for test in _tests_of_field(field, value):
            for fault in context_faults(test, field):
                yield Fault(field, fault.message)


def passes(wanted: Json, fields: Any) -> bool:
    """Whether the fields of an event (decoded JSON) are what a filter without faults wants."""
    return all(context_test_holds(test, fields) for test in _tests(wanted))


@lru_cache(maxsize=4096)
def _tests(wanted: Json) -> tuple[ContextTest, ...]:
    decoded: dict[str, Any] = msgspec.json.decode(wanted)
    return tuple(test for item in decoded.items() for test in _tests_of_field(*item))


def _tests_of_field(field: str, value: Any) -> Iterator[ContextTest]:
    if isinstance(value, dict):
        for operator, operand in value.items():
            if operator in _OPERATORS:
                yield ContextTest(field, operator, _text(operand))
    elif isinstance(value, list):
        yield ContextTest(field, "in", _text(value))
    else:
        yield ContextTest(field, "eq", _text(value))


def _text(value: Any) -> Json:
    return msgspec.json.encode(value).decode()
