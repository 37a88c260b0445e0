"""`observability.policy`: a policy of agents is made, revised and deleted."""

from collections.abc import Mapping, Sequence
from typing import Any, assert_never

from msgspec import Struct

from commands.decider import Context, Decider
from commands.observability.policy_faults import check
from commands.refusals import AlreadyDone, NotFound
from schemas.observability.policy import (
    STREAM,
    Definition,
    PolicyCreated,
    PolicyDeleted,
    PolicyEvent,
    PolicyRevised,
    kind_of,
)
from schemas.unions import members


class CreatePolicy(Struct, frozen=True, tag="observability.create_policy.v1", kw_only=True):
    """Make a policy."""

    definition: Definition


class RevisePolicy(Struct, frozen=True, tag="observability.revise_policy.v1", kw_only=True):
    """Replace all of a policy; refused when it is not at `expected_revision`, if that is given."""

    definition: Definition
    expected_revision: int | None = None


class DeletePolicy(Struct, frozen=True, tag="observability.delete_policy.v1"):
    """End a policy."""


PolicyCommand = CreatePolicy | RevisePolicy | DeletePolicy


class PolicyExists(AlreadyDone):
    """A policy with this id exists and is not what was asked for."""


class PolicyNotFound(NotFound):
    """The tenant has no such policy, or no more."""


class StaleRevision(AlreadyDone):
    """Somebody else has revised the policy meanwhile."""

    code = "stale_revision"


class PolicyState(Struct, frozen=True):
    """`definition` is None before a policy was made and after it was deleted."""

    revision: int = 0
    definition: Definition | None = None
    created_at: int = 0
    updated_at: int = 0


class PolicyStands(Struct, frozen=True):
    """What a caller is told of a policy; of a deleted one, that it is."""

    id: str
    revision: int
    definition: Definition | None
    created_at: int
    updated_at: int


def decide(command: PolicyCommand, state: PolicyState, context: Context) -> Sequence[PolicyEvent]:
    """Raises InvalidCommand, PolicyExists, PolicyNotFound, StaleRevision."""
    match command:
        case CreatePolicy():
            return _create(command, state, context)
        case RevisePolicy():
            return _revise(command, state, context)
        case DeletePolicy():
            if state.revision == 0:
                raise PolicyNotFound("there is no such policy")
            if state.definition is None:
                return []
            return [
                PolicyDeleted(
                    policy_id=context.stream_id, revision=state.revision + 1, at=context.now
                )
            ]
    assert_never(command)


def _create(command: CreatePolicy, state: PolicyState, context: Context) -> list[PolicyEvent]:
    check(command.definition)
    if state.revision:
        if state.definition == command.definition:
            return []
        raise PolicyExists("a policy with this id exists already")
    return [
        PolicyCreated(
            policy_id=context.stream_id,
            revision=1,
            definition=command.definition,
            at=context.now,
        )
    ]


def _revise(command: RevisePolicy, state: PolicyState, context: Context) -> list[PolicyEvent]:
    if state.definition is None:
        raise PolicyNotFound("there is no such policy")
    check(command.definition)
    if state.definition == command.definition:
        return []
    if command.expected_revision not in (None, state.revision):
        raise StaleRevision(f"the policy is at revision {state.revision}", revision=state.revision)
    return [
        PolicyRevised(
            policy_id=context.stream_id,
            revision=state.revision + 1,
            definition=command.definition,
            at=context.now,
        )
    ]


def evolve(state: PolicyState, event: PolicyEvent) -> PolicyState:
    match event:
        case PolicyCreated():
            return PolicyState(event.revision, event.definition, event.at, event.at)
        case PolicyRevised():
            return PolicyState(event.revision, event.definition, state.created_at, event.at)
        case PolicyDeleted():
            return PolicyState(event.revision, None, state.created_at, event.at)
    assert_never(event)


def _answer(command: PolicyCommand, state: PolicyState, context: Context) -> PolicyStands:
    return PolicyStands(
        context.stream_id, state.revision, state.definition, state.created_at, state.updated_at
    )


def _describe(command: PolicyCommand) -> Mapping[str, Any]:
    match command:
        case CreatePolicy() | RevisePolicy():
            definition = command.definition
            return {
                "name": definition.name,
                "kinds": [kind_of(rule) for rule in definition.rules.given],
                "enabled": definition.enabled,
            }
        case DeletePolicy():
            return {}
    assert_never(command)


DECIDER: Decider[PolicyCommand, PolicyState, PolicyEvent] = Decider(
    stream=STREAM,
    commands=members(PolicyCommand),
    events=members(PolicyEvent),
    initial=PolicyState(),
    decide=decide,
    evolve=evolve,
    answer=_answer,
    describe=_describe,
)
