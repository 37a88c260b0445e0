"""`approvals.trust`: an agent's score in one room, 0 to 100, moved by what became of its check-ins.

Only people move it, and their silence: what the policies approved by themselves says nothing new
about the agent, and would let trust feed on itself. No command of its own: the check-in's decider
emits the event in the decision's own transaction, so the next check-in is judged by the new score.

The score is a fold of the outcomes, not of the scores in the events: whoever changes the formula
raises FORMULA, and the deciders fold every agent's outcomes anew when they start.
"""

from collections.abc import Iterable
from functools import reduce

from msgspec import Struct

from commands.decider import Decider
from schemas.approvals.trust import TrustEvent, TrustMoved
from schemas.approvals.vocabulary import TrustOutcome

STREAM = "approvals.trust"
FORMULA = 1
INITIAL_SCORE = 15.0
LOWEST, HIGHEST = 0.0, 100.0
WEIGHTS: dict[TrustOutcome, float] = {
    "approved": 1.0,
    "modified": 0.6,
    "rejected": -0.3,
    "expired": -0.1,
}


class Trust(Struct, frozen=True):
    """The standing of an agent in a room, with the counts of what moved it."""

    score: float = INITIAL_SCORE
    approved_count: int = 0
    modified_count: int = 0
    rejected_count: int = 0
    expired_count: int = 0


def trust_id(agent_id: str, room_id: str) -> str:
    """The id of the stream that holds an agent's trust in a room."""
    return f"{agent_id}:{room_id}"


def score_after(score: float, outcome: TrustOutcome) -> float:
    """The score after an outcome, by the formula."""
    # Weights have one decimal, and so has every score: rounding keeps binary dust out of the log.
    return round(min(HIGHEST, max(LOWEST, score + WEIGHTS[outcome])), 1)


def score_of(outcomes: Iterable[TrustOutcome]) -> float:
    """The score of an agent to whom this has happened in a room, the oldest first."""
    return reduce(score_after, outcomes, INITIAL_SCORE)


def moved(
    trust: Trust, *, agent_id: str, room_id: str, check_in_id: str, outcome: TrustOutcome, now: int
) -> TrustMoved:
    """The event of an outcome, with the score and counts after it; `now` in microseconds."""
    return TrustMoved(
        agent_id=agent_id,
        room_id=room_id,
        check_in_id=check_in_id,
        outcome=outcome,
        change=WEIGHTS[outcome],
        score=score_after(trust.score, outcome),
        approved_count=trust.approved_count + (outcome == "approved"),
        modified_count=trust.modified_count + (outcome == "modified"),
        rejected_count=trust.rejected_count + (outcome == "rejected"),
        expired_count=trust.expired_count + (outcome == "expired"),
        moved_at=now,
        formula=FORMULA,
    )


def _no_command(command: object, trust: Trust, context: object) -> list[TrustEvent]:
    raise TypeError(f"{type(command).__name__} is not a command of {STREAM}")


def evolve(trust: Trust, event: TrustEvent) -> Trust:
    return Trust(
        score=score_after(trust.score, event.outcome),
        approved_count=event.approved_count,
        modified_count=event.modified_count,
        rejected_count=event.rejected_count,
        expired_count=event.expired_count,
    )


DECIDER: Decider[Struct, Trust, TrustEvent] = Decider(
    stream=STREAM,
    commands=(),
    events=(TrustMoved,),
    version=FORMULA,
    initial=Trust(),
    decide=_no_command,
    evolve=evolve,
)
