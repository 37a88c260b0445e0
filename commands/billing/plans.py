"""The plans: what each costs and allows. Money is whole nanodollars, but for the monthly fee, which
is whole cents as Stripe counts them.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from msgspec import Struct

PlanCode = Literal["trial", "payg", "starter", "pro", "scale", "enterprise"]
# What can be subscribed to without talking to us.
SubscribablePlan = Literal["starter", "pro", "scale"]

_DOLLAR = 1_000_000_000


class Plan(Struct, frozen=True, kw_only=True):
    """A plan's terms.

    monthly_fee_cents: None where it is agreed upon. monthly_quota: nanodollars of encrypted
    computation a month, beyond which jobs are refused; None for no bound but the tenant's own caps.
    requests_per_minute: of encrypted computation, for the whole tenant. evaluation_keys_max: live
    at the same time.
    """

    code: PlanCode
    name: str
    monthly_fee_cents: int | None
    monthly_quota: int | None
    requests_per_minute: int
    evaluation_keys_max: int
    uptime_sla: str


PAYG: PlanCode = "payg"
TRIAL: PlanCode = "trial"

_BEST_EFFORT = "Best effort"

PLANS: Mapping[PlanCode, Plan] = MappingProxyType(
    {
        plan.code: plan
        for plan in (
            Plan(
                code=TRIAL,
                name="Trial",
                monthly_fee_cents=0,
                monthly_quota=_DOLLAR // 100,
                requests_per_minute=60,
                evaluation_keys_max=2,
                uptime_sla=_BEST_EFFORT,
            ),
            Plan(
                code=PAYG,
                name="Free / PAYG",
                monthly_fee_cents=0,
                monthly_quota=None,
                requests_per_minute=600,
                evaluation_keys_max=10,
                uptime_sla=_BEST_EFFORT,
            ),
            Plan(
                code="starter",
                name="Starter",
                monthly_fee_cents=4_900,
                monthly_quota=100 * _DOLLAR,
                requests_per_minute=1_200,
                evaluation_keys_max=25,
                uptime_sla=_BEST_EFFORT,
            ),
            Plan(
                code="pro",
                name="Pro",
                monthly_fee_cents=19_900,
                monthly_quota=500 * _DOLLAR,
                requests_per_minute=6_000,
                evaluation_keys_max=100,
                uptime_sla=_BEST_EFFORT,
            ),
            Plan(
                code="scale",
                name="Scale",
                monthly_fee_cents=99_900,
                monthly_quota=5_000 * _DOLLAR,
                requests_per_minute=30_000,
                evaluation_keys_max=1_000,
                uptime_sla="99.9% (max 8.7 h downtime/month)",
            ),
            Plan(
                code="enterprise",
                name="Enterprise",
                monthly_fee_cents=None,
                monthly_quota=None,
                requests_per_minute=60_000,
                evaluation_keys_max=10_000,
                uptime_sla="Custom (typically 99.95%+)",
            ),
        )
    }
)


def plan_of(code: str) -> Plan:
    """A plan by its code; pay as you go for one that this release does not know."""
    return next((plan for plan in PLANS.values() if plan.code == code), PLANS[PAYG])
