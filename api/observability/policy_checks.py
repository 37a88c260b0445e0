"""May this agent run? Answered from this process's memory; no server is on the way."""

from typing import Any

from msgspec import Struct

from api.observability.bodies import Label, Name
from api.observability.policy_memory import policy_memory
from api.problems import OBSERVE
from api.roles import BUILDERS
from api.routing import Call, Route, Who
from commands.observability.policy_check import Asked
from schemas.observability.policy import Action, RuleKind


class PolicyCheck(Struct):
    """Who wants to run. `model`: what it will call, for policies that are about models."""

    agent_name: Name
    workflow_name: Label | None = "default"
    agent_id: Label | None = ""
    model: Label | None = ""


class PolicyEvaluation(Struct):
    """What one policy said."""

    policy_id: str
    policy_name: str
    revision: int
    kind: RuleKind
    action: Action
    reason: str
    metadata: dict[str, Any]


class PolicyVerdict(Struct):
    """What to do; of each policy whose scope fits, what it said."""

    action: Action
    reason: str
    metadata: dict[str, Any]
    evaluations: list[PolicyEvaluation]


async def check_policy(call: Call[PolicyCheck, None]) -> Any:
    body = call.body
    asked = Asked(
        agent_name=body.agent_name,
        workflow_name=body.workflow_name or "default",
        agent_id=body.agent_id or "",
        model=body.model or "",
    )
    return await policy_memory(call.services).judge(call.tenant, asked)


ROUTES = [
    Route(
        "POST",
        "/api/v1/observe/policy-check/",
        check_policy,
        dialect=OBSERVE,
        who=Who.SESSION_OR_KEY,
        roles=BUILDERS,
        body=PolicyCheck,
        response=PolicyVerdict,
        tags=("policies",),
        summary="Check whether an agent may run",
        description="The most severe action of all policies whose scope fits: block, throttle, "
        "skip, retry, redact, warn, allow. What was used is at most some seconds old.",
        max_body=64 * 1024,
        quiet=True,
    )
]
