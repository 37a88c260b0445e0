"""An invoice: what Stripe says of it, the newest version."""

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from commands.decider import Context, Decider
from commands.refusals import ActorForbidden
from schemas.billing.subscription import (
    INVOICE_STATUSES,
    INVOICE_STREAM,
    InvoiceChanged,
    InvoiceEvent,
    StripeInvoice,
)


class RecordStripeInvoice(Struct, frozen=True, tag="billing.record_stripe_invoice.v1"):
    """Stripe has told of an invoice."""

    invoice: StripeInvoice


class Invoice(Struct, frozen=True):
    """What is compared with a later version; nothing else is kept."""

    version: int = -1
    rank: int = 0
    source: str = ""


def decide(
    command: RecordStripeInvoice, state: Invoice, context: Context
) -> Sequence[InvoiceEvent]:
    """Quiet about what is not newer. Raises ActorForbidden."""
    if context.actor.kind != "system":
        raise ActorForbidden("only Stripe tells of invoices")
    event = InvoiceChanged(invoice=command.invoice)
    return [event] if _order(evolve(state, event)) > _order(state) else []


def evolve(state: Invoice, event: InvoiceEvent) -> Invoice:
    told = event.invoice
    return Invoice(told.version, INVOICE_STATUSES.index(told.status), told.source)


def _order(state: Invoice) -> tuple[int, int, str]:
    return state.version, state.rank, state.source


def _describe(command: RecordStripeInvoice) -> Mapping[str, Any]:
    told = command.invoice
    return {"status": told.status, "version": told.version, "source": told.source}


DECIDER: Decider[RecordStripeInvoice, Invoice, InvoiceEvent] = Decider(
    stream=INVOICE_STREAM,
    commands=(RecordStripeInvoice,),
    events=(InvoiceChanged,),
    initial=Invoice(),
    decide=decide,
    evolve=evolve,
    describe=_describe,
)
