"""Events of `approvals.trust`: how far an agent is trusted in one room."""

from msgspec import Struct

from schemas.approvals.vocabulary import TrustOutcome
from schemas.types import Micros


class TrustMoved(Struct, frozen=True, tag="approvals.trust_moved.v1"):
    """A decision on a check-in moved the agent's score in the room, 0 to 100.

    change: the outcome's weight; score: after it, cut to the range; the counts include this one.
    formula: which version of the formula gave both. The outcome is the fact; they follow from it.
    """

    agent_id: str
    room_id: str
    check_in_id: str
    outcome: TrustOutcome
    change: float
    score: float
    approved_count: int
    modified_count: int
    rejected_count: int
    expired_count: int
    moved_at: Micros
    formula: int = 1


TrustEvent = TrustMoved
