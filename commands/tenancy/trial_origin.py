"""Who may begin a trial: a few in a day from one client address. Tenant `_directory`.

The stream's id is a keyed hash of the address, so that the log does not tell it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from commands.decider import Context, Decider
from commands.refusals import Refusal
from schemas.tenancy.trial import ORIGIN_STREAM, TrialGranted, TrialOriginEvent

TRIALS_MAX = 3
WINDOW_MICROS = 24 * 3_600 * 1_000_000


class TooManyTrials(Refusal):
    """The address has begun as many trials as it may, for `retry_after` seconds from now."""

    code = "too_many_trials"


class GrantTrial(Struct, frozen=True, tag="tenancy.grant_trial.v1"):
    """Let the address begin the trial of this tenant."""

    tenant_id: str


class TrialOrigin(Struct, frozen=True):
    """The last trials granted, at most TRIALS_MAX, oldest first."""

    granted: tuple[TrialGranted, ...] = ()


def decide(command: GrantTrial, state: TrialOrigin, context: Context) -> Sequence[TrialOriginEvent]:
    """Raises TooManyTrials."""
    if any(granted.tenant_id == command.tenant_id for granted in state.granted):
        return []
    if len(state.granted) == TRIALS_MAX:
        free_at = state.granted[0].granted_at + WINDOW_MICROS
        if free_at > context.now:
            seconds = -(-(free_at - context.now) // 1_000_000)
            raise TooManyTrials(
                f"at most {TRIALS_MAX} trials in 24 hours from one address", retry_after=seconds
            )
    return [TrialGranted(command.tenant_id, context.now)]


def evolve(state: TrialOrigin, event: TrialOriginEvent) -> TrialOrigin:
    return TrialOrigin((*state.granted, event)[-TRIALS_MAX:])


def _describe(command: GrantTrial) -> Mapping[str, Any]:
    return {"tenant_id": command.tenant_id}


DECIDER: Decider[GrantTrial, TrialOrigin, TrialOriginEvent] = Decider(
    stream=ORIGIN_STREAM,
    commands=(GrantTrial,),
    events=(TrialGranted,),
    initial=TrialOrigin(),
    decide=decide,
    evolve=evolve,
    describe=_describe,
)
