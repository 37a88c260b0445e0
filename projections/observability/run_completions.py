"""How runs ended. The first completion on the log stands: a retry changes nothing.

A completion is filed under its run's period, as the start is (`run_starts.py`), or, where neither
the run's id nor the report says when it began, under the first.
"""

from projections.clickhouse import INSTANT, JSON_TEXT, KEY_NAME, TENANT, ClickHouseView, Row
from projections.observability.items import (
    FILED_PERIOD,
    READ_AS_THEY_LIE,
    RUN,
    RUN_ID,
    TEXT,
    TOPIC,
    WORD,
    filed_period,
)
from schemas.envelope import Envelope
from schemas.observability.run import RunCompleted


def rows(event: RunCompleted, envelope: Envelope) -> list[Row]:
    """One row per report of a run's end."""
    return [
        (
            envelope.tenant,
            filed_period(envelope.stream_id, event.began_at),
            envelope.stream_id,
            event.status,
            event.completed_at,
            event.result,
            event.error,
            event.metadata,
            envelope.sealed_for,
        )
    ]


RUN_COMPLETIONS = ClickHouseView(
    name="run_completions",
    version=4,
    topic=TOPIC,
    events=(RunCompleted,),
    columns={
        "tenant": TENANT,
        "filed_period": FILED_PERIOD,
        "run_id": RUN_ID,
        "status": WORD,
        "completed_at": INSTANT,
        "result": JSON_TEXT,
        "error": TEXT,
        "metadata": JSON_TEXT,
        "sealed_for": KEY_NAME,
    },
    derived=RUN,
    settings=READ_AS_THEY_LIE,
    order_by=("filed_period", "tenant", "run_id"),
    indexes=(
        "by_time completed_at TYPE minmax GRANULARITY 1",
        "by_run run TYPE bloom_filter(0.01) GRANULARITY 1",
    ),
    projections={
        "in_order_of_runs": "SELECT tenant, run, status, completed_at ORDER BY tenant, run",
    },
    rows=rows,
    keep="first",
    personal={"result": "'{}'", "error": "''", "metadata": "'{}'"},
)
