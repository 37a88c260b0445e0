"""Scores of runs."""

from projections.clickhouse import INSTANT, TENANT, ClickHouseView, Row
from projections.observability.items import RUN_ID, TEXT, TOPIC, WORD, first_reports
from schemas.envelope import Envelope
from schemas.observability.run import ScoresRecorded


def rows(event: ScoresRecorded, envelope: Envelope) -> list[Row]:
    """One row per score."""
    return [
        (
            envelope.tenant,
            envelope.stream_id,
            score.id,
            score.name,
            score.data_type,
            event.source,
            score.numeric_value,
            score.string_value,
            score.comment,
            envelope.actor.id,
            envelope.time,
        )
        for score in first_reports(event.scores)
    ]


SCORES = ClickHouseView(
    name="scores",
    version=1,
    topic=TOPIC,
    events=(ScoresRecorded,),
    columns={
        "tenant": TENANT,
        "run_id": RUN_ID,
        "id": TEXT,
        "name": WORD,
        "data_type": WORD,
        "source": WORD,
        "numeric_value": "Nullable(Float64)",
        "string_value": "Nullable(String)",
        "comment": TEXT,
        "author_id": TEXT,
        "created_at": INSTANT,
    },
    order_by=("tenant", "run_id", "id"),
    rows=rows,
    keep="first",
)
