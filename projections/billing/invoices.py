"""`invoices`: each invoice as Stripe last told it."""

from collections.abc import Sequence
from typing import Any

from projections.statements import Put, Statement, View
from schemas.billing.subscription import InvoiceChanged
from schemas.envelope import Envelope

_SECOND = 1_000_000


def reduce(event: Any, envelope: Envelope) -> Sequence[Statement]:
    if not isinstance(event, InvoiceChanged):
        return []
    told = event.invoice
    values = {
        "subscription_id": told.subscription_id,
        "number": told.number,
        "status": told.status,
        "currency": told.currency,
        "amount_due_minor": told.amount_due_minor,
        "amount_paid_minor": told.amount_paid_minor,
        "period_start": told.period_start * _SECOND,
        "period_end": told.period_end * _SECOND,
        "created_at": told.created * _SECOND,
    }
    return [Put({"tenant": envelope.tenant, "invoice_id": told.invoice_id}, values)]


INVOICES = View(
    name="invoices",
    version=1,
    events=(InvoiceChanged,),
    columns={
        "tenant": "text",
        "invoice_id": "text",
        "subscription_id": "text",
        "number": "text",
        "status": "text",
        "currency": "text",
        "amount_due_minor": "bigint",
        "amount_paid_minor": "bigint",
        "period_start": "bigint",
        "period_end": "bigint",
        "created_at": "bigint",
    },
    key=("tenant", "invoice_id"),
    indexes=("(tenant, created_at, invoice_id)",),
    reduce=reduce,
)

# Parameters: tenant, invoice id.
BY_ID = f"SELECT * FROM {INVOICES.table} WHERE tenant = %s AND invoice_id = %s"
# Newest first. Parameters: tenant; created_at and invoice_id of the last row seen; limit.
PAGE = f"""
SELECT * FROM {INVOICES.table} WHERE tenant = %s AND (created_at, invoice_id) < (%s, %s)
ORDER BY created_at DESC, invoice_id DESC LIMIT %s"""
