"""Read models of what agents report, in ClickHouse."""

from projections.clickhouse import ClickHouseView
from projections.observability.governance_events import GOVERNANCE_EVENTS
from projections.observability.llm_calls import LLM_CALLS
from projections.observability.run_completions import RUN_COMPLETIONS
from projections.observability.run_starts import RUN_STARTS
from projections.observability.scores import SCORES
from projections.observability.spans import SPANS
from projections.observability.steps import STEPS

CLICKHOUSE_VIEWS: list[ClickHouseView] = [
    RUN_STARTS,
    RUN_COMPLETIONS,
    LLM_CALLS,
    STEPS,
    SPANS,
    SCORES,
    GOVERNANCE_EVENTS,
]
