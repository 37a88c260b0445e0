"""Requests a minute by the tenant's plan, counted in memory per API process.

A tenant's plan is read once, when it is first needed; from then on the tail of `events` says when
another holds. A plan has a bucket of its own for each tenant, so that one that changes begins full.
"""

import time
from collections import OrderedDict

from api.limits import Monotonic, Permit, RateLimiter
from api.services import Reads, Services
from api.subscription import LiveEvent
from commands.billing.plans import PAYG, PLANS, plan_of
from infra.postgres import DatabaseUnavailable
from projections.billing import billing_accounts
from schemas.avro_derivation import tag_of
from schemas.billing.account import PlanAssigned

CACHE = "billing.plan_limits"  # its name in Services.caches
TENANTS_MAX = 50_000
_ASSIGNED = tag_of(PlanAssigned)


class PlanLimits:
    """All of it runs on one event loop."""

    def __init__(self, reads: Reads, now: Monotonic = time.monotonic) -> None:
        self._reads = reads
        self._plans: OrderedDict[str, str] = OrderedDict()
        # A minute's worth may come at once; what is used fills up evenly.
        self._limiters = {
            plan.code: RateLimiter(plan.requests_per_minute, plan.requests_per_minute, now)
            for plan in PLANS.values()
        }

    async def take(self, tenant: str) -> Permit:
        """Count one request of a tenant."""
        code = self._plans.get(tenant)
        if code is None:
            code = await self._read(tenant)
        return self._limiters[plan_of(code).code].take(tenant)

    def follow(self, event: LiveEvent) -> None:
        """Take note of a record of the log, whatever it is."""
        if event.type == _ASSIGNED:
            self.assign(event.tenant, event.event.plan_code)

    def assign(self, tenant: str, plan_code: str) -> None:
        """The plan holds from now on."""
        self._plans[tenant] = plan_code
        self._plans.move_to_end(tenant)
        if len(self._plans) > TENANTS_MAX:
            self._plans.popitem(last=False)

    def clear(self) -> None:
        """Forget everything: changes may have been missed."""
        self._plans.clear()

    async def _read(self, tenant: str) -> str:
        try:
            row = await self._reads.one(billing_accounts.OF_TENANT, tenant)
        except DatabaseUnavailable:
            # Who may go on without the database goes on, at the default's pace.
            return self._plans.get(tenant, PAYG)
        code = (row and row["plan_code"]) or PAYG
        # What the log has told meanwhile is newer than the row.
        if tenant not in self._plans:
            self.assign(tenant, code)
        return self._plans[tenant]


def plan_limits(services: Services) -> PlanLimits:
    """The one of this process."""
    limits: PlanLimits | None = services.caches.get(CACHE)
    if limits is None:
        limits = services.caches[CACHE] = PlanLimits(services.reads)
    return limits
