"""API keys: issued with roles, changed while they work, revoked for good."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from commands.decider import Context
from commands.identity.api_key import (
    DECIDER,
    USE_MICROS,
    ApiKeyExists,
    IssueApiKey,
    RecordApiKeyUse,
    ReviseApiKey,
    RevokeApiKey,
    RotateApiKey,
)
from commands.refusals import ActorForbidden, AlreadyDone, InvalidCommand, NotFound, Refusal
from schemas.envelope import SYSTEM
from schemas.identity.api_key import (
    ApiKeyExpirySet,
    ApiKeyIssued,
    ApiKeyRenamed,
    ApiKeyRevoked,
    ApiKeyRolesGranted,
    ApiKeyRotated,
    ApiKeyUsed,
)
from tests.given import NOW, Given

HASH = "ab" * 32
ISSUE = IssueApiKey("ci", "wax_sk_0123456789ab", HASH, ["viewer", "compute"], [], NOW + 10)
ISSUED = ApiKeyIssued("ci", "wax_sk_0123456789ab", HASH, ["compute", "viewer"], [], NOW + 10)


def test_a_key_is_issued() -> None:
    Given(DECIDER).when(ISSUE).then(ISSUED)


def test_a_key_without_a_role_is_refused() -> None:
    command = IssueApiKey("ci", "wax_sk_0", HASH, [])
    Given(DECIDER).when(command).then_refused(InvalidCommand)


def test_a_key_that_has_expired_already_is_refused() -> None:
    command = IssueApiKey("ci", "wax_sk_0", HASH, ["admin"], [], NOW)
    Given(DECIDER).when(command).then_refused(InvalidCommand)


def test_another_key_under_the_same_id_is_refused() -> None:
    command = IssueApiKey("ci", "wax_sk_0", "cd" * 32, ["admin"])
    Given(DECIDER, ISSUED).when(command).then_refused(ApiKeyExists)


def test_issuing_a_key_again_that_was_revoked_is_refused() -> None:
    Given(DECIDER, ISSUED, ApiKeyRevoked()).when(ISSUE).then_refused(AlreadyDone)


def test_issuing_again_stays_quiet() -> None:
    Given(DECIDER, ISSUED).when(ISSUE).then_quiet()


def test_what_is_given_is_changed() -> None:
    command = ReviseApiKey("cd", ["admin"], ["observe:write"], NOW + 20)
    Given(DECIDER, ISSUED).when(command).then(
        ApiKeyRenamed("cd"),
        ApiKeyRolesGranted(["admin"], ["observe:write"]),
        ApiKeyExpirySet(NOW + 20),
    )


def test_scopes_alone_keep_the_roles() -> None:
    command = ReviseApiKey(scopes=["observe:write"])
    Given(DECIDER, ISSUED).when(command).then(
        ApiKeyRolesGranted(["compute", "viewer"], ["observe:write"])
    )


def test_the_expiry_is_taken_away() -> None:
    Given(DECIDER, ISSUED).when(ReviseApiKey(never_expires=True)).then(ApiKeyExpirySet(None))


def test_a_change_that_makes_no_sense_is_refused() -> None:
    for command in (
        ReviseApiKey(roles=[]),
        ReviseApiKey(expires_at=NOW),
        ReviseApiKey(expires_at=NOW + 30, never_expires=True),
    ):
        Given(DECIDER, ISSUED).when(command).then_refused(InvalidCommand)


def test_a_change_of_no_key_or_of_a_revoked_one_is_refused() -> None:
    Given(DECIDER).when(ReviseApiKey("cd")).then_refused(NotFound)
    Given(DECIDER, ISSUED, ApiKeyRevoked()).when(ReviseApiKey("cd")).then_refused(AlreadyDone)


def test_a_change_to_what_is_so_already_stays_quiet() -> None:
    command = ReviseApiKey("ci", ["viewer", "compute"], [], NOW + 10)
    Given(DECIDER, ISSUED).when(command).then_quiet()


def test_a_key_is_revoked() -> None:
    Given(DECIDER, ISSUED).when(RevokeApiKey()).then(ApiKeyRevoked())


def test_revoking_no_key_is_refused() -> None:
    Given(DECIDER).when(RevokeApiKey()).then_refused(NotFound)


def test_revoking_again_stays_quiet() -> None:
    Given(DECIDER, ISSUED, ApiKeyRevoked()).when(RevokeApiKey()).then_quiet()


def test_neither_audit_record_nor_answer_holds_the_hash() -> None:
    given_key = Given(DECIDER, ISSUED)
    assert HASH not in repr(DECIDER.describe(ISSUE))
    context = Context("ten_1", "key_1", given_key.actor, NOW, "cmd_1", {}, {})
    assert HASH not in repr(DECIDER.answer(ISSUE, given_key.state, context))


roles = st.lists(st.sampled_from(["admin", "viewer", "billing"]), max_size=2)
ROTATE = RotateApiKey(prefix="wax_sk_cd", key_hash="cd" * 32, grace_seconds=60)
ROTATED = ApiKeyRotated(
    prefix="wax_sk_cd",
    key_hash="cd" * 32,
    previous_prefix=ISSUED.prefix,
    previous_hash=HASH,
    previous_until=NOW + 60_000_000,
)


def test_a_key_gets_another_secret_and_the_one_before_a_grace() -> None:
    key = Given(DECIDER, ISSUED).when(ROTATE).then(ROTATED)
    key.when(ROTATE).then_quiet()
    again = RotateApiKey(prefix="wax_sk_ef", key_hash="ef" * 32, grace_seconds=0)
    key.when(again).then(
        ApiKeyRotated(
            prefix="wax_sk_ef",
            key_hash="ef" * 32,
            previous_prefix="wax_sk_cd",
            previous_hash="cd" * 32,
            previous_until=NOW,
        )
    )


def test_a_key_that_does_not_work_is_not_rotated() -> None:
    Given(DECIDER, ISSUED, ApiKeyRevoked()).when(ROTATE).then_refused(AlreadyDone)
    Given(DECIDER, ISSUED, now=NOW + 10).when(ROTATE).then_refused(AlreadyDone)
    Given(DECIDER).when(ROTATE).then_refused(NotFound)


def test_one_use_in_ten_minutes_is_told_whoever_saw_it() -> None:
    key = Given(DECIDER, ISSUED, actor=SYSTEM)
    key.when(RecordApiKeyUse(NOW)).then(ApiKeyUsed(NOW))
    key.when(RecordApiKeyUse(NOW + USE_MICROS - 1)).then_quiet()
    key.when(RecordApiKeyUse(NOW - 5)).then_quiet()
    key.when(RecordApiKeyUse(NOW + USE_MICROS)).then(ApiKeyUsed(NOW + USE_MICROS))
    Given(DECIDER, ISSUED).when(RecordApiKeyUse(NOW)).then_refused(ActorForbidden)


commands = st.one_of(
    st.just(ISSUE),
    st.builds(
        ReviseApiKey,
        st.sampled_from([None, "a", "b"]),
        st.none() | roles,
        st.none() | st.just(["observe:write"]),
        st.sampled_from([None, NOW - 1, NOW + 5]),
        st.booleans(),
    ),
    st.just(RevokeApiKey()),
    st.just(ROTATE),
)


@given(st.lists(commands, max_size=20))
def test_no_sequence_revives_a_revoked_key_or_leaves_one_without_roles(
    sequence: list[Struct],
) -> None:
    key = Given(DECIDER)
    for command in sequence:
        was_revoked = key.state.revoked
        try:
            events = key.when(command).decided()
        except Refusal:
            continue
        assert not (was_revoked and events)
        for event in events:
            key.state = DECIDER.evolve(key.state, event)
        assert not key.state.key_hash or key.state.roles
        assert key.state.expires_at is None or key.state.expires_at > NOW
