"""Which cached credentials an event makes wrong.

API processes tail `events`; what this names is dropped from their caches, and event streams opened
with it are ended, so that a revoked credential stops everywhere within a second.
"""

from typing import Literal

Kind = Literal["api_key", "agent", "session", "user"]

_KINDS: dict[str, Kind] = {
    "identity.api_key": "api_key",
    "identity.session": "session",
    "identity.user": "user",
    "approvals.agent": "agent",
    "approvals.registration": "agent",
}
# These say nothing about what a credential may do.
_HARMLESS = frozenset(
    {
        "identity.login_failed.v1",
        "identity.session_opened.v1",
        "identity.session_refreshed.v1",
        "identity.api_key_renamed.v1",
        "identity.api_key_used.v1",
        # Nobody has looked up what did not exist; dropping would only keep it out of the caches.
        "identity.api_key_issued.v1",
        "identity.user_registered.v1",
        "approvals.agent_registered.v1",
        "approvals.agent_self_registered.v1",
    }
)


def forgotten(event_type: str, stream: str) -> tuple[Kind, str] | None:
    """The kind and id of the credential that an event (its tag and stream) changes, if any."""
    name, _, id = stream.partition("/")
    kind = _KINDS.get(name)
    return None if kind is None or event_type in _HARMLESS else (kind, id)
