"""Who is logged in, their sessions and their password."""

import pytest

from api.identity.passwords import Passwords, nobodys_hash
from api.identity.sessions import masked
from api.problems import Problem
from tests.api.harness import OTHER_TENANT
from tests.api.identity.world import CHEAP, PASSWORD, World, bearer

SESSIONS = "/api/v1/auth/sessions"
ME = "/api/v1/auth/me"
CHANGE = "/api/v1/auth/password/change"
ADA = "ada@example.com"


async def test_the_sessions_that_go_on_are_listed_newest_first() -> None:
    async with World() as world:
        await world.register(ADA)
        ids = []
        for _ in range(3):
            tokens = await world.log_in(ADA)
            ids.append(tokens["session_id"])
            world.clock.advance(1)
        page = await world.client.get(SESSIONS, params={"limit": 2}, headers=bearer(tokens))
        body = page.json()
        assert [item["id"] for item in body["sessions"]] == ids[:0:-1]
        assert (body["total"], body["limit"], body["offset"]) == (3, 2, 0)
        assert [item["current"] for item in body["sessions"]] == [True, False]
        assert body["sessions"][0]["ip_address_masked"] == "192.0.2.0/24"
        rest = await world.client.get(SESSIONS, params={"offset": 2}, headers=bearer(tokens))
        assert [item["id"] for item in rest.json()["sessions"]] == ids[:1]


async def test_a_revoked_session_stops_at_once_and_leaves_the_list() -> None:
    async with World() as world:
        await world.register(ADA)
        here, there = await world.log_in(ADA), await world.log_in(ADA)
        assert (await world.client.get(ME, headers=bearer(there))).status_code == 200
        path = f"{SESSIONS}/{there['session_id']}"
        for _ in range(2):
            assert (await world.client.delete(path, headers=bearer(here))).status_code == 200
        assert (await world.client.get(ME, headers=bearer(there))).status_code == 401
        left = (await world.client.get(SESSIONS, headers=bearer(here))).json()
        assert [item["id"] for item in left["sessions"]] == [here["session_id"]]


@pytest.mark.parametrize("tenant", ["ten_test", OTHER_TENANT])
async def test_anothers_session_does_not_exist(tenant: str) -> None:
    async with World() as world:
        await world.register(ADA)
        await world.register("eve@example.com", tenant)
        ada, eve = await world.log_in(ADA), await world.log_in("eve@example.com")
        path = f"{SESSIONS}/{ada['session_id']}"
        assert (await world.client.delete(path, headers=bearer(eve))).status_code == 404
        missing = await world.client.delete(f"{SESSIONS}/ses_none", headers=bearer(eve))
        assert missing.status_code == 404
        assert (await world.client.get(ME, headers=bearer(ada))).status_code == 200


@pytest.mark.parametrize("query", [{"limit": 0}, {"limit": 101}, {"offset": -1}, {"limit": "x"}])
async def test_a_page_out_of_bounds_is_422(query: dict[str, int | str]) -> None:
    async with World() as world:
        await world.register(ADA)
        headers = bearer(await world.log_in(ADA))
        response = await world.client.get(SESSIONS, params=query, headers=headers)
        assert response.status_code == 422


async def test_these_are_for_people() -> None:
    async with World() as world:
        for method, path in [("GET", ME), ("GET", SESSIONS), ("DELETE", f"{SESSIONS}/x")]:
            assert (await world.client.request(method, path)).status_code == 401


async def test_a_changed_password_counts_and_ends_every_session() -> None:
    async with World() as world:
        await world.register(ADA)
        here, there = await world.log_in(ADA), await world.log_in(ADA)
        body = {"current_password": PASSWORD, "new_password": "twelve or more letters"}
        done = await world.client.post(CHANGE, json=body, headers=bearer(here))
        assert done.status_code == 200
        for tokens in (here, there):
            assert (await world.client.get(ME, headers=bearer(tokens))).status_code == 401
        await world.log_in(ADA, "twelve or more letters")
        old = {"email": ADA, "password": PASSWORD}
        assert (await world.client.post("/api/v1/auth/token", json=old)).status_code == 401


async def test_the_password_changes_only_with_the_current_one_and_to_a_long_enough_one() -> None:
    async with World() as world:
        await world.register(ADA)
        headers = bearer(await world.log_in(ADA))
        wrong = {"current_password": "wrong", "new_password": "twelve or more letters"}
        assert (await world.client.post(CHANGE, json=wrong, headers=headers)).status_code == 401
        short = {"current_password": PASSWORD, "new_password": "eleven char"}
        assert (await world.client.post(CHANGE, json=short, headers=headers)).status_code == 422
        await world.log_in(ADA)


def test_addresses_are_masked() -> None:
    assert masked("198.51.100.77") == "198.51.100.0/24"
    assert masked("2001:db8:1:2:3::4") == "2001:db8:1::/48"
    assert masked("somewhere") is None


async def test_nobodys_password_takes_the_work_of_a_real_one_and_is_never_right() -> None:
    passwords = Passwords(CHEAP)
    kept = await passwords.hash("pass word")
    assert (
        kept.rpartition("$")[0].rpartition("$")[0]
        == (nobodys_hash(CHEAP).rpartition("$")[0].rpartition("$")[0])
    ), "the same algorithm, version and costs"
    assert await passwords.verify(kept, "pass word")
    assert not await passwords.verify(kept, "password")
    assert not await passwords.verify(None, "pass word")


async def test_a_password_is_right_in_either_unicode_spelling() -> None:
    passwords = Passwords(CHEAP)
    kept = await passwords.hash("caf\u00e9 au lait")
    assert await passwords.verify(kept, "cafe\u0301 au lait")


async def test_too_many_logins_at_once_are_503_with_retry_after() -> None:
    passwords = Passwords(CHEAP)
    passwords._waiting = 64
    with pytest.raises(Problem) as caught:
        await passwords.verify(None, "x")
    assert caught.value.status == 503
    assert caught.value.headers["retry-after"] == "2"
