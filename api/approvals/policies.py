"""Policies as clients write them: values are plain JSON, and nothing unknown slips through.

Elsewhere unknown fields are ignored. Here one would be a condition that is silently not there, and
a rule that matches more than was meant.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from api.problems import Problem
from commands.approvals.payload import NotCanonical, canonical_json
from commands.approvals.policy import (
    DEFAULT_POLICIES,
    MAX_APPROVALS,
    MAX_REVIEWERS,
    MAX_RULES,
    MAX_VALUE_BYTES,
)
from commands.faults import MAX_LIST
from schemas.approvals.policies import (
    Operator,
    Policies,
    Schedule,
    TextMatch,
    TrustRange,
    TrustThresholds,
)
from schemas.approvals.vocabulary import PolicyAction, RiskLevel, TimeoutAction, Urgency
from schemas.types import Text

TimeoutMinutes = Annotated[int, Meta(ge=1, le=10_080)]
Approvals = Annotated[int, Meta(ge=1, le=MAX_APPROVALS)]
Reviewers = Annotated[list[Text], Meta(max_length=MAX_REVIEWERS)]
Texts = Annotated[list[Text], Meta(max_length=MAX_LIST)]


class ActionMatch(TextMatch, frozen=True, forbid_unknown_fields=True):
    """How the action must look, letter case ignored. Every field that is given must hold."""


class ScheduleBody(Schedule, frozen=True, forbid_unknown_fields=True):
    """Weekdays and hours (`HH:MM`, the end excluded) in an IANA time zone."""


class TrustRangeBody(TrustRange, frozen=True, forbid_unknown_fields=True):
    """The agent's trust score in the room, 0 to 100, both ends included."""


class TrustThresholdsBody(TrustThresholds, frozen=True, forbid_unknown_fields=True):
    """Trust scores from which low and medium risk need no person."""


class ContextTestBody(Struct, frozen=True, forbid_unknown_fields=True):
    """A comparison of a field of the context (`$.lines[0].amount`) with any JSON value."""

    path: Text
    operator: Operator
    value: Any = None


class ConditionsBody(Struct, frozen=True, forbid_unknown_fields=True):
    """What a rule asks of a check-in. All that is given must hold; a list holds if one fits."""

    action: ActionMatch | None = None
    risk_levels: list[RiskLevel] = []
    urgencies: list[Urgency] = []
    agent_ids: Texts = []
    platforms: Texts = []
    context: Annotated[list[ContextTestBody], Meta(max_length=MAX_LIST)] = []
    schedule: ScheduleBody | None = None
    trust: TrustRangeBody | None = None


class RuleBody(Struct, frozen=True, forbid_unknown_fields=True):
    """When the conditions hold, do this. The first rule that matches decides.

    approvals_required: in place of the room's, for what this rule has people decide.
    """

    action: PolicyAction
    when: ConditionsBody
    name: Text = ""
    reason: Text = ""
    approvals_required: Approvals | None = None


Rules = Annotated[list[RuleBody], Meta(max_length=MAX_RULES)]


class PoliciesBody(Struct, frozen=True, forbid_unknown_fields=True):
    """The whole policy configuration of a room.

    approvals_required: how many people must approve. escalate_after_minutes: when the users in
    `escalate_to` are named as those who should answer.
    """

    default_action: PolicyAction
    timeout_minutes: TimeoutMinutes
    timeout_action: TimeoutAction
    rules: Rules
    trust_thresholds: TrustThresholdsBody | None = None
    timeout_override: bool = True
    claim_minutes: TimeoutMinutes = DEFAULT_POLICIES.claim_minutes
    approvals_required: Approvals = DEFAULT_POLICIES.approvals_required
    escalate_after_minutes: TimeoutMinutes | None = None
    escalate_to: Reviewers = []


class PartialPolicies(Struct, frozen=True, forbid_unknown_fields=True):
    """Policies of a new room; what is left out takes its default."""

    default_action: PolicyAction = DEFAULT_POLICIES.default_action
    timeout_minutes: TimeoutMinutes = DEFAULT_POLICIES.timeout_minutes
    timeout_action: TimeoutAction = DEFAULT_POLICIES.timeout_action
    rules: Rules = []
    trust_thresholds: TrustThresholdsBody | None = None
    timeout_override: bool = True
    claim_minutes: TimeoutMinutes = DEFAULT_POLICIES.claim_minutes
    approvals_required: Approvals = DEFAULT_POLICIES.approvals_required
    escalate_after_minutes: TimeoutMinutes | None = None
    escalate_to: Reviewers = []


def policies_of(body: PoliciesBody | PartialPolicies) -> Policies:
    """The policies as events carry them. Raises Problem (400) for a value that can't be kept."""
    plain = msgspec.to_builtins(body)
    for number, rule in enumerate(plain["rules"]):
        for index, test in enumerate(rule["when"]["context"]):
            try:
                test["value"] = canonical_json(test["value"], MAX_VALUE_BYTES)
            except NotCanonical as fault:
                field = f"policies.rules[{number}].when.context[{index}].value"
                raise Problem(400, "validation_error", str(fault), field=field) from None
    return msgspec.convert(plain, Policies)


def policies_answer(plain: Any) -> PoliciesBody:
    """Policies as clients read them, of the plain JSON values that a row or an answer holds."""
    policies = msgspec.to_builtins(msgspec.convert(plain, Policies))
    for rule in policies["rules"]:
        for test in rule["when"]["context"]:
            test["value"] = msgspec.json.decode(test["value"])
    return msgspec.convert(policies, PoliciesBody)
