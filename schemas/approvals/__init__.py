"""Events of the approvals domain."""

from msgspec import Struct

from schemas.approvals.agent import AgentAdopted, AgentDeactivated, AgentRegistered
from schemas.approvals.check_in import (
    CheckInApproved,
    CheckInCreated,
    CheckInEscalated,
    CheckInExpired,
    CheckInHeld,
    CheckInModified,
    CheckInOutcomeReported,
    CheckInRejected,
    CheckInVoted,
    CheckInWithdrawn,
)
from schemas.approvals.registration import AgentClaimed, AgentClaimExpired, AgentSelfRegistered
from schemas.approvals.room import RoomCreated, RoomPoliciesReplaced
from schemas.approvals.signal import SignalBroadcast
from schemas.approvals.task import (
    TaskClaimed,
    TaskClaimRenewed,
    TaskDecided,
    TaskHelperJoined,
    TaskHelpRequested,
    TaskPosted,
    TaskReleased,
)
from schemas.approvals.thread import MessagePosted
from schemas.approvals.trust import TrustMoved
from schemas.approvals.watcher import WatcherCreated, WatcherRemoved, WatcherTriggered

EVENTS: list[type[Struct]] = [
    RoomCreated,
    RoomPoliciesReplaced,
    AgentRegistered,
    AgentDeactivated,
    AgentAdopted,
    AgentSelfRegistered,
    AgentClaimed,
    AgentClaimExpired,
    CheckInCreated,
    CheckInApproved,
    CheckInRejected,
    CheckInModified,
    CheckInWithdrawn,
    CheckInExpired,
    CheckInHeld,
    CheckInVoted,
    CheckInEscalated,
    CheckInOutcomeReported,
    TrustMoved,
    TaskPosted,
    TaskClaimed,
    TaskClaimRenewed,
    TaskReleased,
    TaskHelpRequested,
    TaskHelperJoined,
    TaskDecided,
    MessagePosted,
    SignalBroadcast,
    WatcherCreated,
    WatcherTriggered,
    WatcherRemoved,
]
