"""Carries changes of subscriptions out at Stripe.

The API does so within the request that asks for the change. When it dies on the way, the decider's
timer makes the change due again, and the process manager here goes on: it asks Stripe under the
same idempotency key, so that Stripe has done it once however often it is asked.
"""

import logging
from typing import Any, Protocol

from commands.billing.subscription_state import RecordStripeSubscription, WithdrawSubscriptionChange
from infra.ids import command_id
from infra.stripe import Stripe, StripeRefused, StripeUnavailable
from schemas.billing.subscription import ChangeKind, StripeSubscription, SubscriptionChangeDue
from schemas.codec import Codec
from schemas.envelope import SYSTEM, Envelope
from streams.bus import CommandBus, CommandRequest
from streams.following import Follower, of_types, one_by_one

logger = logging.getLogger(__name__)

GROUP = "streams.billing.subscription_changes.v1"


class Change(Protocol):
    """A change as the intent and the decider's state hold it."""

    @property
    def change_id(self) -> str: ...
    @property
    def kind(self) -> ChangeKind: ...
    @property
    def plan_code(self) -> str: ...
    @property
    def customer_id(self) -> str: ...
    @property
    def stripe_id(self) -> str: ...


async def carry_out(
    stripe: Stripe, tenant: str, subscription_id: str, change: Change
) -> StripeSubscription:
    """Ask Stripe for a change; what it answers. Raises StripeUnavailable, StripeRefused."""
    if change.kind == "create":
        return await stripe.subscribe(
            tenant=tenant,
            subscription_id=subscription_id,
            change_id=change.change_id,
            plan_code=change.plan_code,
            customer_id=change.customer_id,
        )
    if change.kind == "change_plan":
        return await stripe.change_plan(
            stripe_id=change.stripe_id, change_id=change.change_id, plan_code=change.plan_code
        )
    return await stripe.cancel(
        stripe_id=change.stripe_id,
        change_id=change.change_id,
        at_period_end=change.kind == "cancel",
    )


class SubscriptionChanges:
    """Carries out what is due until cancelled; any number of processes may do so at once."""

    def __init__(self, *, bootstrap: str, codec: Codec, bus: CommandBus, stripe: Stripe) -> None:
        self._bus, self._stripe = bus, stripe
        self._follower = Follower(
            bootstrap=bootstrap,
            group=GROUP,
            codec=codec,
            wants=of_types(SubscriptionChangeDue),
            handle=one_by_one(self.handle),
        )

    async def run(self) -> None:
        """Follow the log; what goes wrong outside is waited out."""
        await self._follower.run()

    async def handle(self, envelope: Envelope, due: Any) -> None:
        """Carry one change out; while Stripe is away, the change comes due again by itself."""
        if not self._stripe.is_configured:
            logger.warning("%s is due, and there is no Stripe key", envelope.stream)
            return
        command: RecordStripeSubscription | WithdrawSubscriptionChange
        try:
            told = await carry_out(self._stripe, envelope.tenant, envelope.stream_id, due)
            command = RecordStripeSubscription(told)
        except StripeUnavailable as error:
            logger.warning("%s is due, and Stripe is away: %s", envelope.stream, error)
            return
        except StripeRefused as error:
            logger.warning("Stripe refuses %s of %s: %s", due.kind, envelope.stream, error)
            command = WithdrawSubscriptionChange(due.change_id, "stripe_refused")
        await self._bus.post(
            CommandRequest(
                tenant=envelope.tenant,
                stream_id=envelope.stream_id,
                command=command,
                actor=SYSTEM,
                command_id=command_id(envelope.tenant, envelope.id, "subscription-change"),
                correlation_id=envelope.correlation_id,
            )
        )
