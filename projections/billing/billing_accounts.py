"""`billing_accounts`: each tenant's plan, caps, balance and number of evaluation keys."""

from collections.abc import Sequence
from typing import Any

from projections.statements import Put, Statement, View, json_text
from schemas.billing.account import (
    Balance,
    ChargeCommitted,
    ChargeReleased,
    ChargeReserved,
    EvaluationKeyAdmitted,
    EvaluationKeyReleased,
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
        case EvaluationKeyAdmitted() | EvaluationKeyReleased():
            return [Put(key, {"evaluation_keys": event.live})]
    return []


def _json(value: SpendingCap | Balance | None) -> str | None:
    return None if value is None else json_text(value)


BILLING_ACCOUNTS = View(
    name="billing_accounts",
    version=2,
    events=(
        PlanAssigned,
        SpendingCapsSet,
        ChargeReserved,
        ChargeCommitted,
        ChargeReleased,
        EvaluationKeyAdmitted,
        EvaluationKeyReleased,
    ),
    columns={
        "tenant": "text",
        "plan_code": "text",
        "subscription_id": "text",
        "day_cap": "jsonb",
        "month_cap": "jsonb",
        "balance": "jsonb",
        "evaluation_keys": "bigint",
    },
    key=("tenant",),
    reduce=reduce,
)

# Parameters: tenant.
OF_TENANT = f"SELECT * FROM {BILLING_ACCOUNTS.table} WHERE tenant = %s"
