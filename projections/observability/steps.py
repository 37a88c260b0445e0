"""Steps of runs, in the order they were reported (`_offset`, `_index`)."""

from projections.clickhouse import INSTANT, JSON_TEXT, KEY_NAME, TENANT, ClickHouseView, Row
from projections.observability.items import RUN_ID, TEXT, TOPIC, first_reports
from schemas.envelope import Envelope
from schemas.observability.run import StepsRecorded


def rows(event: StepsRecorded, envelope: Envelope) -> list[Row]:
    """One row per step."""
    return [
        (
            envelope.tenant,
            envelope.stream_id,
            step.id,
            step.step_name,
            step.output,
            envelope.time,
            envelope.sealed_for,
        )
        for step in first_reports(event.steps)
    ]


STEPS = ClickHouseView(
    name="steps",
    version=2,
    topic=TOPIC,
    events=(StepsRecorded,),
    columns={
        "tenant": TENANT,
        "run_id": RUN_ID,
        "id": TEXT,
        "step_name": TEXT,
        "output": JSON_TEXT,
        "created_at": INSTANT,
        "sealed_for": KEY_NAME,
    },
    order_by=("tenant", "run_id", "id"),
    rows=rows,
    keep="first",
    personal={"output": "'{}'"},
)
