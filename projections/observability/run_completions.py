"""How runs ended. The first completion on the log stands: a retry changes nothing."""

from projections.clickhouse import INSTANT, JSON_TEXT, KEY_NAME, TENANT, ClickHouseView, Row
from projections.observability.items import RUN_ID, TEXT, TOPIC, WORD
from schemas.envelope import Envelope
from schemas.observability.run import RunCompleted


def rows(event: RunCompleted, envelope: Envelope) -> list[Row]:
    """One row per report of a run's end."""
    return [
        (
            envelope.tenant,
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
    version=2,
    topic=TOPIC,
    events=(RunCompleted,),
    columns={
        "tenant": TENANT,
        "run_id": RUN_ID,
        "status": WORD,
        "completed_at": INSTANT,
        "result": JSON_TEXT,
        "error": TEXT,
        "metadata": JSON_TEXT,
        "sealed_for": KEY_NAME,
    },
    order_by=("tenant", "run_id"),
    rows=rows,
    keep="first",
    personal={"result": "'{}'", "error": "''", "metadata": "'{}'"},
)
