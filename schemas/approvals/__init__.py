"""Events of the approvals domain."""

from msgspec import Struct

from schemas.approvals.agent import AgentDeactivated, AgentRegistered
from schemas.approvals.check_in import (
    CheckInApproved,
    CheckInCreated,
    CheckInExpired,
    CheckInHeld,
    CheckInModified,
    CheckInRejected,
    CheckInWithdrawn,
)
from schemas.approvals.room import RoomCreated, RoomPoliciesReplaced
from schemas.approvals.signal import SignalBroadcast
from schemas.approvals.trust import TrustMoved
from schemas.approvals.watcher import WatcherCreated, WatcherRemoved, WatcherTriggered

EVENTS: list[type[Struct]] = [
    RoomCreated,
    RoomPoliciesReplaced,
    AgentRegistered,
    AgentDeactivated,
    CheckInCreated,
    CheckInApproved,
    CheckInRejected,
    CheckInModified,
    CheckInWithdrawn,
    CheckInExpired,
    CheckInHeld,
    TrustMoved,
    SignalBroadcast,
    WatcherCreated,
    WatcherTriggered,
    WatcherRemoved,
]
