"""Tenants: who owns everything else."""

from msgspec import Struct

from schemas.tenancy.tenant import TenantCreated

EVENTS: list[type[Struct]] = [TenantCreated]
