"""The deciders of encrypted computation: evaluation keys, their uploads, and jobs."""

from typing import Any

from commands.decider import Decider
from commands.fhe.evaluation_key import DECIDER as EVALUATION_KEY
from commands.fhe.job import DECIDER as JOB
from commands.fhe.key_upload import DECIDER as KEY_UPLOAD

DECIDERS: list[Decider[Any, Any, Any]] = [EVALUATION_KEY, KEY_UPLOAD, JOB]
