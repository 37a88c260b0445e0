"""Makes invoices at Stripe of what was spent on pay as you go, one for each tenant and month.

A closed month issues a bill, and a bill that is due is put to Stripe until an invoice of it is on
the log. A crash anywhere repeats the last step, under the same idempotency keys; after Stripe has
forgotten those, an attempt finds what an earlier one has made by the marks that it left there.
"""

import logging
from typing import Any

from commands.billing.usage_bill import IssueUsageBill, RecordUsageBilled, usage_bill_id
from infra.ids import command_id
from infra.stripe import Stripe, StripeRefused, StripeUnavailable
from schemas.billing.account import UsagePeriodClosed
from schemas.billing.usage_bill import UsageBillDue
from schemas.codec import Codec
from schemas.envelope import SYSTEM, Envelope
from streams.bus import CommandBus, CommandRequest
from streams.following import Follower, of_types, one_by_one

logger = logging.getLogger(__name__)

GROUP = "streams.billing.usage_bills.v1"


class UsageBills:
    """Bills until cancelled; any number of processes may do so at once."""

    def __init__(self, *, bootstrap: str, codec: Codec, bus: CommandBus, stripe: Stripe) -> None:
        self._bus, self._stripe = bus, stripe
        self._follower = Follower(
            bootstrap=bootstrap,
            group=GROUP,
            codec=codec,
            wants=of_types(UsagePeriodClosed, UsageBillDue),
            handle=one_by_one(self.handle),
        )

    async def run(self) -> None:
        """Follow the log; what goes wrong outside is waited out."""
        await self._follower.run()

    async def handle(self, envelope: Envelope, event: Any) -> None:
        """Issue a bill, or put one to Stripe; while Stripe is away, it comes due again by itself.

        An installation without a Stripe key bills nobody.
        """
        if not self._stripe.is_configured:
            return
        if isinstance(event, UsagePeriodClosed):
            if event.amount_minor:
                await self._post(
                    envelope,
                    IssueUsageBill(
                        period_start=event.period_start,
                        period_end=event.period_end,
                        amount_minor=event.amount_minor,
                    ),
                    event.period_start,
                )
            return
        try:
            billed = await self._stripe.bill_usage(
                tenant=envelope.tenant,
                month=usage_bill_id(event.period_start),
                period_start=event.period_start,
                period_end=event.period_end,
                amount_minor=event.amount_minor,
            )
        except StripeUnavailable as error:
            logger.warning("%s is due, and Stripe is away: %s", envelope.stream, error)
            return
        except StripeRefused as error:
            # Ours to repair at Stripe; the bill comes due until that is done.
            logger.error("Stripe refuses %s of %s: %s", envelope.stream, envelope.tenant, error)
            return
        command = RecordUsageBilled(invoice_id=billed.invoice_id, customer_id=billed.customer_id)
        await self._post(envelope, command, event.period_start)

    async def _post(
        self, envelope: Envelope, command: IssueUsageBill | RecordUsageBilled, period_start: int
    ) -> None:
        await self._bus.post(
            CommandRequest(
                tenant=envelope.tenant,
                stream_id=usage_bill_id(period_start),
                command=command,
                actor=SYSTEM,
                command_id=command_id(envelope.tenant, envelope.id, "usage-bill"),
                correlation_id=envelope.correlation_id,
            )
        )
