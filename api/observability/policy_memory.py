"""The policies of the tenants that ask, and what was used, in this process's memory.

A check is answered from here. A tenant's policies are read once, and then kept by the tail of
`events`, which hands over every change. What was used is read again, beside the requests, when it
is a second old; only what is older than some seconds, because nobody asked, is waited for.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable

import msgspec

from api.services import Reads, Services
from api.subscription import LiveEvent
from commands.observability.policy_check import (
    Amount,
    Asked,
    Policy,
    Total,
    Usage,
    Verdict,
    evaluate,
    span_of,
    totals_of,
    window_counted,
)
from infra.clock import Clock
from infra.postgres import DatabaseUnavailable
from projections.observability import policies, usage_by_agent
from schemas.codec import Undecodable
from schemas.observability.policy import (
    STREAM,
    Definition,
    PolicyCreated,
    PolicyDeleted,
    PolicyRevised,
)

logger = logging.getLogger(__name__)

FRESH_SECONDS = 1.0
STALE_SECONDS = 5.0
TENANTS_MAX = 10_000
_PREFIX = f"{STREAM}_"  # of the types of its events: observability.policy_created.v1

Change = tuple[int, Policy | None]  # the revision, and the policy unless it was deleted


class _Tenant:
    """What is known of a tenant. changes: of the log, also from before the policies were read.
    counting_ids: of the policies that ask what was used."""

    __slots__ = (
        "changes",
        "counted_at",
        "counting",
        "counting_ids",
        "failed",
        "loading",
        "policies",
        "totals",
        "tried_at",
    )

    def __init__(self) -> None:
        self.changes: dict[str, Change] = {}
        self.policies: tuple[Policy, ...] | None = None
        self.counting_ids: frozenset[str] = frozenset()
        self.totals: dict[str, Total] = {}
        self.failed: DatabaseUnavailable | None = None
        self.counted_at = self.tried_at = float("-inf")
        self.loading: asyncio.Task[None] | None = None
        self.counting: asyncio.Task[None] | None = None

    def apply(self, policy_id: str, change: Change) -> None:
        """Take a change in; an older one than is known changes nothing."""
        if change[0] <= self.changes.get(policy_id, (0, None))[0]:
            return
        self.changes[policy_id] = change
        if self.policies is not None:
            self.settle(self.policies)

    def settle(self, read: tuple[Policy, ...]) -> None:
        """The policies are those, and what changed after they were read."""
        found = {policy.id: policy for policy in read}
        for policy_id, (revision, policy) in self.changes.items():
            if policy is None:
                found.pop(policy_id, None)
            elif policy_id not in found or found[policy_id].revision <= revision:
                found[policy_id] = policy
        self.policies = tuple(found.values())
        # What was counted was counted for other scopes.
        self.counted_at = self.tried_at = float("-inf")

        self.counting_ids = frozenset(
            policy.id
            for policy in self.policies
            if policy.definition.enabled and window_counted(policy.definition.rule)
        )


class PolicyMemory:
    """All of it runs on one event loop. monotonic: seconds of a clock that never goes back."""

    def __init__(
        self, reads: Reads, clock: Clock, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._reads, self._clock, self._monotonic = reads, clock, monotonic
        self._tenants: OrderedDict[str, _Tenant] = OrderedDict()

    async def judge(self, tenant: str, asked: Asked) -> Verdict:
        """What the tenant's policies say. Raises DatabaseUnavailable for what was never read."""
        known, policies_now = await self._known(tenant)
        if known.counting_ids:
            await self._counted(tenant, known)
            policies_now = known.policies or policies_now
        return evaluate(policies_now, asked, known.totals, self._clock.now())

    async def policies(self, tenant: str) -> tuple[Policy, ...]:
        """The tenant's policies as they stand. Raises DatabaseUnavailable."""
        return (await self._known(tenant))[1]

    async def _known(self, tenant: str) -> tuple[_Tenant, tuple[Policy, ...]]:
        known = self._tenant(tenant)
        while known.policies is None:
            known.loading = known.loading or asyncio.create_task(self._load(tenant, known))
            await asyncio.shield(known.loading)
            known = self._tenant(tenant)
        return known, known.policies

    def apply(
        self, tenant: str, policy_id: str, revision: int, definition: Definition | None
    ) -> None:
        """A policy stands so from this revision on, or is deleted."""
        policy = None if definition is None else Policy(policy_id, revision, definition)
        self._tenant(tenant).apply(policy_id, (revision, policy))

    def follow(self, event: LiveEvent) -> None:
        """Take in what the log tells."""
        if not event.type.startswith(_PREFIX):
            return
        try:
            change = event.event
        except Undecodable:  # of a newer release: what it did is read from its rows
            self._tenants.pop(event.tenant, None)
            return
        match change:
            case PolicyCreated() | PolicyRevised():
                self.apply(event.tenant, change.policy_id, change.revision, change.definition)
            case PolicyDeleted():
                self.apply(event.tenant, change.policy_id, change.revision, None)

    def clear(self) -> None:
        """Forget all, because the log was not followed without a gap."""
        self._tenants.clear()

    def _tenant(self, tenant: str) -> _Tenant:
        known = self._tenants.get(tenant)
        if known is None:
            known = self._tenants[tenant] = _Tenant()
            if len(self._tenants) > TENANTS_MAX:
                self._tenants.popitem(last=False)
        self._tenants.move_to_end(tenant)
        return known

    async def _load(self, tenant: str, known: _Tenant) -> None:
        try:
            rows = await self._reads.all(policies.ALL, tenant)
        finally:
            known.loading = None
        known.settle(
            tuple(
                Policy(
                    row["policy_id"],
                    row["revision"],
                    msgspec.convert(row["definition"], Definition),
                )
                for row in rows
            )
        )

    async def _counted(self, tenant: str, known: _Tenant) -> None:
        """Have counts: those of a moment ago while they are read again, else wait for them.

        Raises DatabaseUnavailable when a policy was never counted for.
        """
        for _ in range(2):  # a change of the policies meanwhile makes it count again
            now = self._monotonic()
            age = now - known.counted_at
            if age <= FRESH_SECONDS:
                return
            if known.counting is None and now - known.tried_at > FRESH_SECONDS:
                known.tried_at = now
                known.counting = asyncio.create_task(self._count(tenant, known))
            if known.counting is None or age <= STALE_SECONDS:
                break
            await asyncio.shield(known.counting)
        if known.failed is not None and not known.counting_ids <= known.totals.keys():
            raise known.failed

    async def _count(self, tenant: str, known: _Tenant) -> None:
        """Read what was used. While Postgres is away, the last counts stand."""
        assert known.policies is not None
        asked_at, counted = known.policies, self._monotonic()
        now = self._clock.now()
        starts = [span_of(window, now)[0] for window in ("minute", "hour", "day", "month")]
        by_id = any(policy.definition.scope.agent_ids for policy in asked_at)
        try:
            rows = await self._reads.all(usage_by_agent.CURRENT, by_id, tenant, *starts)
            known.failed = None
        except DatabaseUnavailable as error:
            logger.warning("policies are checked by the last counts: %s", error)
            known.failed = error
            return
        finally:
            known.counting = None
        usages = [
            Usage(
                row["window_kind"],
                row["agent_name"],
                row["workflow_name"],
                row["agent_id"],
                Amount(row["runs"], row["calls"], int(row["tokens"]), int(row["nanodollars"])),
            )
            for row in rows
        ]
        known.totals = totals_of(asked_at, usages, now)
        if known.policies is asked_at:
            known.counted_at = counted


def policy_memory(services: Services) -> PolicyMemory:
    """This process's, made when it is first asked for."""
    found = services.caches.get("policies")
    if found is None:
        found = services.caches["policies"] = PolicyMemory(services.reads, services.clock)
    assert isinstance(found, PolicyMemory)
    return found
