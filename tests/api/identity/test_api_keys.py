"""API keys over HTTP."""

import httpx
import pytest

from api.app import build_app
from api.identity import ROUTES
from api.identity.key_use import KeyUses
from infra.clock import iso
from schemas.identity.api_key import ApiKeyUsed
from tests.api.harness import OTHER_TENANT, TENANT
from tests.api.identity.world import World, bearer

KEYS = "/api/v1/api-keys"
ADA = "ada@example.com"


async def admin(world: World, tenant: str = TENANT, email: str = ADA) -> dict[str, str]:
    await world.register(email, tenant)
    return bearer(await world.log_in(email))


async def test_an_issued_key_works_at_once_and_is_shown_once() -> None:
    async with World() as world:
        headers = await admin(world)
        body = {"name": "ci", "roles": ["admin", "compute"], "scopes": ["observe:write"]}
        response = await world.client.post(KEYS, json=body, headers=headers)
        issued = response.json()
        assert response.status_code == 201
        assert issued["key"].startswith("wax_sk_")
        assert issued["key"].startswith(issued["prefix"])
        assert issued["roles"] == ["admin", "compute"]
        listed = await world.client.get(KEYS, headers={"X-Wax-Key": issued["key"]})
        assert listed.status_code == 200
        assert [item["id"] for item in listed.json()["data"]] == [issued["id"]]
        assert issued["key"] not in listed.text
        effects = world.bus._workspace.effects
        assert issued["key"] not in repr((effects.events, effects.audit, effects.outcomes))


async def test_the_same_idempotency_key_shows_the_same_api_key() -> None:
    async with World() as world:
        headers = {**await admin(world), "Idempotency-Key": "once"}
        body = {"name": "ci", "roles": ["viewer"]}
        first = (await world.client.post(KEYS, json=body, headers=headers)).json()
        again = (await world.client.post(KEYS, json=body, headers=headers)).json()
        assert first == again
        assert len(world.rows("api_keys")) == 1


async def test_a_revoked_key_stops_at_once() -> None:
    async with World() as world:
        headers = await admin(world)
        body = {"name": "ci", "roles": ["admin"]}
        issued = (await world.client.post(KEYS, json=body, headers=headers)).json()
        own = {"X-Wax-Key": issued["key"]}
        assert (await world.client.get(KEYS, headers=own)).status_code == 200
        for _ in range(2):
            gone = await world.client.delete(f"{KEYS}/{issued['id']}", headers=headers)
            assert gone.status_code == 204
        assert (await world.client.get(KEYS, headers=own)).status_code == 401
        changed = await world.client.patch(
            f"{KEYS}/{issued['id']}", json={"name": "x"}, headers=headers
        )
        assert changed.status_code == 409


async def test_a_key_is_changed_and_its_roles_count_at_once() -> None:
    async with World() as world:
        headers = await admin(world)
        body = {"name": "ci", "roles": ["admin"], "expires_at": "2033-01-01T00:00:00Z"}
        issued = (await world.client.post(KEYS, json=body, headers=headers)).json()
        own = {"Authorization": f"Bearer {issued['key']}"}
        assert (await world.client.get(KEYS, headers=own)).status_code == 200
        path = f"{KEYS}/{issued['id']}"
        changes = {"name": "cd", "roles": ["viewer"], "expires_at": None}
        changed = await world.client.patch(path, json=changes, headers=headers)
        assert changed.status_code == 200
        item = changed.json()
        assert (item["name"], item["roles"], item["expires_at"]) == ("cd", ["viewer"], None)
        assert (await world.client.get(KEYS, headers=own)).status_code == 403


async def works(world: World, secret: str) -> bool:
    return (await world.client.get(KEYS, headers={"X-Wax-Key": secret})).status_code == 200


async def test_a_rotated_key_works_with_both_secrets_until_the_grace_is_over() -> None:
    async with World() as world:
        headers = await admin(world)
        body = {"name": "ci", "roles": ["admin"]}
        issued = (await world.client.post(KEYS, json=body, headers=headers)).json()
        assert await works(world, issued["key"])
        path, once = f"{KEYS}/{issued['id']}/rotate", {**headers, "Idempotency-Key": "r"}
        answer = await world.client.post(path, json={"grace_seconds": 60}, headers=once)
        rotated = answer.json()
        assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
        assert (await world.client.post(path, json={"grace_seconds": 60}, headers=once)).json() == (
            rotated
        )
        assert (rotated["id"], rotated["roles"]) == (issued["id"], ["admin"])
        assert rotated["key"].startswith(rotated["prefix"]) and rotated["key"] != issued["key"]
        assert await works(world, issued["key"]) and await works(world, rotated["key"])
        listed = await world.client.get(KEYS, headers=headers)
        [item] = listed.json()["data"]
        assert item["prefix"] == rotated["prefix"]
        assert item["previous_valid_until"] == rotated["previous_valid_until"]
        assert item["previous_valid_until"] is not None
        effects = world.bus._workspace.effects
        recorded = repr((effects.events, effects.audit, effects.outcomes))
        assert rotated["key"] not in recorded and rotated["key"] not in listed.text
        world.clock.advance(60)
        assert not await works(world, issued["key"])
        assert await works(world, rotated["key"])


async def test_a_leaked_secret_is_replaced_at_once_and_older_ones_stop() -> None:
    async with World() as world:
        headers = await admin(world)
        body = {"name": "ci", "roles": ["admin"]}
        issued = (await world.client.post(KEYS, json=body, headers=headers)).json()
        path = f"{KEYS}/{issued['id']}/rotate"
        second = (await world.client.post(path, json={}, headers=headers)).json()["key"]
        assert await works(world, issued["key"])
        answer = await world.client.post(path, json={"grace_seconds": 0}, headers=headers)
        third = answer.json()["key"]
        assert [await works(world, key) for key in (issued["key"], second, third)] == [
            False,
            False,
            True,
        ]
        too_long = await world.client.post(path, json={"grace_seconds": 604_801}, headers=headers)
        assert too_long.status_code == 422
        # Revoked is revoked, whichever secret it is.
        await world.client.delete(f"{KEYS}/{issued['id']}", headers=headers)
        assert not await works(world, third)
        gone = await world.client.post(path, json={}, headers=headers)
        assert gone.status_code == 409


async def test_the_last_use_is_told_once_in_ten_minutes_and_shown() -> None:
    async with World() as world:
        uses = KeyUses(world.bus, world.clock)
        world.app = build_app(world.services, ROUTES, uses)
        world.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app=world.app), base_url="http://weir.test"
        )
        headers = await admin(world)
        body = {"name": "ci", "roles": ["admin"]}
        issued = (await world.client.post(KEYS, json=body, headers=headers)).json()

        async def last_used() -> str | None:
            await uses.flush()
            [item] = (await world.client.get(KEYS, headers=headers)).json()["data"]
            return str(item["last_used_at"]) if item["last_used_at"] else None

        assert await last_used() is None
        for _ in range(3):
            assert await works(world, issued["key"])
        first = await last_used()
        assert first == iso(world.clock.now())
        world.clock.advance(300)
        assert await works(world, issued["key"])
        assert await last_used() == first
        world.clock.advance(301)
        assert await works(world, issued["key"])
        assert await last_used() == iso(world.clock.now())
        assert len(world.bus.emitted(ApiKeyUsed)) == 2


async def test_a_key_stops_at_its_expiry() -> None:
    async with World() as world:
        headers = await admin(world)
        body = {"name": "ci", "roles": ["admin"], "expires_at": "2023-11-15T00:00:00Z"}
        issued = (await world.client.post(KEYS, json=body, headers=headers)).json()
        own = {"X-Wax-Key": issued["key"]}
        assert (await world.client.get(KEYS, headers=own)).status_code == 200
        world.clock.advance(86_400)
        assert (await world.client.get(KEYS, headers=own)).status_code == 401


@pytest.mark.parametrize(
    "body",
    [
        {"name": "", "roles": ["admin"]},
        {"name": "ci", "roles": []},
        {"name": "ci", "roles": ["root"]},
        {"name": "ci", "roles": ["admin"], "scopes": ["everything"]},
        {"name": "ci", "roles": ["admin"], "expires_at": "tomorrow"},
        {"roles": ["admin"]},
    ],
)
async def test_a_key_of_another_shape_is_422(body: dict[str, object]) -> None:
    async with World() as world:
        response = await world.client.post(KEYS, json=body, headers=await admin(world))
        assert response.status_code == 422
        assert response.json()["error"]["code"] == "validation_error"


async def test_a_key_that_has_expired_already_is_400() -> None:
    async with World() as world:
        body = {"name": "ci", "roles": ["admin"], "expires_at": "2020-01-01T00:00:00Z"}
        response = await world.client.post(KEYS, json=body, headers=await admin(world))
        assert response.status_code == 400


async def test_keys_are_paged_newest_first() -> None:
    async with World() as world:
        headers = await admin(world)
        made = []
        for number in range(5):
            world.clock.advance(1)
            body = {"name": f"key {number}", "roles": ["viewer"]}
            made.append((await world.client.post(KEYS, json=body, headers=headers)).json()["id"])
        seen: list[str] = []
        cursor = ""
        for expected_more in (True, True, False):
            params = {"limit": "2", "cursor": cursor}
            page = (await world.client.get(KEYS, params=params, headers=headers)).json()
            seen += [item["id"] for item in page["data"]]
            assert page["has_more"] is expected_more
            cursor = page["next_cursor"]
        assert cursor is None
        assert seen == made[::-1]


@pytest.mark.parametrize("cursor", ["x", "!!!!", "MTp4eA", "LTE6eA=="])
async def test_a_cursor_that_is_none_is_refused(cursor: str) -> None:
    async with World() as world:
        response = await world.client.get(
            KEYS, params={"cursor": cursor}, headers=await admin(world)
        )
        assert response.status_code == 400


async def test_another_tenants_key_does_not_exist() -> None:
    async with World() as world:
        headers = await admin(world)
        body = {"name": "ci", "roles": ["viewer"]}
        issued = (await world.client.post(KEYS, json=body, headers=headers)).json()
        eve = await admin(world, OTHER_TENANT, "eve@example.com")
        path = f"{KEYS}/{issued['id']}"
        assert (await world.client.patch(path, json={}, headers=eve)).status_code == 404
        assert (await world.client.delete(path, headers=eve)).status_code == 404
        assert (await world.client.get(KEYS, headers=eve)).json()["data"] == []


async def test_only_an_admin_may() -> None:
    async with World() as world:
        await world.register(ADA, roles=["developer", "billing", "compute", "viewer"])
        headers = bearer(await world.log_in(ADA))
        for method, path in [
            ("GET", KEYS),
            ("POST", KEYS),
            ("PATCH", f"{KEYS}/key_1"),
            ("DELETE", f"{KEYS}/key_1"),
        ]:
            response = await world.client.request(method, path, headers=headers, json={})
            assert response.status_code == 403
            assert (await world.client.request(method, path)).status_code == 401
