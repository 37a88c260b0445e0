"""Which events make processes forget which cached credential."""

import pytest

from api.identity.forgetting import forgotten
from schemas.avro_derivation import tag_of
from schemas.identity import EVENTS


@pytest.mark.parametrize(
    ("event_type", "stream", "expected"),
    [
        ("identity.session_revoked.v1", "identity.session/ses_1", ("session", "ses_1")),
        ("identity.session_expired.v1", "identity.session/ses_1", ("session", "ses_1")),
        ("identity.password_changed.v1", "identity.user/usr_1", ("user", "usr_1")),
        ("identity.all_sessions_revoked.v1", "identity.user/usr_1", ("user", "usr_1")),
        ("identity.api_key_revoked.v1", "identity.api_key/key_1", ("api_key", "key_1")),
        ("identity.api_key_roles_granted.v1", "identity.api_key/key_1", ("api_key", "key_1")),
        ("approvals.agent_deactivated.v1", "approvals.agent/agt_1", ("agent", "agt_1")),
        ("approvals.agent_adopted.v1", "approvals.agent/agt_1", ("agent", "agt_1")),
        ("approvals.agent_claim_expired.v1", "approvals.registration/agt_1", ("agent", "agt_1")),
        ("approvals.agent_self_registered.v1", "approvals.registration/agt_1", None),
        ("identity.login_failed.v1", "identity.user/usr_1", None),
        ("identity.session_opened.v1", "identity.session/ses_1", None),
        ("approvals.room_created.v1", "approvals.room/room_1", None),
        ("identity.email_confirmed.v1", "identity.email/ab", None),
    ],
)
def test_an_event_names_the_credential_that_it_changes(
    event_type: str, stream: str, expected: tuple[str, str] | None
) -> None:
    assert forgotten(event_type, stream) == expected


def test_whatever_ends_or_narrows_a_credential_is_never_taken_for_harmless() -> None:
    changing = ("revoked", "expired", "changed", "granted", "expiry_set", "deactivated")
    for event in EVENTS:
        tag = tag_of(event)
        if any(word in tag for word in changing) and "email" not in tag:
            name = tag.split(".")[1]
            stream = next(s for s in ("api_key", "session", "user") if s in f"{name} user")
            assert forgotten(tag, f"identity.{stream}/x") is not None, tag
