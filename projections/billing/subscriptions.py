"""`subscriptions`: each subscription as Stripe last told it, and the change that is under way."""

from collections.abc import Sequence
from typing import Any

from projections.statements import Put, Set, Statement, View
from schemas.billing.subscription import (
    SubscriptionChanged,
    SubscriptionChangeRequested,
    SubscriptionChangeWithdrawn,
)
from schemas.envelope import Envelope


def reduce(event: Any, envelope: Envelope) -> Sequence[Statement]:
    key = {"tenant": envelope.tenant, "subscription_id": envelope.stream_id}
    match event:
        case SubscriptionChangeRequested(kind="create"):
            values = {
                "created_at": event.requested_at,
                "plan_code": event.plan_code,
                "status": "pending",
                "change_id": event.change_id,
                "change_kind": event.kind,
                "change_plan_code": event.plan_code,
                "stripe_id": "",
                "customer_id": event.customer_id,
                "current_period_end": None,
                "cancel_at_period_end": False,
            }
            return [Put(key, values)]
        case SubscriptionChangeRequested():
            change = {
                "change_id": event.change_id,
                "change_kind": event.kind,
                "change_plan_code": event.plan_code,
            }
            return [Set(key, change)]
        case SubscriptionChangeWithdrawn():
            withdrawn = {"status": "withdrawn"} if event.kind == "create" else {}
            return [Set(key, {"change_kind": "", **withdrawn})]
        case SubscriptionChanged():
            told = event.subscription
            known = {
                "plan_code": told.plan_code,
                "status": told.status,
                "stripe_id": told.stripe_id,
                "customer_id": told.customer_id,
                "current_period_end": told.current_period_end,
                "cancel_at_period_end": told.cancel_at_period_end,
            }
            completed = {"change_kind": ""} if event.completes else {}
            return [Set(key, {**known, **completed})]
    return []


SUBSCRIPTIONS = View(
    name="subscriptions",
    version=1,
    events=(SubscriptionChangeRequested, SubscriptionChangeWithdrawn, SubscriptionChanged),
    columns={
        "tenant": "text",
        "subscription_id": "text",
        "created_at": "bigint",
        "plan_code": "text",
        "status": "text",
        "change_id": "text",
        "change_kind": "text",
        "change_plan_code": "text",
        "stripe_id": "text",
        "customer_id": "text",
        "current_period_end": "bigint",
        "cancel_at_period_end": "boolean",
    },
    key=("tenant", "subscription_id"),
    indexes=("(tenant, created_at, subscription_id)", "(customer_id)"),
    reduce=reduce,
)

# Parameters: tenant, subscription id.
BY_ID = f"SELECT * FROM {SUBSCRIPTIONS.table} WHERE tenant = %s AND subscription_id = %s"
# Newest first. Parameters: tenant; created_at and subscription_id of the last row seen; limit.
PAGE = f"""
SELECT * FROM {SUBSCRIPTIONS.table}
WHERE tenant = %s AND (created_at, subscription_id) < (%s, %s)
ORDER BY created_at DESC, subscription_id DESC LIMIT %s"""
# The tenant's customer at Stripe. Parameters: tenant.
CUSTOMER = f"""
SELECT customer_id FROM {SUBSCRIPTIONS.table} WHERE tenant = %s AND customer_id <> ''
ORDER BY created_at DESC LIMIT 1"""
# Whose customer at Stripe it is. Parameters: customer id.
BY_CUSTOMER = f"SELECT tenant FROM {SUBSCRIPTIONS.table} WHERE customer_id = %s LIMIT 1"
