"""Events of `approvals.room`: where check-ins are made and by which policies."""

from msgspec import Struct

from schemas.approvals.policies import Policies
from schemas.types import Micros, Text


class RoomCreated(Struct, frozen=True, tag="approvals.room_created.v1"):
    """A room was opened; its slug is unique in the tenant and never changes."""

    slug: Text
    name: Text
    description: Text
    policies: Policies
    owner_id: str
    created_at: Micros


class RoomPoliciesReplaced(Struct, frozen=True, tag="approvals.room_policies_replaced.v1"):
    """The whole policy configuration of a room was replaced."""

    policies: Policies
    replaced_at: Micros


RoomEvent = RoomCreated | RoomPoliciesReplaced
