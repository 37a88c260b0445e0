"""Policies of agents: what a policy check is answered by, as events carry them.

Streams: `observability.policy/<policy id>`. What a policy means and what is refused is in
`commands/observability/README.md`. Avro has no tagged unions, so a record has one field for each
kind of rule (`Rules`), of which exactly one is given; everywhere else a rule is a `Rule`.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from schemas.types import Micros, Text

STREAM = "observability.policy"

Action = Literal["allow", "block", "warn", "throttle", "redact", "skip", "retry"]
RuleKind = Literal["budget", "rate", "agents", "models", "redaction", "schedule"]
BudgetUnit = Literal["usd", "tokens", "calls"]
BudgetWindow = Literal["hour", "day", "month"]
RateUnit = Literal["runs", "calls"]
RateWindow = Literal["minute", "hour"]
DayName = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]

# A billion dollars, or a quadrillion tokens, stays exact in a double and in 64 bits of nanodollars.
Limit = Annotated[float, Meta(ge=1e-9, le=1e15)]
Whole = Annotated[int, Meta(ge=1, le=10**12)]
Percent = Annotated[int, Meta(ge=1, le=100)]
Seconds = Annotated[int, Meta(ge=1, le=86_400)]
Priority = Annotated[int, Meta(ge=-1000, le=1000)]


class BudgetRule(Struct, frozen=True, tag="budget", tag_field="kind"):
    """Do `action` once the scope has used `limit` in the window; warn from `warn_percent` of it."""

    unit: BudgetUnit
    limit: Limit
    window: BudgetWindow
    action: Literal["block", "throttle", "skip", "retry", "warn"] = "block"
    warn_percent: Percent | None = None


class RateRule(Struct, frozen=True, tag="rate", tag_field="kind"):
    """Throttle once the scope has begun `limit` runs, or made as many LLM calls, in the window.

    retry_after_seconds: what the agent is told; None for the rest of the window.
    """

    unit: RateUnit
    limit: Whole
    window: RateWindow
    retry_after_seconds: Seconds | None = None


class AgentsRule(Struct, frozen=True, tag="agents", tag_field="kind"):
    """Which agents may run: none that `deny` names, and if `allow` names any, those only."""

    allow: list[Text] = []
    deny: list[Text] = []
    action: Literal["block", "skip", "warn"] = "block"


class ModelsRule(Struct, frozen=True, tag="models", tag_field="kind"):
    """Which models may be called."""

    allow: list[Text]
    action: Literal["block", "skip", "warn"] = "block"


class RedactionRule(Struct, frozen=True, tag="redaction", tag_field="kind"):
    """What the agent leaves out of what it sends: fields by name, texts by regular expression."""

    fields: list[Text] = []
    patterns: list[Text] = []


class ScheduleRule(Struct, frozen=True, tag="schedule", tag_field="kind"):
    """When agents may run: weekdays and hours in a time zone; `outside` says what else they do.

    `from_time` and `until_time` are `HH:MM`, the end excluded; an end before the start is on the
    next day, and then the weekday is that of the start. Nothing given means any.
    """

    timezone: Text = "UTC"
    weekdays: list[DayName] = []
    from_time: Text | None = None
    until_time: Text | None = None
    outside: Literal["skip", "block", "retry"] = "block"


Rule = BudgetRule | RateRule | AgentsRule | ModelsRule | RedactionRule | ScheduleRule


class Rules(Struct, frozen=True, kw_only=True):
    """One rule, under the name of its kind."""

    budget: BudgetRule | None = None
    rate: RateRule | None = None
    agents: AgentsRule | None = None
    models: ModelsRule | None = None
    redaction: RedactionRule | None = None
    schedule: ScheduleRule | None = None

    @property
    def given(self) -> list[Rule]:
        """The rules there are: one, unless the record is broken."""
        found = (getattr(self, name) for name in self.__struct_fields__)
        return [rule for rule in found if rule is not None]


class PolicyScope(Struct, frozen=True, kw_only=True):
    """Whom a policy is about. Each list holds names or globs and fits if one does; empty is any."""

    agent_names: list[Text] = []
    workflow_names: list[Text] = []
    agent_ids: list[Text] = []


class Definition(Struct, frozen=True, kw_only=True):
    """All there is to a policy. Of two that say the same, the higher priority tells the reason."""

    name: Text
    rules: Rules
    scope: PolicyScope = PolicyScope()
    enabled: bool = True
    priority: Priority = 0
    reason: Text = ""

    @property
    def rule(self) -> Rule:
        """The rule. Asked for in every check, hence without a loop."""
        of = self.rules
        rule = of.budget or of.rate or of.agents or of.models or of.redaction or of.schedule
        assert rule is not None
        return rule


def kind_of(rule: Rule) -> RuleKind:
    """The name of the rule's kind."""
    kind: RuleKind = rule.__struct_config__.tag  # type: ignore[assignment]
    return kind


def rules_of(rule: Rule) -> Rules:
    """The rule, under the name of its kind."""
    return Rules(**{kind_of(rule): rule})  # type: ignore[arg-type]


class PolicyCreated(Struct, frozen=True, tag="observability.policy_created.v1", kw_only=True):
    """A policy holds from now on. revision counts a policy's changes from 1, its end included."""

    policy_id: str
    revision: int
    definition: Definition
    at: Micros


class PolicyRevised(Struct, frozen=True, tag="observability.policy_revised.v1", kw_only=True):
    """A policy was replaced as a whole."""

    policy_id: str
    revision: int
    definition: Definition
    at: Micros


class PolicyDeleted(Struct, frozen=True, tag="observability.policy_deleted.v1", kw_only=True):
    """A policy holds no more; its id is not used again."""

    policy_id: str
    revision: int
    at: Micros


PolicyEvent = PolicyCreated | PolicyRevised | PolicyDeleted
