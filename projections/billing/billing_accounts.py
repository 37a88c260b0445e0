"""`billing_accounts`: each tenant's plan, caps and balance."""

from collections.abc import Sequence
from typing import Any

import msgspec

from projections.statements import Put, Statement, View
from schemas.billing.account import (
    Balance,
    ChargeCommitted,
    ChargeReleased,
    ChargeReserved,
    PlanAssigned,
    SpendingCap,
    SpendingCapsSet,
)
from schemas.envelope import Envelope


def reduce(event: Any, envelope: Envelope) -> Sequence[Statement]:
    key = {"tenant": envelope.tenant}
    match event:
        case PlanAssigned():
            plan = {"plan_code": event.plan_code, "subscription_id": event.subscription_id}
            return [Put(key, plan)]
        case SpendingCapsSet():
            return [Put(key, {"day_cap": _json(event.day), "month_cap": _json(event.month)})]
        case ChargeReserved() | ChargeCommitted() | ChargeReleased():
            return [Put(key, {"balance": _json(event.balance)})]
    return []


def _json(value: SpendingCap | Balance | None) -> str | None:
    return None if value is None else msgspec.json.encode(value).decode()


BILLING_ACCOUNTS = View(
    name="billing_accounts",
    version=1,
    events=(PlanAssigned, SpendingCapsSet, ChargeReserved, ChargeCommitted, ChargeReleased),
    columns={
        "tenant": "text",
        "plan_code": "text",
        "subscription_id": "text",
        "day_cap": "jsonb",
        "month_cap": "jsonb",
        "balance": "jsonb",
    },
    key=("tenant",),
    reduce=reduce,
)

# Parameters: tenant.
OF_TENANT = f"SELECT * FROM {BILLING_ACCOUNTS.table} WHERE tenant = %s"
