"""Events of trials: of a trial tenant, stream `tenancy.trial/trial` in the tenant itself, and of
the trials that one client address has begun, `tenancy.trial_origin/<keyed hash>` in `_directory`.
"""

from msgspec import Struct

from schemas.types import Micros

STREAM = "tenancy.trial"
TRIAL_ID = "trial"
ORIGIN_STREAM = "tenancy.trial_origin"


class TrialGranted(Struct, frozen=True, tag="tenancy.trial_granted.v1"):
    """The address may begin a trial; it counts for a while."""

    tenant_id: str
    granted_at: Micros


class TrialBegan(Struct, frozen=True, tag="tenancy.trial_began.v1"):
    """The tenant is a trial: its key stops at `ends_at`, and its data goes at `erased_at`."""

    ends_at: Micros
    erased_at: Micros


class TrialEnded(Struct, frozen=True, tag="tenancy.trial_ended.v1"):
    """The trial is over, and its data goes now."""

    ended_at: Micros


TrialEvent = TrialBegan | TrialEnded
TrialOriginEvent = TrialGranted
