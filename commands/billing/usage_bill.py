"""A bill for a month of pay as you go: due until Stripe has made an invoice of it.

It stays due however long Stripe is away, at most a day after the last attempt: who asks Stripe
looks first whether an earlier attempt has made the invoice already.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, assert_never

from msgspec import Meta, Struct

from commands.decider import ClearTimer, Context, Decider, SetTimer
from commands.refusals import ActorForbidden, NotFound
from schemas.billing.usage_bill import STREAM, UsageBillDue, UsageBilled, UsageBillEvent
from schemas.instants import iso
from schemas.types import Micros, Text
from schemas.unions import members

# Stripe's search shows what was made a minute ago at the latest: no attempt follows sooner.
RETRY_AFTER_MICROS = 120 * 1_000_000
_LONGEST_PAUSE_MICROS = 24 * 3_600 * 1_000_000
_DOUBLINGS_MAX = 10
_RESUME = "resume"


class IssueUsageBill(Struct, frozen=True, tag="billing.issue_usage_bill.v1", kw_only=True):
    """Bill a month that is closed. amount_minor: US cents."""

    period_start: Micros
    period_end: Micros
    amount_minor: Annotated[int, Meta(ge=1)]


class ResumeUsageBill(Struct, frozen=True, tag="billing.resume_usage_bill.v1"):
    """It is time to ask Stripe again, should the month not be billed (timer)."""


class RecordUsageBilled(Struct, frozen=True, tag="billing.record_usage_billed.v1", kw_only=True):
    """Stripe has made an invoice of the bill."""

    invoice_id: Text
    customer_id: Text


UsageBillCommand = IssueUsageBill | ResumeUsageBill | RecordUsageBilled


class UsageBill(Struct, frozen=True):
    """due: as it was due last, None before it was issued. invoice_id: empty until it is billed."""

    due: UsageBillDue | None = None
    invoice_id: str = ""


def usage_bill_id(period_start: int) -> str:
    """The stream of a month's bill: `2026-11`; `period_start` in microseconds UTC."""
    return iso(period_start)[:7]


def decide(
    command: UsageBillCommand, state: UsageBill, context: Context
) -> Sequence[UsageBillEvent]:
    """Raises NotFound, ActorForbidden."""
    if context.actor.kind != "system":
        raise ActorForbidden("bills are issued by the system")
    if isinstance(command, IssueUsageBill):
        if state.due is not None:
            return []
        return [
            UsageBillDue(
                period_start=command.period_start,
                period_end=command.period_end,
                amount_minor=command.amount_minor,
                attempt=0,
                next_at=context.now + RETRY_AFTER_MICROS,
            )
        ]
    due = state.due
    if due is None:
        raise NotFound("no such bill")
    if state.invoice_id:
        return []
    match command:
        case RecordUsageBilled():
            return [UsageBilled(invoice_id=command.invoice_id, customer_id=command.customer_id)]
        case ResumeUsageBill():
            pause = RETRY_AFTER_MICROS * 2 ** min(due.attempt, _DOUBLINGS_MAX)
            return [
                UsageBillDue(
                    period_start=due.period_start,
                    period_end=due.period_end,
                    amount_minor=due.amount_minor,
                    attempt=due.attempt + 1,
                    next_at=context.now + min(pause, _LONGEST_PAUSE_MICROS),
                )
            ]
    assert_never(command)


def evolve(state: UsageBill, event: UsageBillEvent) -> UsageBill:
    match event:
        case UsageBillDue():
            return UsageBill(event, state.invoice_id)
        case UsageBilled():
            return UsageBill(state.due, event.invoice_id)
    assert_never(event)


def _timers(event: UsageBillEvent, stream_id: str) -> Sequence[SetTimer | ClearTimer]:
    match event:
        case UsageBillDue():
            return [SetTimer(_RESUME, event.next_at, ResumeUsageBill())]
        case UsageBilled():
            return [ClearTimer(_RESUME)]
    assert_never(event)


def _describe(command: UsageBillCommand) -> Mapping[str, Any]:
    match command:
        case IssueUsageBill():
            return {"period_start": command.period_start, "amount_minor": command.amount_minor}
        case RecordUsageBilled():
            return {"invoice_id": command.invoice_id}
        case ResumeUsageBill():
            return {}
    assert_never(command)


DECIDER: Decider[UsageBillCommand, UsageBill, UsageBillEvent] = Decider(
    stream=STREAM,
    commands=members(UsageBillCommand),
    events=members(UsageBillEvent),
    initial=UsageBill(),
    decide=decide,
    evolve=evolve,
    timers=_timers,
    describe=_describe,
)
