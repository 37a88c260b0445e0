"""Sessions: opened for a verified user, refreshed by the newest token only, ended once."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from commands.decider import ClearTimer, Context, Ref, SetTimer
from commands.identity.session import (
    DAY_MICROS,
    DECIDER,
    IDLE_MICROS,
    LIFETIME_MICROS,
    ExpireSession,
    OpenSession,
    RefreshSession,
    RevokeSession,
    SessionAnswer,
    SessionExists,
    SessionOver,
)
from commands.identity.user import SessionsEnded, User
from commands.refusals import NotFound, Refusal
from schemas.identity.session import (
    SessionExpired,
    SessionOpened,
    SessionRefreshed,
    SessionRevoked,
)
from tests.given import NOW, Given

ADA = Ref("identity.user", "usr_1")
COOKIE = "ef" * 32
OPEN = OpenSession("usr_1", 2, COOKIE, address="192.0.2.1", user_agent="curl")
OPENED = SessionOpened("usr_1", 2, NOW, NOW + IDLE_MICROS, COOKIE, "192.0.2.1", "curl")
REFRESHED = SessionRefreshed(1, NOW + IDLE_MICROS)


def session(*events: object, epoch: int = 2) -> Given:
    return Given(DECIDER, *events, id="ses_1", states={ADA: User("ab" * 32, epoch)})


def test_a_session_is_opened_for_a_verified_user() -> None:
    session().when(OPEN).then(OPENED)


def test_a_session_for_nobody_is_refused() -> None:
    Given(DECIDER, states={ADA: User()}).when(OPEN).then_refused(NotFound)


def test_a_session_with_a_password_that_was_changed_meanwhile_is_refused() -> None:
    session(epoch=3).when(OPEN).then_refused(SessionsEnded)


def test_another_users_session_id_is_refused() -> None:
    Given(DECIDER, OPENED).when(OpenSession("usr_2", 0, COOKIE)).then_refused(SessionExists)


def test_opening_again_stays_quiet() -> None:
    session(OPENED).when(OPEN).then_quiet()


def test_the_newest_token_refreshes_and_puts_the_end_off() -> None:
    later = NOW + 3 * DAY_MICROS
    given = session(OPENED, REFRESHED).at(later)
    given.when(RefreshSession("usr_1", 1)).then(SessionRefreshed(2, later + IDLE_MICROS))


def test_refreshing_ends_at_the_sessions_lifetime() -> None:
    later = NOW + 85 * DAY_MICROS
    given = session(OPENED, SessionRefreshed(1, later + DAY_MICROS)).at(later)
    given.when(RefreshSession("usr_1", 1)).then(SessionRefreshed(2, NOW + LIFETIME_MICROS))


def test_a_used_token_revokes_the_session() -> None:
    session(OPENED, REFRESHED).when(RefreshSession("usr_1", 0)).then(
        SessionRevoked("refresh_reused")
    )


def test_a_refresh_after_the_epoch_was_raised_ends_the_session() -> None:
    session(OPENED, epoch=3).when(RefreshSession("usr_1", 0)).then(SessionRevoked("sessions_ended"))


def test_a_refresh_after_the_end_expires_the_session() -> None:
    given = session(OPENED).at(NOW + IDLE_MICROS)
    given.when(RefreshSession("usr_1", 0)).then(SessionExpired())


def test_a_refresh_of_a_session_that_is_over_is_refused() -> None:
    given = session(OPENED, SessionRevoked("logout"))
    given.when(RefreshSession("usr_1", 0)).then_refused(SessionOver)


def test_a_refresh_of_what_was_never_issued_is_refused() -> None:
    session().when(RefreshSession("usr_1", 0)).then_refused(NotFound)
    session(OPENED).when(RefreshSession("usr_1", 1)).then_refused(NotFound)
    other = Given(DECIDER, OPENED, states={Ref("identity.user", "usr_2"): User("cd" * 32)})
    other.when(RefreshSession("usr_2", 0)).then_refused(NotFound)


def test_a_session_is_revoked() -> None:
    session(OPENED).when(RevokeSession("logout")).then(SessionRevoked("logout"))


def test_revoking_no_session_is_refused() -> None:
    session().when(RevokeSession("revoked")).then_refused(NotFound)


def test_revoking_again_stays_quiet() -> None:
    session(OPENED, SessionRevoked("logout")).when(RevokeSession("revoked")).then_quiet()
    session(OPENED, SessionExpired()).when(RevokeSession("revoked")).then_quiet()


def test_a_session_expires() -> None:
    session(OPENED).when(ExpireSession(NOW + IDLE_MICROS)).then(SessionExpired())


def test_an_expiry_of_nothing_is_refused() -> None:
    session().when(ExpireSession(NOW)).then_refused(NotFound)


def test_an_expiry_that_came_too_late_stays_quiet() -> None:
    refreshed = session(OPENED, SessionRefreshed(1, NOW + IDLE_MICROS + 1))
    refreshed.when(ExpireSession(NOW + IDLE_MICROS)).then_quiet()
    over = session(OPENED, SessionRevoked("logout"))
    over.when(ExpireSession(NOW + IDLE_MICROS)).then_quiet()


def test_each_refresh_sets_the_timer_again_and_an_end_clears_it() -> None:
    end = NOW + IDLE_MICROS
    for event in (OPENED, REFRESHED):
        assert list(DECIDER.timers(event, "ses_1")) == [SetTimer("expiry", end, ExpireSession(end))]
    for over in (SessionRevoked("logout"), SessionExpired()):
        assert list(DECIDER.timers(over, "ses_1")) == [ClearTimer("expiry")]


def test_the_answer_tells_how_the_session_stands() -> None:
    given = session(OPENED, REFRESHED, SessionRevoked("refresh_reused"))
    context = Context("ten_1", "ses_1", given.actor, NOW, "cmd_1", {}, {})
    answer = DECIDER.answer(RefreshSession("usr_1", 0), given.state, context)
    assert answer == SessionAnswer("ses_1", "usr_1", 1, NOW + IDLE_MICROS, "refresh_reused")


commands = st.one_of(
    st.just(OPEN),
    st.builds(RefreshSession, st.just("usr_1"), st.integers(0, 4)),
    st.builds(RevokeSession, st.sampled_from(["logout", "revoked"])),
    st.builds(ExpireSession, st.sampled_from([NOW + IDLE_MICROS, NOW])),
)


@given(st.lists(commands, max_size=20))
def test_no_token_is_used_twice_and_no_ended_session_goes_on(sequence: list[Struct]) -> None:
    given_session = session()
    used: set[int] = set()
    ended = False
    for command in sequence:
        try:
            events = given_session.when(command).decided()
        except Refusal:
            continue
        for event in events:
            assert not ended
            given_session.state = DECIDER.evolve(given_session.state, event)
            if isinstance(event, SessionRefreshed):
                assert event.generation - 1 not in used
                used.add(event.generation - 1)
            ended = ended or isinstance(event, SessionRevoked | SessionExpired)
