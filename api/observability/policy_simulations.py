"""What a policy would have changed: the runs of the last days, replayed through it."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from msgspec import Meta, Struct

from api.observability.policies import PolicyBody, definition_of
from api.observability.policy_memory import policy_memory
from api.problems import OBSERVE, Problem, not_found
from api.replaying import replayed
from api.roles import BUILDERS
from api.routing import Call, Route, Who
from commands.observability.policy_check import (
    SEVERITY,
    Amount,
    Asked,
    Policy,
    Verdict,
    span_of,
    window_counted,
)
from commands.observability.policy_faults import check
from commands.observability.policy_replay import Began, Difference, Outcome, Used, replay
from commands.refusals import InvalidCommand
from infra.clock import iso
from projections.observability import policy_replays
from schemas.observability.policy import Action
from schemas.types import Text

# What is judged is judged in a thread, beside requests that want the processor as well.
RUNS_MAX = 20_000
EVALUATIONS_MAX = 100_000
USAGE_ROWS_MAX = 200_000
SAMPLE_MAX = 20
_DAY = 86_400_000_000
_PICO_PER_NANO = 1_000


class SimulatePolicy(Struct):
    """A proposed policy: a further one, or in place of the one that `policy_id` names."""

    policy: PolicyBody
    days: Annotated[int, Meta(ge=1, le=90)] = 7
    policy_id: Annotated[Text, Meta(max_length=200)] | None = None


class SimulatedAnswer(Struct):
    """What a run would have been told."""

    action: Action
    reason: str


class SimulatedRun(Struct):
    """A run that would have been told something else."""

    run_id: str
    agent_name: str
    workflow_name: str
    agent_id: str
    started_at: str
    before: SimulatedAnswer
    after: SimulatedAnswer


class Simulation(Struct):
    """How many runs would have been told what by the policies as they stand, and with the proposed
    one; the newest that would have been told something else.

    truncated: there were more runs, and only those from `since` on were judged.
    """

    days: int
    since: str
    until: str
    runs: int
    truncated: bool
    changed: int
    before: dict[str, int]
    after: dict[str, int]
    sample: list[SimulatedRun]


async def simulate_policy(call: Call[SimulatePolicy, None]) -> Simulation:
    body, now = call.body, call.services.clock.now()
    definition = definition_of(body.policy)
    try:
        check(definition)
    except InvalidCommand as fault:
        field = f"policy.{fault.details['field']}"
        message = fault.message.partition(": ")[2]
        raise Problem(400, fault.code, message, field=field) from None
    current = await policy_memory(call.services).policies(call.tenant)
    replaced = body.policy_id
    if replaced is not None and all(policy.id != replaced for policy in current):
        not_found("There is no such policy")
    proposed = Policy(replaced or "proposed", 0, definition)
    then = (*(policy for policy in current if policy.id != replaced), proposed)
    since = now - body.days * _DAY
    limit = min(RUNS_MAX, EVALUATIONS_MAX // (len(current) + len(then)))
    runs = await _runs(call, (*current, proposed), since, limit)
    truncated = len(runs) > limit
    if truncated:
        runs = runs[-limit:]
        since = max(since, runs[0].at)
    usage = await _usage(call, (*current, proposed), since)
    moments: list[Began | Used] = [*runs, *usage]
    moments.sort(key=lambda moment: moment.at)
    outcome = await replayed(call.services, replay, current, then, moments, since, SAMPLE_MAX)
    return _simulation(outcome, body.days, since, now, truncated)


def _reaches_back(policies: Sequence[Policy], since: int) -> int:
    """The start of the earliest window that is not over at `since`."""
    windows = {window_counted(policy.definition.rule) for policy in policies} - {""}
    return min((span_of(window, since)[0] for window in windows), default=since)


async def _runs(
    call: Call[SimulatePolicy, None], policies: Sequence[Policy], since: int, limit: int
) -> list[Began]:
    """The runs in the order of time; one more than `limit` when there are more."""
    start = _reaches_back(policies, since)
    query = policy_replays.runs(call.tenant, start, limit + 1)
    rows = await call.services.analytics.query(*query)
    return [
        Began(row["at"], row["run_id"], _asked(row), tuple(row["models"])) for row in reversed(rows)
    ]


async def _usage(
    call: Call[SimulatePolicy, None], policies: Sequence[Policy], since: int
) -> list[Used]:
    if not any(window_counted(policy.definition.rule) for policy in policies):
        return []
    start = _reaches_back(policies, since)
    query = policy_replays.usage(call.tenant, start, USAGE_ROWS_MAX + 1)
    rows = await call.services.analytics.query(*query)
    if len(rows) > USAGE_ROWS_MAX:
        raise Problem(400, "too_much", "There is too much to replay", field="days")
    return [
        Used(
            row["at"],
            _asked(row),
            Amount(0, row["calls"], int(row["tokens"]), int(row["cost_pico"]) // _PICO_PER_NANO),
        )
        for row in rows
    ]


def _asked(row: Mapping[str, Any]) -> Asked:
    return Asked(row["agent_name"], row["workflow_name"], row["agent_id"])


def _simulation(outcome: Outcome, days: int, since: int, until: int, truncated: bool) -> Simulation:
    return Simulation(
        days=days,
        since=iso(since),
        until=iso(until),
        runs=outcome.runs,
        truncated=truncated,
        changed=outcome.changed,
        before=_counts(outcome.before),
        after=_counts(outcome.after),
        sample=[_run(found) for found in outcome.sample],
    )


def _counts(found: Mapping[Action, int]) -> dict[str, int]:
    """By action, the most severe first; those that nobody was told are 0."""
    return {action: found.get(action, 0) for action in SEVERITY}


def _run(found: Difference) -> SimulatedRun:
    return SimulatedRun(
        run_id=found.run_id,
        agent_name=found.asked.agent_name,
        workflow_name=found.asked.workflow_name,
        agent_id=found.asked.agent_id,
        started_at=iso(found.at),
        before=_answer(found.before),
        after=_answer(found.after),
    )


def _answer(verdict: Verdict) -> SimulatedAnswer:
    return SimulatedAnswer(verdict.action, verdict.reason)


ROUTES = [
    Route(
        "POST",
        "/api/v1/observe/policies/simulate/",
        simulate_policy,
        dialect=OBSERVE,
        who=Who.SESSION_OR_KEY,
        roles=BUILDERS,
        body=SimulatePolicy,
        response=Simulation,
        tags=("policies",),
        summary="Replay past runs through a proposed policy",
        description="Judges the runs of the last days by the policies as they stand now, and by "
        "them with the proposed one. Nothing is changed. What a run used counts, also when the "
        "proposed policy would have stopped it.",
        refusals=(404,),
        analytics=True,
    )
]
