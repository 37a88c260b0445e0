"""The identity read models: every event, the statements it gives, no database."""

import pytest

from projections.identity import VIEWS, api_keys, email_owners, sessions, users
from projections.statements import Delete, Put, Set
from schemas.envelope import Actor, Envelope
from schemas.identity import EVENTS
from schemas.identity.api_key import (
    ApiKeyExpirySet,
    ApiKeyIssued,
    ApiKeyRenamed,
    ApiKeyRevoked,
    ApiKeyRolesGranted,
    ApiKeyRotated,
    ApiKeyUsed,
)
from schemas.identity.email import EmailConfirmed, EmailReservationExpired, EmailReserved
from schemas.identity.session import (
    SessionExpired,
    SessionOpened,
    SessionRefreshed,
    SessionRevoked,
)
from schemas.identity.user import (
    AllSessionsRevoked,
    LoginFailed,
    PasswordChanged,
    UserRegistered,
)

HASH = "ab" * 32
AT = 1_700_000


def envelope(stream: str, tenant: str = "ten_1") -> Envelope:
    return Envelope("evt_1", "x", tenant, stream, 1, AT, Actor("user", "usr_9", "Root"))


USER = {"tenant": "ten_1", "user_id": "usr_1"}
OWNER = {"tenant": "_directory", "email_hash": HASH}
SESSION = {"tenant": "ten_1", "session_id": "ses_1"}
KEY = {"tenant": "ten_1", "key_id": "key_1"}

CASES = [
    (
        users,
        "identity.user/usr_1",
        UserRegistered("ada@example.com", HASH, "Ada", ["admin", "viewer"], "$argon2id$1"),
        Put(
            USER,
            {
                "email": "ada@example.com",
                "email_hash": HASH,
                "name": "Ada",
                "roles": '["admin","viewer"]',
                "password_hash": "$argon2id$1",
                "epoch": 0,
                "created_at": AT,
            },
        ),
    ),
    (
        users,
        "identity.user/usr_1",
        PasswordChanged("$argon2id$2", 3),
        Set(USER, {"password_hash": "$argon2id$2", "epoch": 3}),
    ),
    (users, "identity.user/usr_1", AllSessionsRevoked(4), Set(USER, {"epoch": 4})),
    (
        email_owners,
        f"identity.email/{HASH}",
        EmailReserved("usr_1", "ten_1", AT + 1),
        Put(OWNER, {"user_id": "usr_1", "user_tenant": "ten_1", "confirmed": False}),
    ),
    (
        email_owners,
        f"identity.email/{HASH}",
        EmailConfirmed("usr_1", "ten_1"),
        Put(OWNER, {"user_id": "usr_1", "user_tenant": "ten_1", "confirmed": True}),
    ),
    (
        email_owners,
        f"identity.email/{HASH}",
        EmailReservationExpired("usr_1"),
        Delete(OWNER),
    ),
    (
        sessions,
        "identity.session/ses_1",
        SessionOpened("usr_1", 2, 10, 20, HASH, "192.0.2.1", "curl"),
        Put(
            SESSION,
            {
                "user_id": "usr_1",
                "epoch": 2,
                "generation": 0,
                "cookie_hash": HASH,
                "opened_at": 10,
                "seen_at": 10,
                "expires_at": 20,
                "ended_at": None,
                "ended": "",
                "address": "192.0.2.1",
                "user_agent": "curl",
            },
        ),
    ),
    (
        sessions,
        "identity.session/ses_1",
        SessionRefreshed(1, 30),
        Set(SESSION, {"generation": 1, "expires_at": 30, "seen_at": AT}),
    ),
    (
        sessions,
        "identity.session/ses_1",
        SessionRevoked("refresh_reused"),
        Set(SESSION, {"ended": "refresh_reused", "ended_at": AT}),
    ),
    (
        sessions,
        "identity.session/ses_1",
        SessionExpired(),
        Set(SESSION, {"ended": "expired", "ended_at": AT}),
    ),
    (
        api_keys,
        "identity.api_key/key_1",
        ApiKeyIssued("ci", "wax_sk_0123", HASH, ["admin"], ["observe:write"], 40),
        Put(
            KEY,
            {
                "name": "ci",
                "prefix": "wax_sk_0123",
                "key_hash": HASH,
                "roles": '["admin"]',
                "scopes": '["observe:write"]',
                "expires_at": 40,
                "created_at": AT,
                "created_by": "usr_9",
                "revoked_at": None,
                "previous_prefix": None,
                "previous_hash": None,
                "previous_until": None,
                "last_used_at": None,
            },
        ),
    ),
    (api_keys, "identity.api_key/key_1", ApiKeyRenamed("cd"), Set(KEY, {"name": "cd"})),
    (
        api_keys,
        "identity.api_key/key_1",
        ApiKeyRolesGranted(["viewer"], []),
        Set(KEY, {"roles": '["viewer"]', "scopes": "[]"}),
    ),
    (api_keys, "identity.api_key/key_1", ApiKeyExpirySet(None), Set(KEY, {"expires_at": None})),
    (
        api_keys,
        "identity.api_key/key_1",
        ApiKeyRotated(
            prefix="wax_sk_cd",
            key_hash="cd" * 32,
            previous_prefix="wax_sk_ab",
            previous_hash="ab" * 32,
            previous_until=9,
        ),
        Set(
            KEY,
            {
                "prefix": "wax_sk_cd",
                "key_hash": "cd" * 32,
                "previous_prefix": "wax_sk_ab",
                "previous_hash": "ab" * 32,
                "previous_until": 9,
            },
        ),
    ),
    (api_keys, "identity.api_key/key_1", ApiKeyUsed(7), Set(KEY, {"last_used_at": 7})),
    (api_keys, "identity.api_key/key_1", ApiKeyRevoked(), Set(KEY, {"revoked_at": AT})),
]


@pytest.mark.parametrize(
    ("view", "stream", "event", "expected"), CASES, ids=lambda value: type(value).__name__
)
def test_an_event_gives_its_statement_in_its_view_and_none_in_the_others(
    view, stream, event, expected
) -> None:
    at = envelope(stream, expected.key["tenant"])
    assert view.reduce(event, at) == [expected]
    for other in (users, email_owners, sessions, api_keys):
        if other is not view:
            assert other.reduce(event, at) == []


def test_a_failed_login_changes_no_read_model_for_the_audit_log_has_it() -> None:
    at = envelope("identity.user/usr_1")
    assert all(view.reduce(LoginFailed("192.0.2.1"), at) == [] for view in VIEWS)


def test_every_event_is_covered_here() -> None:
    assert {type(event) for _, _, event, _ in CASES} | {LoginFailed} == set(EVENTS)


def test_every_statement_names_columns_of_its_view() -> None:
    for view in VIEWS:
        for _, stream, event, expected in CASES:
            for statement in view.reduce(event, envelope(stream, expected.key["tenant"])):
                assert set(statement.key) == set(view.key)
                if not isinstance(statement, Delete):
                    assert set(statement.values) <= set(view.columns) - set(view.key)
