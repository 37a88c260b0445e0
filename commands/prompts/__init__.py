"""Deciders of the prompts domain."""

from typing import Any

from commands.decider import Decider
from commands.prompts import playground, prompt

DECIDERS: list[Decider[Any, Any, Any]] = [prompt.DECIDER, playground.DECIDER]
