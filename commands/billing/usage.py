"""Usage, recorded once: the stream is the usage itself, so a repeat stays quiet for ever.

A record of its own for each usage id keeps every state small. One stream per tenant that remembers
ids would grow without bound, or forget, and count again what it has forgotten.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from commands.decider import Context, Decider
from commands.refusals import InvalidCommand, Refusal
from schemas.billing.usage import STREAM, Meter, Quantity, UsageEvent, UsageRecorded
from schemas.types import EMPTY_JSON, Json, Micros

# Usage may be reported late, as long as its month can still be billed; and clocks differ a little.
LATEST_MICROS = 35 * 86_400 * 1_000_000
AHEAD_MICROS = 300 * 1_000_000


class UsageIdReused(Refusal):
    """The usage id was recorded with another meter, quantity or time."""

    code = "usage_id_reused"


class RecordUsage(Struct, frozen=True, tag="billing.record_usage.v1", kw_only=True):
    """Count a usage. Without `occurred_at` it occurred when it is decided."""

    meter: Meter
    quantity: Quantity
    occurred_at: Micros | None = None
    period_start: Micros | None = None
    period_end: Micros | None = None
    source: str = "api"
    resource: str = ""
    metadata: Json = EMPTY_JSON


class Usage(Struct, frozen=True):
    """What was recorded; `meter` is empty before that."""

    meter: str = ""
    quantity: int = 0
    occurred_at: int = 0


class UsageAnswer(Struct, frozen=True):
    """The usage as it counts; `occurred_at` in microseconds UTC."""

    usage_id: str
    meter: str
    quantity: int
    occurred_at: int


def decide(command: RecordUsage, state: Usage, context: Context) -> Sequence[UsageEvent]:
    """Raises UsageIdReused, InvalidCommand."""
    if state.meter:
        if _differs(command, state):
            raise UsageIdReused("this idempotency key recorded another usage")
        return []
    occurred_at = context.now if command.occurred_at is None else command.occurred_at
    if occurred_at > context.now + AHEAD_MICROS:
        raise InvalidCommand("usage cannot occur in the future", field="timestamp")
    if occurred_at < context.now - LATEST_MICROS:
        raise InvalidCommand("usage is reported within 35 days", field="timestamp")
    start, end = command.period_start, command.period_end
    if start is not None and end is not None and end < start:
        raise InvalidCommand("the period ends before it starts", field="period_end")
    return [
        UsageRecorded(
            usage_id=context.stream_id,
            meter=command.meter,
            quantity=command.quantity,
            occurred_at=occurred_at,
            source=command.source,
            resource=command.resource,
            period_start=start,
            period_end=end,
            metadata=command.metadata,
        )
    ]


def _differs(command: RecordUsage, state: Usage) -> bool:
    # A repeat without a time means the time that the first one was given.
    return (command.meter, command.quantity) != (state.meter, state.quantity) or (
        command.occurred_at is not None and command.occurred_at != state.occurred_at
    )


def evolve(state: Usage, event: UsageEvent) -> Usage:
    return Usage(event.meter, event.quantity, event.occurred_at)


def _answer(command: RecordUsage, state: Usage, context: Context) -> UsageAnswer:
    return UsageAnswer(context.stream_id, state.meter, state.quantity, state.occurred_at)


def _describe(command: RecordUsage) -> Mapping[str, Any]:
    return {"meter": command.meter, "quantity": command.quantity, "source": command.source}


DECIDER: Decider[RecordUsage, Usage, UsageEvent] = Decider(
    stream=STREAM,
    commands=(RecordUsage,),
    events=(UsageRecorded,),
    initial=Usage(),
    decide=decide,
    evolve=evolve,
    answer=_answer,
    describe=_describe,
)
