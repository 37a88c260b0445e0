"""What bodies become on their way into commands."""

from typing import Any

from api.problems import Problem
from commands.approvals.payload import NotCanonical, canonical_json
from schemas.types import Json


def canonical(value: Any, field: str) -> Json:
    """The canonical text of a body's field. Raises Problem (400), also when it is too large."""
    try:
        return canonical_json(value)
    except NotCanonical as fault:
        raise Problem(400, "validation_error", str(fault), field=field) from None
