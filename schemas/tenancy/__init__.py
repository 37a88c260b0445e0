"""Tenants: who owns everything else."""

from msgspec import Struct

from schemas.tenancy.tenant import TenantCreated
from schemas.tenancy.trial import TrialBegan, TrialEnded, TrialGranted

EVENTS: list[type[Struct]] = [TenantCreated, TrialGranted, TrialBegan, TrialEnded]
