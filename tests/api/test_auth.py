"""Credentials: each kind, what is wrong with them, the cache, and those who guess."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from itertools import count

import msgspec
import pytest

from api.auth import FRESH_SECONDS, STALE_SECONDS, Authenticator, CredentialCache
from api.credentials import AGENT_KEY_PREFIX, API_KEY_PREFIX, lookup_prefix
from api.foreign_tokens import ForeignTokens
from api.limits import Lockout
from api.problems import Problem
from infra.ids import secret_hash
from infra.postgres import DatabaseUnavailable
from tests.api.harness import TENANT, Harness
from tests.api.sample import COUNTER, ROUTES
from tests.api.test_limits import Ticks

ECHO = "/api/v1/echo/1"


@pytest.fixture
async def app() -> AsyncIterator[Harness]:
    async with Harness(ROUTES, deciders=[COUNTER]) as harness:
        yield harness


async def status(app: Harness, headers: dict[str, str], path: str = ECHO) -> int:
    return (await app.client.get(path, headers=headers)).status_code


async def test_each_kind_of_credential_names_its_actor(app: Harness) -> None:
    key = app.key()["X-Wax-Key"]
    for headers, kind in (
        ({"X-Wax-Key": key}, "api_key"),
        ({"Authorization": f"Bearer {key}"}, "api_key"),
        ({"Authorization": f"bearer  {key}"}, "api_key"),
        (app.agent(), "agent"),
        (app.human(), "user"),
        (app.human(cookie=True), "user"),
    ):
        answer = await app.client.get(ECHO, headers=headers)
        assert answer.status_code == 200
        assert answer.json()["actor"]["kind"] == kind
        assert answer.json()["tenant"] == TENANT


def wrong_credentials() -> Iterator[dict[str, str]]:
    yield {}
    yield {"X-Wax-Key": "nonsense"}
    yield {"X-Wax-Key": API_KEY_PREFIX}
    yield {"X-Wax-Key": API_KEY_PREFIX + "x" * 52}
    yield {"Authorization": "Basic dXNlcjpwYXNz"}
    yield {"Authorization": "Bearer"}
    yield {"Authorization": "Bearer " + AGENT_KEY_PREFIX + "x" * 52}
    yield {"Authorization": "Bearer a.b.c"}
    yield {"Authorization": "Bearer ..."}
    yield {"Authorization": "Bearer " + "x" * 9000}
    yield {"Cookie": "sessionid=nonsense"}
    yield {"Cookie": "sessionid="}
    yield {"Cookie": "other=1"}


@pytest.mark.parametrize("headers", wrong_credentials())
async def test_a_missing_or_wrong_credential_is_a_401(
    app: Harness, headers: dict[str, str]
) -> None:
    answer = await app.client.get(ECHO, headers=headers)
    assert answer.status_code == 401
    assert answer.json() == {"detail": "Missing or invalid credentials"}
    assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_the_rest_of_a_key_counts_too(app: Harness) -> None:
    for headers in (app.key(), app.agent()):
        ((name, value),) = headers.items()
        assert await status(app, {name: value[:-1] + ("0" if value[-1] != "0" else "1")}) == 401
        assert await status(app, {name: value + "0"}) == 401
        assert await status(app, {name: value}) == 200


async def test_a_revoked_or_expired_credential_is_a_401(app: Harness) -> None:
    now = app.clock.now()
    store = app.credentials
    revoked, expired = app.key(revoked=True), app.key(expires_at=now)
    assert await status(app, revoked) == 401
    assert await status(app, expired) == 401
    assert await status(app, app.agent(revoked=True)) == 401
    for change in ({"revoked": True}, {"expires_at": now}):
        headers = app.human()
        (session_id,) = list(store.sessions)[-1:]
        session = msgspec.structs.replace(store.sessions[session_id], **change)
        store.sessions[session_id] = session
        assert await status(app, headers) == 401
    headers = app.human(cookie=True)
    (user_id,) = list(store.users)[-1:]
    store.users[user_id] = msgspec.structs.replace(store.users[user_id], active=False)
    assert await status(app, headers) == 401


async def test_a_token_is_good_until_it_expires_even_when_cached(app: Harness) -> None:
    headers = app.human()
    assert await status(app, headers) == 200
    app.clock.advance(3601)
    assert await status(app, headers) == 401


async def test_a_token_needs_its_own_session(app: Harness) -> None:
    app.human()
    token = app.tokens.access(user_id="usr_other", session_id="ses_1", tenant=TENANT)
    assert await status(app, {"Authorization": f"Bearer {token}"}) == 401
    other = app.tokens.issue(sub="usr_1", sid="ses_1", seconds=60, typ="refresh")
    assert await status(app, {"Authorization": f"Bearer {other}"}) == 401


async def test_the_key_header_comes_before_the_token_before_the_cookie(app: Harness) -> None:
    headers = {**app.human(cookie=True), **app.agent(), **app.key()}
    assert (await app.client.get(ECHO, headers=headers)).json()["actor"]["kind"] == "api_key"
    del headers["X-Wax-Key"]
    assert (await app.client.get(ECHO, headers=headers)).json()["actor"]["kind"] == "agent"
    headers["X-Wax-Key"] = "wrong"
    assert await status(app, headers) == 401


async def test_a_cookie_writes_only_from_our_own_pages(app: Harness) -> None:
    cookie = app.human(cookie=True)
    del cookie["X-Requested-With"]

    async def write(**more: str) -> int:
        headers = {**cookie, **{name.replace("_", "-"): value for name, value in more.items()}}
        return (await app.client.post(ECHO, json={}, headers=headers)).status_code

    assert await status(app, cookie) == 200  # reading is free
    assert await write() == 403
    assert await write(Origin="https://evil.test") == 403
    assert await write(Origin="null") == 403
    assert await write(Origin="https://evil.test", X_Requested_With="x") == 403
    assert await write(X_Requested_With="XMLHttpRequest") == 200
    assert await write(X_CSRF_Token="x") == 200
    assert await write(Origin="http://weir.test") == 200
    assert await write(Origin="http://127.0.0.1:8080") == 200  # public_url
    token = {**app.human(), "Origin": "https://evil.test"}
    assert (await app.client.post(ECHO, json={}, headers=token)).status_code == 200


async def test_look_ups_are_cached_and_dropped(app: Harness) -> None:
    headers = app.key()
    for _ in range(5):
        assert await status(app, headers) == 200
    assert app.credentials.asked == 1
    prefix = lookup_prefix(headers["X-Wax-Key"])
    record = app.credentials.api_keys[prefix]
    app.credentials.api_keys[prefix] = msgspec.structs.replace(record, revoked=True)
    assert await status(app, headers) == 200  # nobody has said so yet
    app.services.credential_cache.drop("api_key", record.id)
    assert await status(app, headers) == 401


async def test_each_kind_is_dropped_by_what_it_hangs_on(app: Harness) -> None:
    for headers, tags in (
        (app.agent(), [("agent", "agt_1")]),
        (app.human(), [("user", "usr_2"), ("session", "ses_2")]),
        (app.human(cookie=True), [("user", "usr_3"), ("session", "ses_3")]),
    ):
        for tag in tags:
            await status(app, headers)
            app.credentials.asked = 0
            app.services.credential_cache.drop(*tag)
            await status(app, headers)
            assert app.credentials.asked > 0


def authenticator(app: Harness, ticks: Ticks, lockout: Lockout | None = None) -> Authenticator:
    """An authenticator on the harness's credentials, under a clock of the test's."""
    return Authenticator(
        store=app.credentials,
        tokens=app.tokens,
        foreign=ForeignTokens(app.services.settings, app.clock),
        clock=app.clock,
        lockout=lockout or Lockout(now=ticks),
        cache=CredentialCache(ticks),
        now=ticks,
    )


def raw(headers: dict[str, str]) -> dict[bytes, bytes]:
    return {name.lower().encode(): value.encode() for name, value in headers.items()}


async def test_a_look_up_is_repeated_after_some_seconds(app: Harness) -> None:
    ticks = Ticks()
    auth, headers = authenticator(app, ticks), raw(app.key())
    await auth.authenticate(headers, "a")
    ticks.now += FRESH_SECONDS + 0.1
    await auth.authenticate(headers, "a")
    assert app.credentials.asked == 2


async def test_without_postgres_known_credentials_go_on_for_some_minutes(app: Harness) -> None:
    ticks = Ticks()
    auth, headers = authenticator(app, ticks), raw(app.key())
    await auth.authenticate(headers, "a")
    app.credentials.fail_with = DatabaseUnavailable("gone")
    ticks.now += FRESH_SECONDS + 1
    found = await auth.authenticate(headers, "a")
    assert found is not None and found.tenant == TENANT
    with pytest.raises(DatabaseUnavailable):
        await auth.authenticate(raw(app.key()), "a")
    ticks.now += STALE_SECONDS
    with pytest.raises(DatabaseUnavailable):
        await auth.authenticate(headers, "a")


async def test_while_postgres_is_away_it_is_not_asked_at_every_request(app: Harness) -> None:
    ticks = Ticks()
    auth, headers = authenticator(app, ticks), raw(app.key())
    await auth.authenticate(headers, "a")
    app.credentials.fail_with = DatabaseUnavailable("gone")
    ticks.now += FRESH_SECONDS + 1
    for _ in range(10):
        await auth.authenticate(headers, "a")
    assert app.credentials.asked == 2
    ticks.now += 3
    app.credentials.fail_with = None
    await auth.authenticate(headers, "a")
    await auth.authenticate(headers, "a")
    assert app.credentials.asked == 3


async def test_many_who_ask_at_once_cost_one_look_up(app: Harness) -> None:
    auth, headers = authenticator(app, Ticks()), raw(app.key())
    found = await asyncio.gather(*(auth.authenticate(headers, "a") for _ in range(20)))
    assert len({principal.key_id for principal in found if principal}) == 1
    assert app.credentials.asked == 1


async def test_what_was_read_while_a_drop_came_is_not_kept(app: Harness) -> None:
    ticks = Ticks()
    cache = CredentialCache(ticks)
    auth = Authenticator(
        store=app.credentials,
        tokens=app.tokens,
        foreign=ForeignTokens(app.services.settings, app.clock),
        clock=app.clock,
        lockout=Lockout(),
        cache=cache,
        now=ticks,
    )
    headers = raw(app.key())
    look_up = app.credentials.get_api_key

    async def overtaken(prefix: str) -> object:
        found = await look_up(prefix)
        cache.drop("api_key", "key_1")
        return found

    app.credentials.get_api_key = overtaken  # type: ignore[assignment, method-assign]
    await auth.authenticate(headers, "a")
    app.credentials.get_api_key = look_up  # type: ignore[method-assign]
    # The view may still lag behind the event that dropped it: nothing is kept for a moment.
    await auth.authenticate(headers, "a")
    await auth.authenticate(headers, "a")
    assert app.credentials.asked == 3
    ticks.now += 4
    await auth.authenticate(headers, "a")
    await auth.authenticate(headers, "a")
    assert app.credentials.asked == 4


async def test_a_gap_in_the_tail_forgets_everything(app: Harness) -> None:
    headers = app.key()
    await status(app, headers)
    app.services.credential_cache.clear()
    await status(app, headers)
    assert app.credentials.asked == 2


async def test_guessing_the_rest_of_a_key_locks_the_guesser_out(app: Harness) -> None:
    good = app.key()["X-Wax-Key"]  # none of our keys has a "u" in it
    for number in range(10):
        assert await status(app, {"X-Wax-Key": f"{good[:-2]}u{number}"}) == 401
    answer = await app.client.get(ECHO, headers={"X-Wax-Key": good[:-1] + "u"})
    assert answer.status_code == 429
    assert 0 < int(answer.headers["retry-after"]) <= 60
    # Others from that address are not hurt, nor is the key's owner elsewhere.
    assert await status(app, app.key()) == 200
    auth = authenticator(app, Ticks(), app.services.lockout)
    assert await auth.authenticate(raw({"X-Wax-Key": good}), "203.0.113.9") is not None


async def test_one_and_the_same_wrong_key_is_a_401_for_long(app: Harness) -> None:
    for _ in range(300):
        assert await status(app, {"X-Wax-Key": API_KEY_PREFIX + "x" * 52}) == 401


async def test_a_flood_of_different_wrong_keys_closes_the_address(app: Harness) -> None:
    ticks = Ticks()
    auth = authenticator(app, ticks)
    refused = 0
    for number in count():
        try:
            await auth.authenticate(
                raw({"X-Wax-Key": f"{API_KEY_PREFIX}{number:012}{'x' * 40}"}), "a"
            )
        except Problem as problem:
            if problem.status == 429:
                break
            refused += 1
    assert refused == 1000
    ticks.now += 11
    with pytest.raises(Problem) as caught:
        await auth.authenticate(raw({"X-Wax-Key": "other"}), "a")
    assert caught.value.status == 401


def test_the_public_part_of_a_key_is_the_same_everywhere(app: Harness) -> None:
    secret = app.signer.secret(API_KEY_PREFIX, "cmd_1")
    assert lookup_prefix(secret) == secret[:19]
    assert len(secret) == len(API_KEY_PREFIX) + 52
    assert len(secret_hash(secret)) == 64
    with pytest.raises(ValueError, match="not a key of ours"):
        lookup_prefix("sk_live_1")
