"""Behaviour spans of runs; kinds and statuses are kept as the client wrote them."""

from projections.clickhouse import INSTANT, JSON_TEXT, KEY_NAME, TENANT, ClickHouseView, Row
from projections.observability.items import RUN_ID, TEXT, TOPIC, WORD, first_reports
from schemas.envelope import Envelope
from schemas.observability.run import SpansRecorded


def rows(event: SpansRecorded, envelope: Envelope) -> list[Row]:
    """One row per span."""
    return [
        (
            envelope.tenant,
            envelope.stream_id,
            span.id,
            span.name,
            span.kind,
            span.status,
            span.duration_ms,
            span.position,
            span.attributes,
            span.input_data,
            span.output_data,
            span.started_at or envelope.time,
            envelope.sealed_for,
        )
        for span in first_reports(event.spans)
    ]


SPANS = ClickHouseView(
    name="spans",
    version=2,
    topic=TOPIC,
    events=(SpansRecorded,),
    columns={
        "tenant": TENANT,
        "run_id": RUN_ID,
        "id": TEXT,
        "name": TEXT,
        "kind": WORD,
        "status": WORD,
        "duration_ms": "Nullable(Int64)",
        "position": "Nullable(Int64)",
        "attributes": JSON_TEXT,
        "input_data": JSON_TEXT,
        "output_data": JSON_TEXT,
        "created_at": INSTANT,
        "sealed_for": KEY_NAME,
    },
    order_by=("tenant", "run_id", "id"),
    rows=rows,
    keep="first",
    personal={"attributes": "'{}'", "input_data": "'{}'", "output_data": "'{}'"},
)
