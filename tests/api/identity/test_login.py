"""Login, refresh and logout."""

import asyncio
from collections.abc import Callable
from http.cookies import SimpleCookie

import pytest

from api.tokens import TokenIssuer
from infra.ids import Signer
from infra.kafka import LogUnavailable
from schemas.identity.session import SessionOpened, SessionRefreshed, SessionRevoked
from schemas.identity.user import LoginFailed
from tests.api.harness import OTHER_TENANT, SECRET, TENANT
from tests.api.identity.world import PASSWORD, World, bearer

TOKEN = "/api/v1/auth/token"
REFRESH = "/api/v1/auth/refresh"
ME = "/api/v1/auth/me"
ADA = "ada@example.com"


async def test_a_login_opens_a_session_and_its_token_works_at_once() -> None:
    async with World() as world:
        user_id = await world.register(ADA, roles=["admin", "viewer"])
        tokens = await world.log_in(" ADA@Example.com ")
        assert tokens["token_type"] == "bearer"
        assert tokens["expires_in"] == 900
        assert (tokens["user_id"], tokens["tenant_id"]) == (user_id, TENANT)
        assert tokens["roles"] == ["admin", "viewer"]
        opened = world.bus.emitted(SessionOpened)
        assert [(event.user_id, event.address) for event in opened] == [(user_id, "192.0.2.1")]
        me = await world.client.get(ME, headers=bearer(tokens))
        assert me.status_code == 200
        assert me.json()["email"] == ADA
        assert me.json()["tenant_name"] == f"Tenant {TENANT}"
        assert me.json()["session_id"] == tokens["session_id"]


async def test_the_form_of_oauth_logs_in_too() -> None:
    async with World() as world:
        await world.register(ADA)
        form = {"grant_type": "password", "username": ADA, "password": PASSWORD}
        response = await world.client.post(TOKEN, data=form)
        assert response.status_code == 200
        assert response.json()["email"] == ADA
        assert response.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"{}", "email"),
        (b'{"email": "ada@example.com"}', "password"),
        (b'{"email": "nobody", "password": "x"}', "email"),
        (b'{"email": 3, "password": "x"}', "email"),
    ],
)
async def test_a_body_of_another_shape_is_422_and_names_the_field(body: bytes, field: str) -> None:
    async with World() as world:
        response = await world.client.post(
            TOKEN, content=body, headers={"content-type": "application/json"}
        )
        assert response.status_code == 422
        assert response.json()["detail"][0]["loc"][:2] == ["body", field]


@pytest.mark.parametrize("form", [{"username": ADA}, {"password": "x"}, {}])
async def test_a_form_without_what_it_needs_is_422(form: dict[str, str]) -> None:
    async with World() as world:
        response = await world.client.post(
            TOKEN,
            content="&".join(f"{name}={value}" for name, value in form.items()),
            headers={"content-type": "application/x-www-form-urlencoded"},
        )
        assert response.status_code == 422


async def test_every_wrong_login_gets_the_same_answer() -> None:
    async with World() as world:
        await world.register(ADA)
        wrong = [
            {"email": ADA, "password": "wrong"},
            {"email": "nobody@example.com", "password": PASSWORD},
            {"email": ADA, "password": PASSWORD, "tenant_id": OTHER_TENANT},
        ]
        answers = [await world.client.post(TOKEN, json=body) for body in wrong]
        assert [answer.status_code for answer in answers] == [401, 401, 401]
        assert len({answer.text for answer in answers}) == 1
        assert all("www-authenticate" in answer.headers for answer in answers)
        assert "set-cookie" not in answers[0].headers


async def test_a_wrong_password_of_a_known_account_is_on_the_log_and_no_other() -> None:
    async with World() as world:
        await world.register(ADA)
        await world.client.post(TOKEN, json={"email": ADA, "password": "wrong"})
        await world.client.post(TOKEN, json={"email": "nobody@example.com", "password": "wrong"})
        await world.guard.settle()
        assert world.bus.emitted(LoginFailed) == [LoginFailed("192.0.2.1")]


async def test_a_wrong_password_is_401_also_while_the_log_is_away() -> None:
    async with World() as world:
        await world.register(ADA)
        world.bus.fail_with = LogUnavailable("gone")
        answer = await world.client.post(TOKEN, json={"email": ADA, "password": "wrong"})
        await world.guard.settle()
        assert answer.status_code == 401
        right = await world.client.post(TOKEN, json={"email": ADA, "password": PASSWORD})
        assert right.status_code == 503
        assert "retry-after" in right.headers


async def test_the_login_of_the_named_tenant_works() -> None:
    async with World() as world:
        await world.register(ADA)
        body = {"email": ADA, "password": PASSWORD, "tenant_id": TENANT}
        assert (await world.client.post(TOKEN, json=body)).status_code == 200


async def test_guessing_is_locked_out_with_retry_after_whether_or_not_the_account_exists() -> None:
    async with World() as world:
        await world.register(ADA)
        for account in (ADA, "nobody@example.com"):
            for guess in range(5):
                body = {"email": account, "password": f"guess {guess}"}
                assert (await world.client.post(TOKEN, json=body)).status_code == 401
            locked = await world.client.post(TOKEN, json={"email": account, "password": PASSWORD})
            assert locked.status_code == 429
            assert int(locked.headers["retry-after"]) == 60
        world.monotonic += 61
        await world.log_in(ADA)


async def test_the_same_wrong_password_again_and_again_is_no_guessing() -> None:
    async with World() as world:
        await world.register(ADA)
        for _ in range(10):
            body = {"email": ADA, "password": "an old password"}
            assert (await world.client.post(TOKEN, json=body)).status_code == 401
        await world.log_in(ADA)


async def test_one_password_tried_on_many_accounts_locks_the_address_out() -> None:
    async with World() as world:
        await world.register(ADA)
        for number in range(50):
            body = {"email": f"user{number}@example.com", "password": "Winter2026"}
            assert (await world.client.post(TOKEN, json=body)).status_code == 401
        body = {"email": ADA, "password": PASSWORD}
        assert (await world.client.post(TOKEN, json=body)).status_code == 429


async def test_the_cookie_is_a_credential_until_the_logout() -> None:
    async with World() as world:
        await world.register(ADA)
        response = await world.client.post(TOKEN, json={"email": ADA, "password": PASSWORD})
        cookie = SimpleCookie(response.headers["set-cookie"])["sessionid"]
        assert cookie["httponly"]
        assert cookie["samesite"] == "Lax"
        assert cookie["path"] == "/"
        assert not cookie["secure"]
        assert 0 < int(cookie["max-age"]) <= 14 * 86_400
        world.client.cookies.clear()
        headers = {"Cookie": f"sessionid={cookie.value}"}
        assert (await world.client.get(ME, headers=headers)).status_code == 200
        bare = await world.client.post("/api/v1/auth/logout", headers=headers)
        assert bare.status_code == 403, "a cookie alone must not write: the page may be another's"
        ours = {**headers, "X-Requested-With": "weir"}
        done = await world.client.post("/api/v1/auth/logout", headers=ours)
        assert done.status_code == 200
        assert done.json()["success"] is True
        assert SimpleCookie(done.headers["set-cookie"])["sessionid"]["max-age"] == "0"
        assert (await world.client.get(ME, headers=headers)).status_code == 401


async def test_the_cookie_is_secure_when_the_public_url_is_https() -> None:
    async with World() as world:
        object.__setattr__(world.services.settings, "public_url", "https://weir.test")
        await world.register(ADA)
        response = await world.client.post(TOKEN, json={"email": ADA, "password": PASSWORD})
        assert SimpleCookie(response.headers["set-cookie"])["sessionid"]["secure"]


async def test_no_secret_of_a_session_is_on_the_log() -> None:
    async with World() as world:
        await world.register(ADA)
        response = await world.client.post(TOKEN, json={"email": ADA, "password": PASSWORD})
        tokens = response.json()
        cookie = SimpleCookie(response.headers["set-cookie"])["sessionid"].value
        effects = world.bus._workspace.effects
        log = repr((effects.events, effects.audit, effects.outcomes))
        for secret in (PASSWORD, cookie, tokens["access_token"], tokens["refresh_token"]):
            assert secret not in log
        public = repr(effects.audit)
        assert "argon2" not in public


async def test_a_refresh_gives_new_tokens_and_each_works_once() -> None:
    async with World() as world:
        await world.register(ADA)
        first = await world.log_in(ADA)
        body = {"refresh_token": first["refresh_token"]}
        response = await world.client.post(REFRESH, json=body)
        second = response.json()
        assert response.status_code == 200
        assert second["session_id"] == first["session_id"]
        assert second["refresh_token"] != first["refresh_token"]
        assert (await world.client.get(ME, headers=bearer(second))).status_code == 200


async def test_a_used_refresh_token_ends_the_session_for_both_holders() -> None:
    async with World() as world:
        await world.register(ADA)
        first = await world.log_in(ADA)
        stolen = {"refresh_token": first["refresh_token"]}
        second = (await world.client.post(REFRESH, json=stolen)).json()
        assert (await world.client.get(ME, headers=bearer(second))).status_code == 200
        assert (await world.client.post(REFRESH, json=stolen)).status_code == 401
        assert world.bus.emitted(SessionRevoked) == [SessionRevoked("refresh_reused")]
        assert (await world.client.get(ME, headers=bearer(second))).status_code == 401
        again = {"refresh_token": second["refresh_token"]}
        assert (await world.client.post(REFRESH, json=again)).status_code == 401


async def test_two_refreshes_at_the_same_time_are_one_too_many() -> None:
    async with World() as world:
        await world.register(ADA)
        body = {"refresh_token": (await world.log_in(ADA))["refresh_token"]}
        answers = await asyncio.gather(*(world.client.post(REFRESH, json=body) for _ in range(2)))
        assert sorted(answer.status_code for answer in answers) == [200, 401]


async def test_a_refresh_repeated_with_its_idempotency_key_gets_the_same_tokens() -> None:
    async with World() as world:
        await world.register(ADA)
        body = {"refresh_token": (await world.log_in(ADA))["refresh_token"]}
        key = {"Idempotency-Key": "0f8fad5b-d9cb-469f-a165-70867728950e"}
        first = await world.client.post(REFRESH, json=body, headers=key)
        again = await world.client.post(REFRESH, json=body, headers=key)
        assert (first.status_code, again.status_code) == (200, 200)
        assert again.json()["refresh_token"] == first.json()["refresh_token"]
        assert again.headers["idempotency-replayed"] == "true"
        assert len(world.bus.emitted(SessionRefreshed)) == 1


async def test_a_login_repeated_with_its_idempotency_key_opens_one_session() -> None:
    async with World() as world:
        await world.register(ADA)
        key = {"Idempotency-Key": "7c9e6679-7425-40de-944b-e07fc1f90ae7"}
        body = {"email": ADA, "password": PASSWORD}
        first = await world.client.post(TOKEN, json=body, headers=key)
        again = await world.client.post(TOKEN, json=body, headers=key)
        assert again.json()["session_id"] == first.json()["session_id"]
        assert len(world.bus.emitted(SessionOpened)) == 1


@pytest.mark.parametrize("tenant", [TENANT, OTHER_TENANT])
async def test_somebody_elses_idempotency_key_opens_no_session_of_theirs(tenant: str) -> None:
    async with World() as world:
        await world.register(ADA)
        eve_id = await world.register("eve@example.com", tenant)
        key = {"Idempotency-Key": "7c9e6679-7425-40de-944b-e07fc1f90ae7"}
        cookies = []
        for email in (ADA, "eve@example.com"):
            body = {"email": email, "password": PASSWORD}
            response = await world.client.post(TOKEN, json=body, headers=key)
            cookies.append(response.cookies.get("sessionid"))
            world.client.cookies.clear()
        assert len(set(cookies)) == 2
        if cookies[1] is not None:
            me = await world.client.get(ME, headers={"Cookie": f"sessionid={cookies[1]}"})
            assert me.json()["user_id"] == eve_id


@pytest.mark.parametrize(
    "change",
    [
        lambda token: token[:-1] + ("0" if token[-1] != "0" else "1"),
        lambda token: token.replace(".0.", ".1."),
        lambda token: token.replace(".0.", ".00."),
        lambda token: "wrt_" + "0" * 26 + token[30:],
        lambda token: "nonsense",
    ],
)
async def test_a_forged_refresh_token_is_401_and_ends_nothing(
    change: Callable[[str], str],
) -> None:
    async with World() as world:
        await world.register(ADA)
        tokens = await world.log_in(ADA)
        forged = {"refresh_token": change(tokens["refresh_token"])}
        assert (await world.client.post(REFRESH, json=forged)).status_code == 401
        assert world.bus.emitted(SessionRevoked) == []
        assert (await world.client.get(ME, headers=bearer(tokens))).status_code == 200


async def test_an_access_token_ends_after_15_minutes_and_the_refresh_goes_on() -> None:
    async with World() as world:
        await world.register(ADA)
        tokens = await world.log_in(ADA)
        world.clock.advance(901)
        assert (await world.client.get(ME, headers=bearer(tokens))).status_code == 401
        body = {"refresh_token": tokens["refresh_token"]}
        fresh = (await world.client.post(REFRESH, json=body)).json()
        assert (await world.client.get(ME, headers=bearer(fresh))).status_code == 200


async def test_a_session_that_nobody_refreshes_for_14_days_has_ended() -> None:
    async with World() as world:
        await world.register(ADA)
        body = {"refresh_token": (await world.log_in(ADA))["refresh_token"]}
        world.clock.advance(14 * 86_400)
        assert (await world.client.post(REFRESH, json=body)).status_code == 401


async def test_a_token_that_another_installation_signed_is_401() -> None:
    async with World() as world:
        user_id = await world.register(ADA)
        tokens = await world.log_in(ADA)
        issuer = TokenIssuer(Signer(SECRET[::-1]), world.clock)
        forged = issuer.access(user_id=user_id, session_id=tokens["session_id"], tenant=TENANT)
        headers = {"Authorization": f"Bearer {forged}"}
        assert (await world.client.get(ME, headers=headers)).status_code == 401


async def test_a_logout_by_refresh_token_ends_that_session_only() -> None:
    async with World() as world:
        await world.register(ADA)
        here, there = await world.log_in(ADA), await world.log_in(ADA)
        body = {"refresh_token": there["refresh_token"]}
        done = await world.client.post("/api/v1/auth/logout", json=body, headers=bearer(here))
        assert done.status_code == 200
        assert (await world.client.get(ME, headers=bearer(there))).status_code == 401
        assert (await world.client.get(ME, headers=bearer(here))).status_code == 200


async def test_nobody_logs_another_out() -> None:
    async with World() as world:
        await world.register(ADA)
        await world.register("eve@example.com", OTHER_TENANT)
        ada, eve = await world.log_in(ADA), await world.log_in("eve@example.com")
        body = {"refresh_token": ada["refresh_token"]}
        done = await world.client.post("/api/v1/auth/logout", json=body, headers=bearer(eve))
        assert done.status_code == 422
        assert (await world.client.get(ME, headers=bearer(ada))).status_code == 200


async def test_logging_out_everywhere_ends_all_sessions_and_later_ones_work() -> None:
    async with World() as world:
        await world.register(ADA)
        here, there = await world.log_in(ADA), await world.log_in(ADA)
        done = await world.client.post("/api/v1/auth/logout/all", headers=bearer(here))
        assert done.status_code == 200
        for tokens in (here, there):
            assert (await world.client.get(ME, headers=bearer(tokens))).status_code == 401
            body = {"refresh_token": tokens["refresh_token"]}
            assert (await world.client.post(REFRESH, json=body)).status_code == 401
        assert (await world.client.get(ME, headers=bearer(await world.log_in(ADA)))).is_success
