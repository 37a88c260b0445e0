"""Users, sessions, API keys, and who holds an e-mail address. See README.md."""

from typing import Any

from commands.decider import Decider
from commands.identity import api_key, email, session, user

DECIDERS: list[Decider[Any, Any, Any]] = [
    user.DECIDER,
    email.DECIDER,
    session.DECIDER,
    api_key.DECIDER,
]
