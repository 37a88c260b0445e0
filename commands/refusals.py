"""Refusals: what a decider answers when the business says no. A bug raises something else."""

from typing import Any, Literal

Kind = Literal["invalid", "forbidden", "not_found", "conflict", "payment_required", "unprocessable"]


class Refusal(Exception):
    """A command refused because of what happened before.

    code: stable, snake_case, part of the API. kind: what sort of "no" it is; each surface maps it
    to its own status and error shape. details: JSON-serialisable facts for the caller.
    Subclasses are noun phrases (`InsufficientCredits`) and set `code` and `kind`.
    """

    code = "refused"
    kind: Kind = "conflict"

    def __init__(self, message: str = "", **details: Any) -> None:
        super().__init__(message or type(self).__name__)
        self.message = message or type(self).__name__
        self.details = details


class NotFound(Refusal):
    """The thing the command is about does not exist for this tenant."""

    code = "not_found"
    kind: Kind = "not_found"


class ActorForbidden(Refusal):
    """The caller is known but may not do this."""

    code = "forbidden"
    kind: Kind = "forbidden"


class InvalidCommand(Refusal):
    """Well-formed, but not valid against the state (an unknown reference, an empty range)."""

    code = "validation_error"
    kind: Kind = "invalid"


class AlreadyDone(Refusal):
    """The target is in another final state already."""

    code = "conflict"
    kind: Kind = "conflict"
