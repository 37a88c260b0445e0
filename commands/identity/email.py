"""An e-mail address: reserved, then confirmed, by one user of one tenant. Tenant `_directory`.

Registration runs reserve (here) -> register (in the user's tenant) -> confirm (here). Whoever stops
in between leaves a reservation that ends by itself, so no address is lost to a crash.
"""

from collections.abc import Mapping, Sequence
from typing import Any, assert_never

from msgspec import Struct

from commands.decider import ClearTimer, Context, Decider, SetTimer
from commands.refusals import Refusal
from schemas.identity.email import (
    EmailConfirmed,
    EmailEvent,
    EmailReservationExpired,
    EmailReserved,
)
from schemas.types import Micros, Text
from schemas.unions import members

STREAM = "identity.email"
DIRECTORY = "_directory"
RESERVATION_MICROS = 15 * 60 * 1_000_000
_TIMER = "reservation"


class EmailTaken(Refusal):
    """The address belongs to, or is reserved by, another user."""

    code = "email_taken"


class ReserveEmail(Struct, frozen=True, tag="identity.reserve_email.v1"):
    """Keep the address for a user who is about to be registered. The stream's id is its SHA-256."""

    user_id: Text
    user_tenant: Text


class ConfirmEmail(Struct, frozen=True, tag="identity.confirm_email.v1"):
    """The user is registered, so the address is theirs for good."""

    user_id: Text
    user_tenant: Text


class ExpireEmailReservation(Struct, frozen=True, tag="identity.expire_email_reservation.v1"):
    """Sent by the scheduler when a reservation's time is over."""

    due_at: Micros


EmailCommand = ReserveEmail | ConfirmEmail | ExpireEmailReservation


class Email(Struct, frozen=True):
    """`user_id` is empty while the address is free. `until` is 0 once it is confirmed."""

    user_id: str = ""
    until: int = 0


def decide(command: EmailCommand, state: Email, context: Context) -> Sequence[EmailEvent]:
    """Raises EmailTaken."""
    match command:
        case ReserveEmail():
            _refuse_another(command.user_id, state)
            if state.user_id:
                return []
            until = context.now + RESERVATION_MICROS
            return [EmailReserved(command.user_id, command.user_tenant, until)]
        case ConfirmEmail():
            # A late confirmation still holds, if nobody else came meanwhile.
            _refuse_another(command.user_id, state)
            if state.user_id and not state.until:
                return []
            return [EmailConfirmed(command.user_id, command.user_tenant)]
        case ExpireEmailReservation():
            if not state.until or state.until != command.due_at:
                return []
            return [EmailReservationExpired(state.user_id)]
    assert_never(command)


def _refuse_another(user_id: str, state: Email) -> None:
    if state.user_id not in ("", user_id):
        raise EmailTaken("this e-mail address is in use")


def evolve(state: Email, event: EmailEvent) -> Email:
    match event:
        case EmailReserved():
            return Email(event.user_id, event.until)
        case EmailConfirmed():
            return Email(event.user_id)
        case EmailReservationExpired():
            return Email()
    assert_never(event)


def timers(event: EmailEvent, stream_id: str) -> Sequence[SetTimer | ClearTimer]:
    """A reservation ends by itself unless it is confirmed."""
    if isinstance(event, EmailReserved):
        return [SetTimer(_TIMER, event.until, ExpireEmailReservation(event.until))]
    return [ClearTimer(_TIMER)]


def _describe(command: EmailCommand) -> Mapping[str, Any]:
    if isinstance(command, ExpireEmailReservation):
        return {}
    return {"user_id": command.user_id, "user_tenant": command.user_tenant}


DECIDER: Decider[EmailCommand, Email, EmailEvent] = Decider(
    stream=STREAM,
    commands=members(EmailCommand),
    events=members(EmailEvent),
    initial=Email(),
    decide=decide,
    evolve=evolve,
    timers=timers,
    describe=_describe,
)
