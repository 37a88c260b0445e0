"""Events of the observability domain."""

from msgspec import Struct

from schemas.observability.erasure import ErasureEvent, PersonForgotten
from schemas.observability.governance import GovernanceEventsRecorded
from schemas.observability.model_cost import ModelCostEvent
from schemas.observability.policy import PolicyEvent
from schemas.observability.repricing import CallsRepriced
from schemas.observability.run import RunEvent
from schemas.unions import members

EVENTS: list[type[Struct]] = [
    *members(RunEvent),
    *members(ModelCostEvent),
    CallsRepriced,
    *members(PolicyEvent),
    GovernanceEventsRecorded,
    *members(ErasureEvent),
    PersonForgotten,
]
