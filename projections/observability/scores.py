"""Scores of runs and of their LLM calls.

A boolean's value is text here, `true` or `false`, whichever way it was reported. The author is the
person who scored; what a program reports has none.
"""

from projections.clickhouse import INSTANT, JSON_TEXT, KEY_NAME, TENANT, ClickHouseView, Row
from projections.observability.items import RUN_ID, TEXT, TOPIC, WORD, first_reports
from schemas.envelope import Envelope
from schemas.observability.run import Score, ScoresRecorded


def _text(score: Score) -> str | None:
    if score.data_type != "boolean":
        return score.string_value
    if score.string_value:
        return score.string_value.lower()
    return None if score.numeric_value is None else ("true" if score.numeric_value else "false")


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
            _text(score),
            score.comment,
            score.metadata,
            envelope.actor.id if envelope.actor.kind == "user" else None,
            score.llm_call_id,
            envelope.time,
            envelope.sealed_for,
        )
        for score in first_reports(event.scores)
    ]


SCORES = ClickHouseView(
    name="scores",
    version=3,
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
        "metadata": JSON_TEXT,
        "author_user_id": "Nullable(String)",
        "llm_call_id": TEXT,
        "created_at": INSTANT,
        "sealed_for": KEY_NAME,
    },
    order_by=("tenant", "run_id", "id"),
    rows=rows,
    keep="first",
    personal={"comment": "''", "metadata": "'{}'"},
)
