"""Runs as they began. Completion is a table of its own, so that the two may come in any order."""

from projections.clickhouse import INSTANT, JSON_TEXT, KEY_NAME, TENANT, ClickHouseView, Row
from projections.observability.items import RUN_ID, TEXT, TOPIC, WORD
from schemas.envelope import Envelope
from schemas.observability.run import RunStarted


def rows(event: RunStarted, envelope: Envelope) -> list[Row]:
    """One row per report of a run's start."""
    return [
        (
            envelope.tenant,
            envelope.stream_id,
            event.agent_name,
            event.workflow_name,
            event.workflow_id,
            event.started_at,
            event.inputs,
            event.metadata,
            event.trace_id,
            event.agent_id,
            event.user_id,
            event.user_group,
            event.session_id,
            event.parent_workflow_id,
            event.root_workflow_id,
            envelope.sealed_for,
        )
    ]


RUN_STARTS = ClickHouseView(
    name="run_starts",
    version=2,
    topic=TOPIC,
    events=(RunStarted,),
    columns={
        "tenant": TENANT,
        "run_id": RUN_ID,
        "agent_name": WORD,
        "workflow_name": WORD,
        "workflow_id": TEXT,
        "started_at": INSTANT,
        "inputs": JSON_TEXT,
        "metadata": JSON_TEXT,
        "trace_id": TEXT,
        "agent_id": TEXT,
        "user_id": TEXT,
        "user_group": WORD,
        "session_id": TEXT,
        "parent_workflow_id": TEXT,
        "root_workflow_id": TEXT,
        "sealed_for": KEY_NAME,
    },
    order_by=("tenant", "run_id"),
    rows=rows,
    keep="first",
    personal={
        "inputs": "'{}'",
        "metadata": "'{}'",
        "user_id": "''",
        "user_group": "''",
        "session_id": "''",
    },
)
