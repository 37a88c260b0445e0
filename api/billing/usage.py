"""Usage: recorded, once for each idempotency key, and summed by window."""

from typing import Annotated, Any

from msgspec import Meta, Raw, Struct, field

from api.billing.answers import (
    UsageAccepted,
    UsageRecordedResponse,
    UsageSummaryResponse,
    UsageTotal,
    UsageWindow,
)
from api.billing.declaring import TENANT, service_route
from api.billing.instants import LAST_MICROS, instant
from api.billing.tenant import own_tenant
from api.cursors import read_cursor, write_cursor
from api.problems import Problem
from api.roles import BILLING_READERS, USAGE_REPORTERS
from api.routing import Answer, Call, answer_of
from commands.billing.usage import RecordUsage
from commands.billing.usage import UsageAnswer as Recorded
from infra.clock import iso
from infra.ids import command_id, new_id
from projections.billing import usage_windows
from schemas.billing.usage import Meter, Quantity
from schemas.billing.window import WindowKind
from schemas.types import EMPTY_JSON, Text

METADATA_BYTES = 8 * 1024

Instant = Annotated[Text, Meta(max_length=40, description="ISO 8601, UTC unless it says another")]
Key = Annotated[Text, Meta(min_length=1, max_length=200)]
JsonObject = Annotated[Raw, Meta(extra_json_schema={"type": "object"})]


class UsageRecordRequest(Struct):
    """A usage. `feature_key` is the meter (`meter` is another name for it).

    idempotency_key: a key counts once, for ever; the header `Idempotency-Key` does as well.
    timestamp: when it occurred, now by default; it decides the windows that it counts in.
    The period is kept as it is given.
    """

    quantity: Quantity
    feature_key: Meter | None = None
    meter: Meter | None = None
    idempotency_key: Key | None = None
    timestamp: Instant | None = None
    period_start: Instant | None = None
    period_end: Instant | None = None
    metadata: JsonObject = field(default_factory=Raw)


class UsageQuery(Struct, frozen=True, rename={"since": "from", "before": "to"}):
    """Windows of one kind, perhaps of one meter, that start at `from` or later and before `to`."""

    window: WindowKind = "day"
    meter: Annotated[Text, Meta(max_length=100)] = ""
    since: Instant = ""
    before: Instant = ""
    limit: Annotated[int, Meta(ge=1, le=500)] = 100
    cursor: Annotated[Text, Meta(max_length=300)] = ""


async def record_usage(call: Call[UsageRecordRequest, None]) -> Any:
    """Count a usage."""
    own_tenant(call)
    body = call.body
    meter = body.feature_key or body.meter
    if meter is None or (body.meter is not None and body.meter != meter):
        message = "Name the meter, in `feature_key` or in `meter`"
        raise Problem(422, "validation_error", message, field="feature_key")
    command = RecordUsage(
        meter=meter,
        quantity=body.quantity,
        occurred_at=_given(body.timestamp, "timestamp"),
        period_start=_given(body.period_start, "period_start"),
        period_end=_given(body.period_end, "period_end"),
        metadata=_metadata(body.metadata),
    )
    key = body.idempotency_key or call.raw.headers.get("idempotency-key", "")
    reply = await call.send(usage_id(call.tenant, key), command)
    recorded = answer_of(reply, Recorded)
    accepted = UsageAccepted(
        recorded.usage_id, recorded.meter, recorded.quantity, iso(recorded.occurred_at)
    )
    return Answer(UsageRecordedResponse(True, "Usage recorded", accepted), status=201)


def usage_id(tenant: str, key: str) -> str:
    """The id of a usage: the same key, the same id; a fresh one without a key."""
    if not key:
        return new_id("usg")
    return "usg_" + command_id(tenant, key, scope="usage").removeprefix("cmd_")


async def summarize_usage(call: Call[None, UsageQuery]) -> UsageSummaryResponse:
    """What was used, by window."""
    own_tenant(call)
    query = call.query
    since = instant(query.since, "from", 0)
    before = instant(query.before, "to", LAST_MICROS)
    start, meter = read_cursor(query.cursor, (-1, ""), status=422)
    chosen = (call.tenant, query.window, query.meter, query.meter, since, before)
    reads = call.services.reads
    rows = await reads.all(usage_windows.PAGE, *chosen, start, meter, query.limit + 1)
    totals = await reads.all(usage_windows.TOTALS, *chosen)
    reached = await reads.all(usage_windows.REACHED)
    page = rows[: query.limit]
    more = len(rows) > query.limit
    return UsageSummaryResponse(
        tenant_id=call.tenant,
        window=query.window,
        items=[_window(row) for row in page],
        totals=[UsageTotal(row["meter"], int(row["quantity"]), row["records"]) for row in totals],
        next_cursor=write_cursor(page[-1]["window_start"], page[-1]["meter"]) if more else None,
        positions=[f"{row['topic']}:{row['partition']}:{row['next_offset']}" for row in reached],
    )


def _window(row: dict[str, Any]) -> UsageWindow:
    return UsageWindow(
        row["meter"],
        iso(row["window_start"]),
        iso(row["window_end"]),
        int(row["quantity"]),
        row["records"],
    )


def _given(text: str | None, name: str) -> int | None:
    return instant(text, name, 0, where="body") if text else None


def _metadata(metadata: Raw) -> str:
    """The text of the object as it came; an empty one for null and for none."""
    data = bytes(metadata)
    if data in (b"", b"null"):
        return EMPTY_JSON
    if data[:1] != b"{":
        raise Problem(422, "validation_error", "Expected `object`", field="metadata")
    if len(data) > METADATA_BYTES:
        message = f"At most {METADATA_BYTES} bytes fit"
        raise Problem(422, "validation_error", message, field="metadata")
    return data.decode()


ROUTES = [
    service_route(
        "POST",
        f"{TENANT}/usage",
        record_usage,
        roles=USAGE_REPORTERS,
        body=UsageRecordRequest,
        response=UsageRecordedResponse,
        status=201,
        summary="Record Usage",
        refusals=(404, 409),
        max_body=64 * 1024,
        description="An idempotency key, in the body or in the header `Idempotency-Key`, counts "
        "once for ever. The same key with another meter, quantity or time is refused (409).",
    ),
    service_route(
        "GET",
        f"{TENANT}/usage",
        summarize_usage,
        roles=BILLING_READERS,
        query=UsageQuery,
        response=UsageSummaryResponse,
        summary="Summarize Usage",
        refusals=(404,),
        description="Totals by meter and UTC hour, day or month. LLM calls that agents report are "
        "metered as `llm.calls`, `llm.tokens_in`, `llm.tokens_out` and `llm.cost_nanodollars`.",
    ),
]
