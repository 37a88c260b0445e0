"""`/api/v1/billing/invoices`: what Stripe has billed."""

from typing import Annotated, Any

from msgspec import Meta, Struct

from api.billing.declaring import fhe_route
from api.cursors import newest_page
from api.problems import not_found
from api.roles import BILLING_READERS
from api.routing import Call
from infra.clock import iso
from projections.billing import invoices
from schemas.types import Text


class InvoicesQuery(Struct, frozen=True):
    """Which page."""

    limit: Annotated[int, Meta(ge=1, le=100)] = 20
    cursor: Annotated[Text, Meta(max_length=200)] = ""


class InvoiceItem(Struct, frozen=True):
    """An invoice. Amounts are in the currency's minor unit (cents); `status` is Stripe's."""

    invoice_id: str
    number: str
    subscription_id: str
    status: str
    currency: str
    amount_due_minor: int
    amount_paid_minor: int
    period_start: str
    period_end: str
    created_at: str


class InvoicePage(Struct, frozen=True):
    """A page of invoices, newest first, and where the next one begins."""

    data: list[InvoiceItem]
    next_cursor: str | None
    has_more: bool


async def list_invoices(call: Call[None, InvoicesQuery]) -> InvoicePage:
    """The tenant's invoices, newest first."""
    rows, cursor = await newest_page(call, invoices.PAGE, "invoice_id")
    return InvoicePage([_item(row) for row in rows], cursor, cursor is not None)


async def get_invoice(call: Call[None, None]) -> InvoiceItem:
    """One invoice."""
    id = call.path["invoice_id"]
    row = await call.services.reads.one(invoices.BY_ID, call.tenant, id)
    if row is None:
        not_found("No such invoice")
    return _item(row)


def _item(row: dict[str, Any]) -> InvoiceItem:
    return InvoiceItem(
        invoice_id=row["invoice_id"],
        number=row["number"],
        subscription_id=row["subscription_id"],
        status=row["status"],
        currency=row["currency"],
        amount_due_minor=row["amount_due_minor"],
        amount_paid_minor=row["amount_paid_minor"],
        period_start=iso(row["period_start"]),
        period_end=iso(row["period_end"]),
        created_at=iso(row["created_at"]),
    )


ROUTES = [
    fhe_route(
        "GET",
        "/api/v1/billing/invoices",
        list_invoices,
        roles=BILLING_READERS,
        query=InvoicesQuery,
        response=InvoicePage,
        summary="List invoices",
        refusals=(400,),
    ),
    fhe_route(
        "GET",
        "/api/v1/billing/invoices/{invoice_id}",
        get_invoice,
        roles=BILLING_READERS,
        response=InvoiceItem,
        summary="Show an invoice",
    ),
]
