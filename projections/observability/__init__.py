"""Read models: what agents report, in ClickHouse; what is decided, in Postgres."""

from projections.clickhouse import ClickHouseView
from projections.observability.governance_events import GOVERNANCE_EVENTS
from projections.observability.llm_calls import LLM_CALLS
from projections.observability.model_costs import MODEL_COSTS
from projections.observability.policies import POLICIES
from projections.observability.policy_revisions import POLICY_REVISIONS
from projections.observability.repricings import REPRICINGS
from projections.observability.run_completions import RUN_COMPLETIONS
from projections.observability.run_starts import RUN_STARTS
from projections.observability.scores import SCORES
from projections.observability.spans import SPANS
from projections.observability.steps import STEPS
from projections.observability.user_erasures import ERASED_READ_MODELS, USER_ERASURES
from projections.statements import View

VIEWS: list[View] = [
    MODEL_COSTS,
    REPRICINGS,
    POLICIES,
    POLICY_REVISIONS,
    USER_ERASURES,
    ERASED_READ_MODELS,
]
CLICKHOUSE_VIEWS: list[ClickHouseView] = [
    RUN_STARTS,
    RUN_COMPLETIONS,
    LLM_CALLS,
    STEPS,
    SPANS,
    SCORES,
    GOVERNANCE_EVENTS,
]
