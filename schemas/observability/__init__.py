"""Events of the observability domain."""

from typing import get_args

from msgspec import Struct

from schemas.observability.erasure import ErasureEvent, PersonForgotten
from schemas.observability.governance import GovernanceEventsRecorded
from schemas.observability.model_cost import ModelCostEvent
from schemas.observability.policy import PolicyEvent
from schemas.observability.repricing import CallsRepriced
from schemas.observability.run import RunEvent

EVENTS: list[type[Struct]] = [
    *get_args(RunEvent),
    *get_args(ModelCostEvent),
    CallsRepriced,
    *get_args(PolicyEvent),
    GovernanceEventsRecorded,
    *get_args(ErasureEvent),
    PersonForgotten,
]
