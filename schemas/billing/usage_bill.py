"""Events of the bill for a month of pay as you go.

Stream `billing.usage_bill/<month>`: `2026-11`.
"""

from msgspec import Struct

from schemas.types import Count, Micros, Text

STREAM = "billing.usage_bill"


class UsageBillDue(Struct, frozen=True, tag="billing.usage_bill_due.v1", kw_only=True):
    """Stripe is to be asked to bill a month. amount_minor: US cents, at least one.

    attempt: how often it was due before. next_at: when it is due again, unless it is billed.
    """

    period_start: Micros
    period_end: Micros
    amount_minor: Count
    attempt: Count
    next_at: Micros


class UsageBilled(Struct, frozen=True, tag="billing.usage_billed.v1", kw_only=True):
    """The month is billed, by this invoice of Stripe's to this customer there."""

    invoice_id: Text
    customer_id: Text


UsageBillEvent = UsageBillDue | UsageBilled
