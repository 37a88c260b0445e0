"""Deciders of the approvals domain."""

from typing import Any

from commands.approvals import agent, check_in, room, signal, trust, watcher
from commands.decider import Decider

DECIDERS: list[Decider[Any, Any, Any]] = [
    room.DECIDER,
    agent.DECIDER,
    check_in.DECIDER,
    trust.DECIDER,
    signal.DECIDER,
    watcher.DECIDER,
]
