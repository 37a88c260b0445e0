"""LLM calls: one row per call, counted, summed, searched and charted.

Money: `cost` is the client's number, bit for bit, or what we priced the call at; `cost_pico` is the
same in whole picodollars (10^-12 USD), which sums exactly and in any order. Sums are taken over
`toInt128(cost_pico)`.
Agent and workflow are the run's, joined when read, since a call may be reported before its run.
"""

from typing import Any

import numpy as np

from projections.clickhouse import (
    INSTANT,
    JSON_TEXT,
    KEY_NAME,
    TENANT,
    ClickHouseView,
    Column,
    Items,
)
from projections.observability.items import (
    FILED_PERIOD,
    NUMBER,
    READ_AS_THEY_LIE,
    RUN,
    RUN_ID,
    TEXT,
    TOPIC,
    WORD,
    filed_periods,
)
from projections.observability.kept_sums import BY_HOUR, BY_RUN
from schemas.observability.model_cost import PICODOLLARS
from schemas.observability.run import LlmCallsRecorded


def lower(texts: Any) -> Any:
    """Each text as `str.lower` has it; Arrow's is the same for ASCII only."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pc.all(pc.string_is_ascii(texts)).as_py():
        return pc.ascii_lower(texts)
    return pa.array([text.lower() for text in texts.to_pylist()], pa.string())


def sources(told: Any, by_client: Any) -> Any:
    """Where costs are from; of calls that are older than prices, by whether they had one."""
    import pyarrow as pa
    import pyarrow.compute as pc

    untold = pc.equal(told, "")
    if not pc.any(untold).as_py():
        return told
    return pc.if_else(untold, pa.array(np.where(by_client, "client", "unpriced")), told)


_PRICE = ("price_in_pico", "price_out_pico", "price_model", "price_revision")


def columns(calls: Items) -> list[Column]:
    """One row per call."""
    # Late, since every role lists the views and only one of them makes rows.
    import pyarrow.compute as pc

    model, task, prompt, response = (
        calls.fields[name] for name in ("model", "task", "prompt_preview", "response_preview")
    )
    tokens_in, tokens_out = calls.fields["tokens_in"], calls.fields["tokens_out"]
    called_at = calls.fields["called_at"]
    given = calls.fields["cost"]
    by_client = ~np.isnan(given)
    given = np.nan_to_num(given, nan=0.0) + 0.0  # a negative zero is none
    priced = calls.fields["cost_pico"]
    return [
        calls.tenant,
        filed_periods(calls.stream_id, called_at),
        calls.stream_id,
        calls.fields["id"],
        model,
        task,
        prompt,
        response,
        calls.fields["prompt_hash"],
        tokens_in,
        tokens_out,
        np.add(tokens_in, tokens_out),
        np.where(by_client, given, priced / PICODOLLARS),
        np.where(by_client, np.rint(given * PICODOLLARS).astype(np.int64), priced),
        calls.fields["metadata"],
        np.where(called_at == 0, calls.time, called_at),
        # What `search` looks into; a needle is lower-cased the same way.
        lower(pc.binary_join_element_wise(model, task, prompt, response, "\n")),
        sources(calls.fields["cost_source"], by_client),
        *(calls.fields[name] for name in _PRICE),
        calls.sealed_for,
    ]


LLM_CALLS = ClickHouseView(
    name="llm_calls",
    version=6,
    topic=TOPIC,
    events=(LlmCallsRecorded,),
    columns={
        "tenant": TENANT,
        "filed_period": FILED_PERIOD,
        "run_id": RUN_ID,
        "id": TEXT,
        "model": WORD,
        "task": WORD,
        "prompt_preview": TEXT,
        "response_preview": TEXT,
        "prompt_hash": TEXT,
        "tokens_in": f"Int64 {NUMBER}",
        "tokens_out": f"Int64 {NUMBER}",
        "total_tokens": f"Int64 {NUMBER}",
        "cost": "Float64",
        "cost_pico": f"Int64 {NUMBER}",
        "metadata": JSON_TEXT,
        "created_at": INSTANT,
        "search_text": TEXT,
        "cost_source": WORD,
        "price_in_pico": "Int64",
        "price_out_pico": "Int64",
        "price_model": WORD,
        "price_revision": "Int64",
        "sealed_for": KEY_NAME,
    },
    derived=RUN,
    settings={
        **READ_AS_THEY_LIE,
        # A page takes single rows from many places: of each place and column one block is unpacked,
        # by default of 64 KiB, which is eight pieces of a number.
        "min_compress_block_size": 16_384,
    },
    order_by=("filed_period", "tenant", "run_id", "id"),
    indexes=(
        "by_time created_at TYPE minmax GRANULARITY 1",
        "by_run run TYPE bloom_filter(0.01) GRANULARITY 1",
        "by_prompt prompt_hash TYPE bloom_filter(0.01) GRANULARITY 1",
        "by_id id TYPE bloom_filter(0.01) GRANULARITY 1",
        "by_text search_text TYPE text(tokenizer = splitByNonAlpha)",
        "by_cost cost TYPE minmax GRANULARITY 1",
        "by_tokens total_tokens TYPE minmax GRANULARITY 1",
    ),
    projections={"kept_by_hour": BY_HOUR, "kept_by_run": BY_RUN},
    item_columns=columns,
    keep="first",
    personal={
        "prompt_preview": "''",
        "response_preview": "''",
        "metadata": "'{}'",
        # Of model, task, prompt and response, a line each, the first two (a model has one line).
        "search_text": (
            "concat(arrayStringConcat(arraySlice(splitByChar('\\n', search_text), 1, 2), '\\n'),"
            " '\\n\\n')"
        ),
    },
)
