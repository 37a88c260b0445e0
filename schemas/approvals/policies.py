"""A room's policies as events carry them. What they mean is in `commands/approvals/README.md`."""

from typing import Literal

from msgspec import Struct

from schemas.approvals.vocabulary import PolicyAction, RiskLevel, TimeoutAction, Urgency
from schemas.types import Json, Text

Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
Operator = Literal[
    "eq",
    "ne",
    "gt",
    "gte",
    "lt",
    "lte",
    "in",
    "not_in",
    "contains",
    "starts_with",
    "glob",
    "exists",
]


class TextMatch(Struct, frozen=True):
    """How a text must look, letter case ignored. Every field that is given must hold."""

    equals: Text | None = None
    glob: Text | None = None
    prefix: Text | None = None


class ContextTest(Struct, frozen=True):
    """One comparison with a field of the check-in's context.

    path: `$.payment.lines[0].amount`. value: what it is compared with, a JSON document.
    """

    path: Text
    operator: Operator
    value: Json = "null"


class Schedule(Struct, frozen=True):
    """Weekdays and hours in a time zone.

    `from_time` and `until_time` are `HH:MM`, the end excluded; an end before the start is on the
    next day, and then the weekday is that of the start. Nothing given means any.
    """

    timezone: Text = "UTC"
    weekdays: list[Weekday] = []
    from_time: Text | None = None
    until_time: Text | None = None


class TrustRange(Struct, frozen=True):
    """The agent's trust score in the room, 0 to 100, both ends included."""

    min: float | None = None
    max: float | None = None


class Conditions(Struct, frozen=True):
    """What a rule asks of a check-in. All that is given must hold; a list holds if one fits."""

    action: TextMatch | None = None
    risk_levels: list[RiskLevel] = []
    urgencies: list[Urgency] = []
    agent_ids: list[Text] = []
    platforms: list[Text] = []
    context: list[ContextTest] = []
    schedule: Schedule | None = None
    trust: TrustRange | None = None


class Rule(Struct, frozen=True):
    """When the conditions hold, do this. `reason` is told to the agent.

    approvals_required: in place of the room's, for what this rule has people decide.
    """

    action: PolicyAction
    when: Conditions
    name: Text = ""
    reason: Text = ""
    approvals_required: int | None = None


class TrustThresholds(Struct, frozen=True):
    """Trust scores from which low and medium risk need no person. None: never."""

    auto_approve_low: float | None = None
    auto_approve_medium: float | None = None


class Policies(Struct, frozen=True):
    """All that decides a room's check-ins before a person does.

    timeout_minutes: 1 to 10080. timeout_override: whether an agent may set the timeout and what it
    does with each check-in; where it may, it can ask to be approved by nobody's answer.
    claim_minutes: 1 to 10080, how long an agent keeps its task without giving a sign of life.
    approvals_required: 1 to 20, how many people must approve. escalate_after_minutes: 1 to 10080,
    when the users in `escalate_to` are named as those who should answer; None: never.
    """

    default_action: PolicyAction
    timeout_minutes: int
    timeout_action: TimeoutAction
    rules: list[Rule] = []
    trust_thresholds: TrustThresholds | None = None
    timeout_override: bool = True
    claim_minutes: int = 60
    approvals_required: int = 1
    escalate_after_minutes: int | None = None
    escalate_to: list[Text] = []


class Verdict(Struct, frozen=True):
    """What the policies said of one check-in, and why. rule_index counts from 0."""

    action: PolicyAction
    source: Literal["rule", "trust", "default"]
    reason: str
    rule_index: int | None = None
    rule_name: str = ""
