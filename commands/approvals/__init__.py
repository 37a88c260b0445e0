"""Deciders of the approvals domain."""

from typing import Any

from commands.approvals import (
    agent,
    check_in,
    registration,
    room,
    signal,
    task,
    thread,
    trust,
    watcher,
)
from commands.decider import Decider

DECIDERS: list[Decider[Any, Any, Any]] = [
    room.DECIDER,
    agent.DECIDER,
    check_in.DECIDER,
    trust.DECIDER,
    task.DECIDER,
    thread.DECIDER,
    registration.DECIDER,
    signal.DECIDER,
    watcher.DECIDER,
]
