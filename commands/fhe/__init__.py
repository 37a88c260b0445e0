"""The deciders of encrypted computation: evaluation keys and jobs."""

from typing import Any

from commands.decider import Decider
from commands.fhe.evaluation_key import DECIDER as EVALUATION_KEY
from commands.fhe.job import DECIDER as JOB

DECIDERS: list[Decider[Any, Any, Any]] = [EVALUATION_KEY, JOB]
