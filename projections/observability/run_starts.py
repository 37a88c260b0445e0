"""Runs as they began. Completion is a table of its own, so that the two may come in any order."""

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
from schemas.observability.run import RunStarted


def _own_time(event: RunStarted) -> int:
    """When the run began, where that is the same in each report of it: a trace's."""
    return event.started_at if event.workflow_id == f"wf_{event.trace_id}" else 0


def rows(event: RunStarted, envelope: Envelope) -> list[Row]:
    """One row per report of a run's start."""
    return [
        (
            envelope.tenant,
            filed_period(envelope.stream_id, _own_time(event)),
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


SESSION_NUMBER = "sipHash64(session_id)"
"""SQL of a number for a session: they are counted by it in half the time that their texts take. Of
ten million, two share a number once in 370,000 times."""
NO_SESSION = "sipHash64('')"


def _kept_by(name: str) -> dict[str, str]:
    """What is kept of runs with the same of these: how many, and the first start; and the runs in
    the order of these groups."""
    return {
        f"kept_by_{name}": (
            f"SELECT tenant, {name}, count(), min(started_at) GROUP BY tenant, {name}"
        ),
        f"in_order_of_{name}": (
            f"SELECT tenant, {name}, run, started_at, agent_name, filed_period"
            f" ORDER BY tenant, {name}"
        ),
    }


RUN_STARTS = ClickHouseView(
    name="run_starts",
    version=4,
    topic=TOPIC,
    events=(RunStarted,),
    columns={
        "tenant": TENANT,
        "filed_period": FILED_PERIOD,
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
    derived=RUN,
    settings=READ_AS_THEY_LIE,
    order_by=("filed_period", "tenant", "run_id"),
    indexes=(
        "by_time started_at TYPE minmax GRANULARITY 1",
        "by_run run TYPE bloom_filter(0.01) GRANULARITY 1",
        "by_session session_id TYPE bloom_filter(0.01) GRANULARITY 1",
        "by_user user_id TYPE bloom_filter(0.01) GRANULARITY 1",
    ),
    projections={
        # Before what is kept by session, of which the engine could make it, too.
        "session_numbers": f"SELECT tenant, {SESSION_NUMBER} GROUP BY tenant, {SESSION_NUMBER}",
        **_kept_by("session_id"),
        **_kept_by("user_id"),
        "in_order_of_agents": "SELECT tenant, agent_name, run ORDER BY tenant, agent_name",
    },
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
