"""Policies of agents: made, revised, deleted, and who did so."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from api.observability.pages import DEFAULT_LIMIT, MAX_LIMIT, Limit, Offset, links
from api.observability.policy_memory import policy_memory
from api.problems import OBSERVE, Problem, not_found
from api.roles import BUILDERS, READERS
from api.routing import Answer, Call, Route, Who, answer_of
from commands.observability.policy import CreatePolicy, DeletePolicy, PolicyStands, RevisePolicy
from infra.clock import iso
from projections.observability import policies, policy_revisions
from schemas.observability.policy import (
    AgentsRule,
    BudgetRule,
    Definition,
    ModelsRule,
    PolicyScope,
    Priority,
    RateRule,
    RedactionRule,
    Rule,
    RuleKind,
    ScheduleRule,
    kind_of,
    rules_of,
)
from schemas.types import Text

# Every one that is enabled is asked in every check, so that there is a bound.
POLICIES_MAX = 100
_PATH = "/api/v1/observe/policies/"

Name = Annotated[Text, Meta(min_length=1, max_length=500)]
Revision = Annotated[int, Meta(ge=1, le=2**31 - 1)]


# A field that nobody knows is elsewhere ignored; here it would be a limit that silently is not
# there. The events' own structs must go on to read what a later release wrote, hence these.
class BudgetRuleBody(BudgetRule, frozen=True, forbid_unknown_fields=True):
    """Do `action` once the scope has used `limit` in the window; warn from `warn_percent` of it."""


class RateRuleBody(RateRule, frozen=True, forbid_unknown_fields=True):
    """Throttle once the scope has begun `limit` runs, or made as many LLM calls, in the window."""


class AgentsRuleBody(AgentsRule, frozen=True, forbid_unknown_fields=True):
    """Which agents may run: none that `deny` names, and if `allow` names any, those only."""


class ModelsRuleBody(ModelsRule, frozen=True, forbid_unknown_fields=True):
    """Which models may be called."""


class RedactionRuleBody(RedactionRule, frozen=True, forbid_unknown_fields=True):
    """What the agent leaves out of what it sends: fields by name, texts by regular expression."""


class ScheduleRuleBody(ScheduleRule, frozen=True, forbid_unknown_fields=True):
    """When agents may run: weekdays and hours in a time zone; `outside` says what else they do."""


class PolicyScopeBody(PolicyScope, frozen=True, forbid_unknown_fields=True):
    """Whom a policy is about. Each list holds names or globs and fits if one does; empty is any."""


RuleBody = (
    BudgetRuleBody
    | RateRuleBody
    | AgentsRuleBody
    | ModelsRuleBody
    | RedactionRuleBody
    | ScheduleRuleBody
)


class PolicyBody(Struct, forbid_unknown_fields=True):
    """A policy as it is to be. `reason` is told to agents in place of the one that we make."""

    name: Name
    rule: RuleBody
    scope: PolicyScopeBody = PolicyScopeBody()
    enabled: bool = True
    priority: Priority = 0
    reason: Annotated[Text, Meta(max_length=500)] = ""


class RevisedPolicyBody(PolicyBody):
    """All of a policy. `revision`: the one that it replaces; it is refused when that has passed."""

    revision: Revision | None = None


class PolicyContent(Struct, kw_only=True):
    """What a policy is, at one of its revisions."""

    name: str
    kind: RuleKind
    rule: Rule
    scope: PolicyScope
    enabled: bool
    priority: int
    reason: str


class PolicyItem(PolicyContent, kw_only=True):
    """A policy as it stands."""

    policy_id: str
    revision: int
    created_at: str
    updated_at: str


class PolicyPage(Struct):
    """Policies, the oldest first."""

    results: list[PolicyItem]
    count: int
    next: str | None
    previous: str | None


class PolicyActor(Struct):
    """Who changed a policy."""

    kind: str
    id: str
    name: str


class PolicyRevision(Struct):
    """A change, and what the policy was from then on: nothing once it was deleted."""

    revision: int
    change: Literal["created", "revised", "deleted"]
    at: str
    by: PolicyActor
    policy: PolicyContent | None


class PolicyHistory(Struct):
    """A policy's revisions, the newest first."""

    results: list[PolicyRevision]
    count: int
    next: str | None
    previous: str | None


class ListPolicies(Struct):
    """Which policies, and which page of them."""

    kind: RuleKind | Literal[""] = ""
    limit: Limit = DEFAULT_LIMIT
    offset: Offset = 0


class ListRevisions(Struct):
    """Which page of the revisions."""

    limit: Limit = DEFAULT_LIMIT
    offset: Offset = 0


async def list_policies(call: Call[None, ListPolicies]) -> PolicyPage:
    asked, reads = call.query, call.services.reads
    chosen, limit = (call.tenant, asked.kind, asked.kind), min(asked.limit, MAX_LIMIT)
    count = (await reads.all(policies.COUNT, *chosen))[0]["policies"]
    rows = await reads.all(policies.PAGE, *chosen, limit, asked.offset)
    following, before = links(call, limit, asked.offset, count)
    return PolicyPage([_item(row) for row in rows], count, following, before)


async def create_policy(call: Call[PolicyBody, None]) -> PolicyItem:
    """The id follows from the command's, so that a repeat of the request meets what it made."""
    found = await call.services.reads.all(policies.COUNT, call.tenant, "", "")
    if found and found[0]["policies"] >= POLICIES_MAX:
        raise Problem(409, "too_many_policies", f"A tenant has at most {POLICIES_MAX} policies")
    policy_id = f"pol_{call.command_id.removeprefix('cmd_')}"
    return await _sent(call, policy_id, CreatePolicy(definition=definition_of(call.body)))


async def get_policy(call: Call[None, None]) -> PolicyItem:
    row = await call.services.reads.one(policies.ONE, call.tenant, call.path["policy_id"])
    return _item(row) if row is not None else not_found("There is no such policy")


async def revise_policy(call: Call[RevisedPolicyBody, None]) -> PolicyItem:
    command = RevisePolicy(
        definition=definition_of(call.body), expected_revision=call.body.revision
    )
    return await _sent(call, call.path["policy_id"], command)


async def delete_policy(call: Call[None, None]) -> Answer:
    reply = await call.send(call.path["policy_id"], DeletePolicy())
    stands = answer_of(reply, PolicyStands)
    policy_memory(call.services).apply(call.tenant, stands.id, stands.revision, None)
    return Answer(status=204)


async def list_revisions(call: Call[None, ListRevisions]) -> PolicyHistory:
    asked, reads = call.query, call.services.reads
    chosen, limit = (call.tenant, call.path["policy_id"]), min(asked.limit, MAX_LIMIT)
    found = await reads.all(policy_revisions.COUNT, *chosen)
    if not found or not found[0]["revisions"]:
        not_found("There is no such policy")
    rows = await reads.all(policy_revisions.PAGE, *chosen, limit, asked.offset)
    count = found[0]["revisions"]
    following, before = links(call, limit, asked.offset, count)
    return PolicyHistory([_revision(row) for row in rows], count, following, before)


async def _sent(call: Call[Any, None], policy_id: str, command: Struct) -> PolicyItem:
    """This process judges by it before it answers, the others as soon as the log tells them."""
    stands = answer_of(await call.send(policy_id, command), PolicyStands)
    policy_memory(call.services).apply(call.tenant, stands.id, stands.revision, stands.definition)
    if stands.definition is None:  # a repeat of what has been deleted meanwhile
        not_found("There is no such policy")
    return _policy(
        stands.id, stands.revision, stands.definition, stands.created_at, stands.updated_at
    )


def definition_of(body: PolicyBody) -> Definition:
    """The body as events carry it."""
    return Definition(
        name=body.name,
        rules=rules_of(msgspec.convert(msgspec.to_builtins(body.rule), Rule)),
        scope=msgspec.convert(msgspec.to_builtins(body.scope), PolicyScope),
        enabled=body.enabled,
        priority=body.priority,
        reason=body.reason,
    )


def _content(definition: Definition) -> dict[str, Any]:
    return {
        "name": definition.name,
        "kind": kind_of(definition.rule),
        "rule": definition.rule,
        "scope": definition.scope,
        "enabled": definition.enabled,
        "priority": definition.priority,
        "reason": definition.reason,
    }


def _policy(
    id: str, revision: int, definition: Definition, created_at: int, updated_at: int
) -> PolicyItem:
    return PolicyItem(
        **_content(definition),
        policy_id=id,
        revision=revision,
        created_at=iso(created_at),
        updated_at=iso(updated_at),
    )


def _item(row: Mapping[str, Any]) -> PolicyItem:
    definition = msgspec.convert(row["definition"], Definition)
    return _policy(
        row["policy_id"], row["revision"], definition, row["created_at"], row["updated_at"]
    )


def _revision(row: Mapping[str, Any]) -> PolicyRevision:
    held = row["definition"]
    return PolicyRevision(
        revision=row["revision"],
        change=row["change"],
        at=iso(row["at"]),
        by=PolicyActor(row["actor_kind"], row["actor_id"], row["actor_name"]),
        policy=held and PolicyContent(**_content(msgspec.convert(held, Definition))),
    )


def _row(method: str, path: str, handler: Any, response: Any, summary: str, **more: Any) -> Route:
    return Route(
        method,
        f"{_PATH}{path}",
        handler,
        dialect=OBSERVE,
        who=Who.SESSION_OR_KEY,
        roles=READERS if method == "GET" else BUILDERS,
        response=response,
        tags=("policies",),
        summary=summary,
        **more,
    )


_ONE = "{policy_id}/"
ROUTES = [
    _row("GET", "", list_policies, PolicyPage, "List policies", query=ListPolicies),
    _row(
        "POST", "", create_policy, PolicyItem, "Create a policy", body=PolicyBody, status=201,
        refusals=(404,),
    ),
    _row("GET", _ONE, get_policy, PolicyItem, "Get a policy"),
    _row("PUT", _ONE, revise_policy, PolicyItem, "Replace a policy", body=RevisedPolicyBody),
    _row("DELETE", _ONE, delete_policy, None, "Delete a policy", status=204),
    _row(
        "GET", f"{_ONE}history/", list_revisions, PolicyHistory, "List a policy's revisions",
        query=ListRevisions,
    ),
]  # fmt: skip
