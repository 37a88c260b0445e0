"""Users: registered once, their password replaced, their sessions ended by raising the epoch."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from commands.identity.user import (
    DECIDER,
    ChangePassword,
    RecordFailedLogin,
    RegisterUser,
    RevokeAllSessions,
    SessionsEnded,
    UserExists,
)
from commands.refusals import InvalidCommand, NotFound, Refusal
from schemas.identity.user import AllSessionsRevoked, LoginFailed, PasswordChanged, UserRegistered
from tests.given import Given

HASH = hashlib.sha256(b"ada@example.com").hexdigest()
REGISTER = RegisterUser(
    "ada@example.com", HASH, "Ada", ["viewer", "admin", "viewer"], "$argon2id$1"
)
REGISTERED = UserRegistered("ada@example.com", HASH, "Ada", ["admin", "viewer"], "$argon2id$1")


def test_a_user_is_registered_with_each_role_once() -> None:
    Given(DECIDER).when(REGISTER).then(REGISTERED)


def test_a_user_without_a_role_is_refused() -> None:
    command = RegisterUser("ada@example.com", HASH, "Ada", [], "$argon2id$1")
    refusal = Given(DECIDER).when(command).then_refused(InvalidCommand)
    assert refusal.details == {"field": "roles"}


def test_another_address_under_the_same_id_is_refused() -> None:
    other = RegisterUser("eve@example.com", "0" * 64, "Eve", ["admin"], "$argon2id$2")
    Given(DECIDER, REGISTERED).when(other).then_refused(UserExists)


def test_registering_again_stays_quiet_even_with_another_salt() -> None:
    again = RegisterUser("ada@example.com", HASH, "Ada", ["admin"], "$argon2id$other")
    Given(DECIDER, REGISTERED).when(again).then_quiet()


def test_the_audit_record_of_a_registration_holds_no_hash() -> None:
    assert "$argon2id$1" not in repr(DECIDER.describe(REGISTER))
    assert dict(DECIDER.describe(ChangePassword("$argon2id$1", 0))) == {}


def test_a_password_is_changed() -> None:
    command = ChangePassword("$argon2id$2", epoch=0)
    Given(DECIDER, REGISTERED).when(command).then(PasswordChanged("$argon2id$2", 1))


def test_a_password_verified_before_the_last_change_is_refused() -> None:
    changed = Given(DECIDER, REGISTERED, PasswordChanged("$argon2id$2", 1))
    changed.when(ChangePassword("$argon2id$3", epoch=0)).then_refused(SessionsEnded)


def test_nobody_changes_the_password_of_a_user_who_does_not_exist() -> None:
    Given(DECIDER).when(ChangePassword("$argon2id$2", epoch=0)).then_refused(NotFound)


def test_all_sessions_are_revoked() -> None:
    Given(DECIDER, REGISTERED).when(RevokeAllSessions(epoch=0)).then(AllSessionsRevoked(1))


def test_revoking_all_sessions_of_nobody_is_refused() -> None:
    Given(DECIDER).when(RevokeAllSessions(epoch=0)).then_refused(NotFound)


def test_revoking_all_sessions_of_an_epoch_again_stays_quiet() -> None:
    Given(DECIDER, REGISTERED, AllSessionsRevoked(1)).when(RevokeAllSessions(epoch=0)).then_quiet()


def test_a_failed_login_is_recorded_each_time() -> None:
    user = Given(DECIDER, REGISTERED)
    user.when(RecordFailedLogin("192.0.2.1")).then(LoginFailed("192.0.2.1"))
    user.when(RecordFailedLogin("192.0.2.1")).then(LoginFailed("192.0.2.1"))
    assert user.state.failed_logins == 2


def test_a_failed_login_of_nobody_is_refused() -> None:
    Given(DECIDER).when(RecordFailedLogin("192.0.2.1")).then_refused(NotFound)


commands = st.one_of(
    st.just(REGISTER),
    st.builds(ChangePassword, st.sampled_from(["$a", "$b"]), st.integers(0, 6)),
    st.builds(RevokeAllSessions, st.integers(0, 6)),
    st.just(RecordFailedLogin("192.0.2.1")),
)


@given(st.lists(commands, max_size=20))
def test_no_sequence_of_commands_lowers_the_session_epoch(sequence: list[Struct]) -> None:
    user = Given(DECIDER)
    for command in sequence:
        before = user.state
        try:
            events = user.when(command).decided()
        except Refusal:
            continue
        for event in events:
            user.state = DECIDER.evolve(user.state, event)
        raised = sum(isinstance(event, PasswordChanged | AllSessionsRevoked) for event in events)
        assert user.state.epoch == before.epoch + raised
        assert user.state.exists >= before.exists
