"""A trial: a tenant of its own with one key, which stops by itself, and whose data goes then.

Beginning it is one decision, so that there is no tenant without its key or its quota.
"""

from collections.abc import Mapping, Sequence
from typing import Any, assert_never

from msgspec import Struct

from commands.billing.account import assign_plan
from commands.billing.account_state import Account
from commands.billing.plans import TRIAL
from commands.decider import Context, Decider, Emit, Ref, SetTimer
from commands.identity.api_key import STREAM as KEY_STREAM
from commands.refusals import NotFound
from commands.tenancy.tenant import STREAM as TENANT_STREAM
from schemas.billing.account import ACCOUNT_ID
from schemas.billing.account import STREAM as ACCOUNT_STREAM
from schemas.identity.api_key import ApiKeyIssued
from schemas.identity.roles import Role
from schemas.tenancy.tenant import TenantCreated
from schemas.tenancy.trial import STREAM, TrialBegan, TrialEnded, TrialEvent
from schemas.types import Micros, Sha256, Text
from schemas.unions import members

LIFE_MICROS = 24 * 3_600 * 1_000_000
# Longer than a job may take, so that nothing is written any more when the data goes.
ERASED_AFTER_MICROS = 2 * 3_600 * 1_000_000
# Computes and reads what it computed, and nothing else of the product.
ROLES: tuple[Role, ...] = ("compute",)
NAME = "Trial"
_END = "end"


class BeginTrial(Struct, frozen=True, tag="tenancy.begin_trial.v1"):
    """Make the tenant a trial with this key. key_hash: the key's SHA-256."""

    key_id: Text
    prefix: Text
    key_hash: Sha256


class EndTrial(Struct, frozen=True, tag="tenancy.end_trial.v1"):
    """Its time is over."""


TrialCommand = BeginTrial | EndTrial


class Trial(Struct, frozen=True):
    """`ends_at` is 0 until it began."""

    ends_at: Micros = 0
    has_ended: bool = False


class TrialAnswer(Struct, frozen=True):
    """When the trial's key stops, in microseconds UTC."""

    ends_at: int


def decide(command: TrialCommand, state: Trial, context: Context) -> Sequence[TrialEvent | Emit]:
    """Raises NotFound."""
    match command:
        case BeginTrial():
            return [] if state.ends_at else _begin(command, context)
        case EndTrial():
            if not state.ends_at:
                raise NotFound("this tenant is no trial")
            return [] if state.has_ended else [TrialEnded(context.now)]
    assert_never(command)


def _begin(command: BeginTrial, context: Context) -> Sequence[TrialEvent | Emit]:
    ends_at = context.now + LIFE_MICROS
    account: Account = context.state(ACCOUNT_STREAM, ACCOUNT_ID)
    key = ApiKeyIssued(
        name=NAME,
        prefix=command.prefix,
        key_hash=command.key_hash,
        roles=list(ROLES),
        expires_at=ends_at,
    )
    return [
        TrialBegan(ends_at, ends_at + ERASED_AFTER_MICROS),
        Emit(TENANT_STREAM, context.tenant, TenantCreated(NAME)),
        *(Emit(ACCOUNT_STREAM, ACCOUNT_ID, event) for event in assign_plan(account, TRIAL, "")),
        Emit(KEY_STREAM, command.key_id, key),
    ]


def evolve(state: Trial, event: TrialEvent) -> Trial:
    match event:
        case TrialBegan():
            return Trial(event.ends_at)
        case TrialEnded():
            return Trial(state.ends_at, has_ended=True)
    assert_never(event)


def _loads(command: TrialCommand, stream_id: str) -> Sequence[Ref]:
    if not isinstance(command, BeginTrial):
        return ()
    return [Ref(ACCOUNT_STREAM, ACCOUNT_ID), Ref(KEY_STREAM, command.key_id)]


def _timers(event: TrialEvent, stream_id: str) -> Sequence[SetTimer]:
    return [SetTimer(_END, event.erased_at, EndTrial())] if isinstance(event, TrialBegan) else []


def _answer(command: TrialCommand, state: Trial, context: Context) -> TrialAnswer:
    return TrialAnswer(state.ends_at)


def _describe(command: TrialCommand) -> Mapping[str, Any]:
    if isinstance(command, EndTrial):
        return {}
    return {"key_id": command.key_id, "prefix": command.prefix}


DECIDER: Decider[TrialCommand, Trial, TrialEvent] = Decider(
    stream=STREAM,
    commands=members(TrialCommand),
    events=members(TrialEvent),
    initial=Trial(),
    decide=decide,
    evolve=evolve,
    loads=_loads,
    timers=_timers,
    answer=_answer,
    describe=_describe,
)
