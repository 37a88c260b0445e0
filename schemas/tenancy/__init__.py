"""Tenants: who owns everything else."""

from msgspec import Struct

from schemas.tenancy.tenant import TenantEvent
from schemas.tenancy.trial import TrialEvent, TrialOriginEvent
from schemas.unions import members

EVENTS: list[type[Struct]] = [
    *members(TenantEvent),
    *members(TrialOriginEvent),
    *members(TrialEvent),
]
