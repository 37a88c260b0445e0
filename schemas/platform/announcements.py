"""What webhooks tell of: which events, under which public type, and how much of each.

One row for each event. A public type is part of the API: it stays, whatever the event is called.
"""

from collections.abc import Iterable

from msgspec import Struct

from schemas.billing.account import CapThresholdReached
from schemas.billing.budget import BudgetReached
from schemas.billing.subscription import InvoiceChanged, SubscriptionChanged
from schemas.fhe.evaluation_key import EvaluationKeyDeleted, EvaluationKeyRegistered
from schemas.fhe.job import JobFailed, JobSucceeded

TEST_TYPE = "webhook.test"
"""Of the event that `POST /api/v1/webhooks/{webhook_id}/test` sends; nobody subscribes to it."""
EVERYTHING = "*"


class Announcement(Struct, frozen=True):
    """One row. id: what the id of the event's stream is called outside. told: the event's fields
    that are told, `invoice.status` one of its invoice's, as `status`; instants (`_at`) as ISO 8601.
    """

    event: type[Struct]
    type: str
    id: str
    told: tuple[str, ...]


ANNOUNCEMENTS = (
    Announcement(
        JobSucceeded,
        "job.completed",
        "job_id",
        ("key_id", "params_id", "operation", "error_bound", "cpu_us", "succeeded_at"),
    ),
    Announcement(JobFailed, "job.failed", "job_id", ("key_id", "reason", "message", "failed_at")),
    Announcement(
        EvaluationKeyRegistered,
        "key.created",
        "key_id",
        ("params_id", "fingerprint", "name", "registered_at"),
    ),
    Announcement(EvaluationKeyDeleted, "key.deleted", "key_id", ("deleted_at",)),
    Announcement(
        BudgetReached,
        "budget.threshold",
        "budget_window_id",
        ("budget_id", "meter", "window", "percent", "limit", "total"),
    ),
    Announcement(
        CapThresholdReached,
        "budget.threshold",
        "account_id",
        ("window", "percent", "limit", "spent", "hard"),
    ),
    Announcement(
        InvoiceChanged,
        "invoice.updated",
        "invoice_id",
        (
            "invoice.number",
            "invoice.subscription_id",
            "invoice.status",
            "invoice.currency",
            "invoice.amount_due_minor",
            "invoice.amount_paid_minor",
        ),
    ),
    Announcement(
        SubscriptionChanged,
        "subscription.updated",
        "subscription_id",
        (
            "subscription.plan_code",
            "subscription.status",
            "subscription.cancel_at_period_end",
        ),
    ),
)


def selectable() -> list[str]:
    """What a subscription may name: each type, each group of them (`job.*`), and all (`*`)."""
    types = {row.type for row in ANNOUNCEMENTS}
    groups = {f"{type.partition('.')[0]}.*" for type in types}
    return sorted({EVERYTHING, *types, *groups})


def selects(selected: Iterable[str], type: str) -> bool:
    """Whether a subscription that names these is told of events of a public type."""
    return not {EVERYTHING, type, f"{type.partition('.')[0]}.*"}.isdisjoint(selected)
