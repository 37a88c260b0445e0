"""Usage: so much of a meter was used. Stream `billing.usage/<usage id>`, one event each."""

from typing import Annotated

from msgspec import Meta, Struct

from schemas.types import EMPTY_JSON, Json, Micros

STREAM = "billing.usage"

# A meter's name, such as `api.requests` or `llm.tokens_in`.
Meter = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]*$", max_length=100)]
# Large enough for bytes and nanodollars, small enough for a billion of them in 128 bits.
Quantity = Annotated[int, Meta(ge=1, le=10**15)]


class UsageRecorded(Struct, frozen=True, tag="billing.usage_recorded.v1", kw_only=True):
    """A quantity of a meter was used at `occurred_at`, which decides the windows it counts in.

    usage_id is the stream's id. source: who reported it (`api`, `fhe` …), and `resource` about what
    (a job, a run). The period is what the client said of it; only `occurred_at` counts.
    """

    usage_id: str
    meter: Meter
    quantity: Quantity
    occurred_at: Micros
    source: str = "api"
    resource: str = ""
    period_start: Micros | None = None
    period_end: Micros | None = None
    metadata: Json = EMPTY_JSON


UsageEvent = UsageRecorded
