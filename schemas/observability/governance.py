"""What agents report of governance: free-form events of a tenant, of no run in particular.

The tenant is the envelope's (`observability.governance/<tenant>`), its `time` is when the report
arrived. An event's id is made of the request that brought it, so that a repeat under the same
Idempotency-Key counts once; an `id` within the event is the client's own affair.
"""

from msgspec import Struct

from schemas.types import Json, Micros


class GovernanceEvent(Struct, frozen=True, kw_only=True):
    """One event. `event` is the object as it came; the other fields are lifted out of it.

    occurred_at: the event's own `timestamp`, or when it arrived if it has none.
    """

    id: str
    event: Json
    occurred_at: Micros
    event_type: str = ""
    agent_name: str = ""
    action: str = ""


class GovernanceEventsRecorded(
    Struct, frozen=True, tag="observability.governance_events_recorded.v1", kw_only=True
):
    """Governance events of a tenant, in the order given."""

    events: list[GovernanceEvent]


STREAM = "observability.governance"
