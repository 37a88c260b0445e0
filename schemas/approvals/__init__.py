"""Events of the approvals domain."""

from msgspec import Struct

from schemas.approvals.agent import AgentEvent
from schemas.approvals.check_in import CheckInEvent
from schemas.approvals.registration import RegistrationEvent
from schemas.approvals.room import RoomEvent
from schemas.approvals.signal import SignalEvent
from schemas.approvals.task import TaskEvent
from schemas.approvals.thread import ThreadEvent
from schemas.approvals.trust import TrustEvent
from schemas.approvals.watcher import WatcherEvent
from schemas.unions import members

EVENTS: list[type[Struct]] = [
    *members(RoomEvent),
    *members(AgentEvent),
    *members(RegistrationEvent),
    *members(CheckInEvent),
    *members(TrustEvent),
    *members(TaskEvent),
    *members(ThreadEvent),
    *members(SignalEvent),
    *members(WatcherEvent),
]
