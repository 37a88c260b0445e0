"""The deciders, pure. `commands/<domain>/<stream>.py` each; listed here once."""

from typing import Any

from msgspec import Struct

from commands.decider import Decider

DECIDERS: list[Decider[Any, Any, Any]] = []


def commands() -> list[type[Struct]]:
    """Every command struct."""
    return [command for decider in DECIDERS for command in decider.commands]
