"""`POST /api/v1/billing/stripe_webhook`: what Stripe tells, known by its signature.

An event may come twice and in any order: its command has an id that follows from Stripe's, and the
decider takes newer versions only. What does not concern us is accepted and ignored, so that Stripe
does not send it again. An answer other than 2xx makes Stripe repeat the event for three days.
"""

import logging
from typing import Any

from msgspec import Struct

from api.problems import FHE, Problem
from api.routing import Call, Route, Who
from commands.billing.invoice import RecordStripeInvoice
from commands.billing.subscription_state import RecordStripeSubscription
from infra.ids import command_id
from infra.stripe import BadStripeEvent, Told
from projections.billing import subscriptions
from schemas.billing.subscription import StripeSubscription
from schemas.envelope import SYSTEM
from streams.bus import CommandRequest

logger = logging.getLogger(__name__)

SIGNATURE = "stripe-signature"


class ReceivedItem(Struct, frozen=True):
    """`handled` is false for an event that does not concern us."""

    received: bool
    handled: bool


async def receive(call: Call[bytes, None]) -> ReceivedItem:
    """Record what Stripe tells of a subscription or an invoice."""
    stripe = call.services.stripe
    if not stripe.hears:
        message = "This installation has no signing secret (STRIPE_WEBHOOK_SECRET)"
        raise Problem(503, "billing_not_configured", message, headers={"retry-after": "3600"})
    try:
        told = stripe.read_event(call.content, call.raw.headers.get(SIGNATURE, ""))
    except BadStripeEvent as error:
        logger.warning("a Stripe webhook is refused: %s", error)
        message = "The signature or the content is not Stripe's"
        raise Problem(400, "invalid_signature", message) from None
    if told is None:
        return ReceivedItem(received=True, handled=False)
    tenant = await _tenant(call, told)
    command = _command(told)
    if not tenant or command is None:
        logger.warning("Stripe's event %s is about nobody's customer", told.event_id)
        return ReceivedItem(received=True, handled=False)
    stream_id, record = command
    await call.deliver(
        CommandRequest(
            tenant=tenant,
            stream_id=stream_id,
            command=record,
            actor=SYSTEM,
            command_id=command_id(tenant, told.event_id, scope="stripe"),
            fingerprint="stripe",
            correlation_id=call.request_id,
        )
    )
    return ReceivedItem(received=True, handled=True)


async def _tenant(call: Call[Any, Any], told: Told) -> str:
    """Whose customer it is about: the mark that we left at Stripe, else the customer's."""
    if told.tenant:
        return told.tenant
    customer_id = told.what.customer_id
    row = await call.services.reads.one(subscriptions.BY_CUSTOMER, customer_id)
    return str(row["tenant"]) if row else ""


def _command(told: Told) -> tuple[str, RecordStripeSubscription | RecordStripeInvoice] | None:
    if not isinstance(told.what, StripeSubscription):
        return told.what.invoice_id, RecordStripeInvoice(told.what)
    # One that we did not make has no stream of ours.
    if not told.subscription_id:
        return None
    return told.subscription_id, RecordStripeSubscription(told.what)


ROUTES = [
    Route(
        "POST",
        "/api/v1/billing/stripe_webhook",
        receive,
        dialect=FHE,
        who=Who.PUBLIC,
        body=bytes,
        raw_body=True,
        response=ReceivedItem,
        tags=("billing",),
        summary="Receive Stripe's events",
        description="For Stripe alone: verified by the header `Stripe-Signature`. An event has one "
        "effect, however often and in whatever order it comes.",
    ),
]
