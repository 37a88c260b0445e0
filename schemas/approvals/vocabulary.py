"""The words of the approvals domain, as its public documentation spells them."""

from typing import Literal

RiskLevel = Literal["low", "medium", "high", "critical"]
Urgency = Literal["low", "normal", "high", "urgent"]
PolicyAction = Literal["auto_approve", "require_approval", "forbid"]
TimeoutAction = Literal["auto_approve", "cancel", "hold"]
CheckInStatus = Literal["pending", "approved", "rejected", "modified", "expired", "withdrawn"]
# A task is in progress while an agent has claimed it; it ends by a person's decision alone.
TaskStatus = Literal["pending", "in_progress", "approved", "rejected", "modified"]
# What a client may see of either.
AnyStatus = Literal[
    "pending", "in_progress", "approved", "rejected", "modified", "expired", "withdrawn"
]
TaskVerdict = Literal["approved", "rejected", "modified"]
# What an agent says came of what it was allowed to run.
OutcomeStatus = Literal["succeeded", "failed", "skipped"]
MessageType = Literal["comment", "result", "question", "escalation"]
# What moves an agent's trust in a room: a person's decision, or that nobody took one in time.
TrustOutcome = Literal["approved", "modified", "rejected", "expired"]
# What a watcher may watch for: the events of a room's stream, but for those that watchers cause.
WatchedType = Literal[
    "check_in.created",
    "check_in.decided",
    "check_in.expired",
    "check_in.held",
    "check_in.voted",
    "check_in.escalated",
    "check_in.outcome",
    "check_in.withdrawn",
    "check_in.claimed",
    "check_in.released",
    "check_in.message",
    "check_in.help_requested",
    "signal.broadcast",
]
