"""Read models of users, sessions, API keys and who holds an address."""

from projections.identity.api_keys import API_KEYS
from projections.identity.email_owners import EMAIL_OWNERS
from projections.identity.sessions import SESSIONS
from projections.identity.users import USERS
from projections.statements import View

VIEWS: list[View] = [USERS, EMAIL_OWNERS, SESSIONS, API_KEYS]
