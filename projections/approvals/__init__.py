"""Read models of the approvals domain."""

from projections.approvals.agents import AGENTS
from projections.approvals.check_ins import CHECK_INS
from projections.approvals.messages import MESSAGES
from projections.approvals.registrations import REGISTRATIONS
from projections.approvals.rooms import ROOMS
from projections.approvals.tasks import TASKS
from projections.approvals.trust_moves import TRUST_MOVES
from projections.approvals.trust_scores import TRUST_SCORES
from projections.approvals.watchers import WATCHERS
from projections.statements import View

VIEWS: list[View] = [
    ROOMS,
    AGENTS,
    CHECK_INS,
    TRUST_SCORES,
    TRUST_MOVES,
    TASKS,
    MESSAGES,
    REGISTRATIONS,
    WATCHERS,
]
