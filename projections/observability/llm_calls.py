"""LLM calls: one row per call, counted, summed, searched and charted.

Money: `cost` is the client's number, bit for bit, or what we priced the call at; `cost_pico` is the
same in whole picodollars (10^-12 USD), which sums exactly and in any order. Sums are taken over
`toInt128(cost_pico)`.
Agent and workflow are the run's, joined when read, since a call may be reported before its run.
"""

from projections.clickhouse import INSTANT, JSON_TEXT, TENANT, ClickHouseView, Row
from projections.observability.items import RUN_ID, TEXT, TOPIC, WORD, first_reports
from schemas.envelope import Envelope
from schemas.observability.model_cost import PICODOLLARS
from schemas.observability.run import LlmCall, LlmCallsRecorded


def searched_text(call: LlmCall) -> str:
    """What `search` looks into, in lower case; a needle is lower-cased the same way."""
    text = f"{call.model}\n{call.task}\n{call.prompt_preview}\n{call.response_preview}"
    return text.lower()


def cost_dollars(call: LlmCall) -> float:
    """The cost in dollars, divided once where we have priced the call."""
    return (call.cost or 0.0) if call.cost_pico is None else call.cost_pico / PICODOLLARS


def rows(event: LlmCallsRecorded, envelope: Envelope) -> list[Row]:
    """One row per call."""
    tenant, run_id, time = envelope.tenant, envelope.stream_id, envelope.time
    return [
        (
            tenant,
            run_id,
            call.id,
            call.model,
            call.task,
            call.prompt_preview,
            call.response_preview,
            call.prompt_hash,
            call.tokens_in,
            call.tokens_out,
            call.tokens_in + call.tokens_out,
            cost_dollars(call),
            call.whole_cost_pico,
            call.metadata,
            time,
            searched_text(call),
            call.cost_source or ("unpriced" if call.cost is None else "client"),
            call.price_in_pico,
            call.price_out_pico,
            call.price_model,
            call.price_revision,
        )
        for call in first_reports(event.calls)
    ]


LLM_CALLS = ClickHouseView(
    name="llm_calls",
    version=2,
    topic=TOPIC,
    events=(LlmCallsRecorded,),
    columns={
        "tenant": TENANT,
        "run_id": RUN_ID,
        "id": TEXT,
        "model": WORD,
        "task": WORD,
        "prompt_preview": TEXT,
        "response_preview": TEXT,
        "prompt_hash": TEXT,
        "tokens_in": "Int64",
        "tokens_out": "Int64",
        "total_tokens": "Int64",
        "cost": "Float64",
        "cost_pico": "Int64",
        "metadata": JSON_TEXT,
        "created_at": INSTANT,
        "search_text": TEXT,
        "cost_source": WORD,
        "price_in_pico": "Int64",
        "price_out_pico": "Int64",
        "price_model": WORD,
        "price_revision": "Int64",
    },
    # A run's id begins with its time, so rows lie in the order of time and `created_at` prunes.
    order_by=("tenant", "run_id", "id"),
    indexes=(
        "by_time created_at TYPE minmax GRANULARITY 1",
        "by_id id TYPE bloom_filter(0.01) GRANULARITY 1",
        "by_text search_text TYPE text(tokenizer = splitByNonAlpha)",
    ),
    rows=rows,
    keep="first",
)
