"""An address has one owner at a time, and a reservation that nobody confirms ends by itself."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from commands.decider import ClearTimer, SetTimer
from commands.identity.email import (
    DECIDER,
    RESERVATION_MICROS,
    ConfirmEmail,
    EmailTaken,
    ExpireEmailReservation,
    ReserveEmail,
)
from commands.refusals import Refusal
from schemas.identity.email import EmailConfirmed, EmailReservationExpired, EmailReserved
from tests.given import NOW, Given

UNTIL = NOW + RESERVATION_MICROS
RESERVED = EmailReserved("usr_1", "ten_1", UNTIL)
CONFIRMED = EmailConfirmed("usr_1", "ten_1")


def test_a_free_address_is_reserved() -> None:
    Given(DECIDER).when(ReserveEmail("usr_1", "ten_1")).then(RESERVED)


def test_an_address_of_another_user_is_refused() -> None:
    for event in (RESERVED, CONFIRMED):
        Given(DECIDER, event).when(ReserveEmail("usr_2", "ten_2")).then_refused(EmailTaken)
        Given(DECIDER, event).when(ConfirmEmail("usr_2", "ten_2")).then_refused(EmailTaken)


def test_reserving_again_stays_quiet() -> None:
    Given(DECIDER, RESERVED).when(ReserveEmail("usr_1", "ten_1")).then_quiet()
    Given(DECIDER, CONFIRMED).when(ReserveEmail("usr_1", "ten_1")).then_quiet()


def test_a_reservation_is_confirmed() -> None:
    Given(DECIDER, RESERVED).when(ConfirmEmail("usr_1", "ten_1")).then(CONFIRMED)


def test_a_late_confirmation_takes_an_address_that_is_still_free() -> None:
    late = Given(DECIDER, RESERVED, EmailReservationExpired("usr_1"))
    late.when(ConfirmEmail("usr_1", "ten_1")).then(CONFIRMED)


def test_confirming_again_stays_quiet() -> None:
    Given(DECIDER, RESERVED, CONFIRMED).when(ConfirmEmail("usr_1", "ten_1")).then_quiet()


def test_a_reservation_expires() -> None:
    command = ExpireEmailReservation(UNTIL)
    Given(DECIDER, RESERVED).when(command).then(EmailReservationExpired("usr_1"))


def test_an_expiry_that_came_too_late_stays_quiet() -> None:
    Given(DECIDER, RESERVED, CONFIRMED).when(ExpireEmailReservation(UNTIL)).then_quiet()
    Given(DECIDER, RESERVED).when(ExpireEmailReservation(UNTIL - 1)).then_quiet()
    Given(DECIDER).when(ExpireEmailReservation(UNTIL)).then_quiet()


def test_only_a_reservation_has_a_timer() -> None:
    timer = SetTimer("reservation", UNTIL, ExpireEmailReservation(UNTIL))
    assert list(DECIDER.timers(RESERVED, "x")) == [timer]
    for event in (CONFIRMED, EmailReservationExpired("usr_1")):
        assert list(DECIDER.timers(event, "x")) == [ClearTimer("reservation")]


users = st.sampled_from(["usr_1", "usr_2"])
commands = st.one_of(
    st.builds(ReserveEmail, users, st.just("ten_1")),
    st.builds(ConfirmEmail, users, st.just("ten_1")),
    st.just(ExpireEmailReservation(UNTIL)),
)


@given(st.lists(commands, max_size=20))
def test_no_sequence_of_commands_moves_a_confirmed_address(sequence: list[Struct]) -> None:
    address = Given(DECIDER)
    owner = ""
    for command in sequence:
        try:
            events = address.when(command).decided()
        except Refusal:
            continue
        for event in events:
            address.state = DECIDER.evolve(address.state, event)
            if isinstance(event, EmailConfirmed):
                assert owner in ("", event.user_id)
                owner = event.user_id
        if owner:
            assert address.state.user_id == owner
