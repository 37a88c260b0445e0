"""`billing_events`: one row for each event of the domain, in the order of the log's time."""

from collections.abc import Sequence
from typing import Any

from projections.statements import Put, Statement, View, json_text
from schemas.billing.account import CapThresholdReached, PlanAssigned, SpendingCapsSet
from schemas.billing.budget import BudgetReached, BudgetRemoved, BudgetSet
from schemas.billing.subscription import InvoiceChanged, SubscriptionChanged
from schemas.billing.usage import UsageRecorded
from schemas.envelope import Envelope


def reduce(event: Any, envelope: Envelope) -> Sequence[Statement]:
    match event:
        case UsageRecorded():
            meter, occurred_at = event.meter, event.occurred_at
        case BudgetSet() | BudgetReached():
            meter, occurred_at = event.meter, envelope.time
        case BudgetRemoved():
            # A budget's id is its meter and window.
            meter, occurred_at = event.budget_id.rpartition("@")[0], envelope.time
        case (
            PlanAssigned()
            | SpendingCapsSet()
            | CapThresholdReached()
            | SubscriptionChanged()
            | InvoiceChanged()
        ):
            meter, occurred_at = "", envelope.time
        case _:
            return []
    values = {
        "event_type": envelope.type,
        "recorded_at": envelope.time,
        "occurred_at": occurred_at,
        "meter": meter,
        "actor_kind": envelope.actor.kind,
        "actor_id": envelope.actor.id,
        "payload": json_text(event),
    }
    return [Put({"tenant": envelope.tenant, "event_id": envelope.id}, values)]


BILLING_EVENTS = View(
    name="billing_events",
    version=1,
    events=(
        UsageRecorded,
        BudgetSet,
        BudgetRemoved,
        BudgetReached,
        PlanAssigned,
        SpendingCapsSet,
        CapThresholdReached,
        SubscriptionChanged,
        InvoiceChanged,
    ),
    columns={
        "tenant": "text",
        "event_id": "text",
        "event_type": "text",
        "recorded_at": "bigint",
        "occurred_at": "bigint",
        "meter": "text",
        "actor_kind": "text",
        "actor_id": "text",
        "payload": "jsonb",
    },
    key=("tenant", "event_id"),
    indexes=("(tenant, recorded_at, event_id)", "(tenant, meter, recorded_at)"),
    reduce=reduce,
)

# Newest first. Parameters: tenant; recorded_at and event_id of the last row seen; event type,
# twice; meter, twice; since; limit.
PAGE = f"""
SELECT event_id, event_type, recorded_at, occurred_at, meter, actor_kind, actor_id, payload
FROM {BILLING_EVENTS.table}
WHERE tenant = %s AND (recorded_at, event_id) < (%s, %s)
  AND (%s = '' OR event_type = %s) AND (%s = '' OR meter = %s) AND recorded_at >= %s
ORDER BY recorded_at DESC, event_id DESC
LIMIT %s
"""
