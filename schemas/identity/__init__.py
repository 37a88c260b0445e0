"""Users, sessions, API keys, and who holds an e-mail address."""

from msgspec import Struct

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

EVENTS: list[type[Struct]] = [
    UserRegistered,
    PasswordChanged,
    AllSessionsRevoked,
    LoginFailed,
    EmailReserved,
    EmailConfirmed,
    EmailReservationExpired,
    SessionOpened,
    SessionRefreshed,
    SessionRevoked,
    SessionExpired,
    ApiKeyIssued,
    ApiKeyRenamed,
    ApiKeyRolesGranted,
    ApiKeyExpirySet,
    ApiKeyRotated,
    ApiKeyUsed,
    ApiKeyRevoked,
]
