"""The deciders, pure. `commands/<domain>/<stream>.py` each; listed here once."""

from typing import Any

from msgspec import Struct

from commands.approvals import DECIDERS as APPROVALS
from commands.billing import DECIDERS as BILLING
from commands.decider import Decider
from commands.fhe import DECIDERS as FHE
from commands.identity import DECIDERS as IDENTITY
from commands.observability import DECIDERS as OBSERVABILITY
from commands.platform import DECIDERS as PLATFORM
from commands.tenancy import DECIDERS as TENANCY

DECIDERS: list[Decider[Any, Any, Any]] = [
    *FHE,
    *APPROVALS,
    *BILLING,
    *IDENTITY,
    *OBSERVABILITY,
    *PLATFORM,
    *TENANCY,
]


def commands() -> list[type[Struct]]:
    """Every command struct."""
    return [command for decider in DECIDERS for command in decider.commands]
