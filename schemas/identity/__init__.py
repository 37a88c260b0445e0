"""Users, sessions, API keys, and who holds an e-mail address."""

from msgspec import Struct

from schemas.identity.api_key import ApiKeyEvent
from schemas.identity.email import EmailEvent
from schemas.identity.session import SessionEvent
from schemas.identity.user import UserEvent
from schemas.unions import members

EVENTS: list[type[Struct]] = [
    *members(UserEvent),
    *members(EmailEvent),
    *members(SessionEvent),
    *members(ApiKeyEvent),
]
