"""The conventions of the document, for every endpoint of its surface, told from the routes."""

import base64
from typing import Any

import httpx
import pytest

from api.app import ROUTES
from api.openapi import build_openapi, operation_id, statuses_of
from api.problems import FHE
from api.routing import Route, Who
from schemas.identity.roles import ROLES
from tests.api.harness import Harness

DOCUMENT = build_openapi(ROUTES)
SURFACE = [route for route in ROUTES if route.dialect is FHE]
LISTS = [route for route in SURFACE if "cursor" in getattr(route.query, "__struct_fields__", ())]
PUBLIC = {
    "GET /api/v1/health",
    "GET /api/v1/models",
    "GET /api/v1/tfhe/pricing",
    "POST /api/v1/onboarding/temp-key",
    "POST /api/v1/billing/stripe_webhook",
}
# Those of the document; 202 for jobs that are waited for no longer, 405 and 415 as HTTP has them.
STATUSES = {
    200,
    201,
    202,
    204,
    400,
    401,
    402,
    403,
    404,
    405,
    409,
    413,
    415,
    422,
    429,
    500,
    502,
    503,
}


def operation(route: Route) -> dict[str, Any]:
    found: dict[str, Any] = DOCUMENT["paths"][route.path][route.method.lower()]
    return found


def parameters(route: Route) -> dict[str, Any]:
    return {item["name"]: item for item in operation(route).get("parameters", [])}


def every(routes: list[Route]) -> Any:
    return pytest.mark.parametrize("route", routes, ids=operation_id)


def test_put_is_not_used_and_only_the_documents_endpoints_are_public() -> None:
    assert {route.method for route in SURFACE} == {"GET", "POST", "PATCH", "DELETE"}
    public = {f"{route.method} {route.path}" for route in SURFACE if route.who is Who.PUBLIC}
    assert public == PUBLIC


@every(SURFACE)
def test_an_endpoint_keeps_to_the_statuses_and_says_who_may_call(route: Route) -> None:
    assert set(statuses_of(route)) <= STATUSES
    if route.who is not Who.PUBLIC:
        assert set(operation(route)["x-roles"]) <= set(ROLES)
        assert {401, 403, 429} <= set(statuses_of(route))
    if route.method in ("POST", "PATCH"):
        assert "Idempotency-Key" in parameters(route)


@every(LISTS)
def test_a_list_is_paged_by_an_opaque_cursor(route: Route) -> None:
    limit = parameters(route)["limit"]["schema"]
    assert (limit["minimum"], limit["maximum"], limit["default"]) == (1, 100, 20)
    assert 400 in statuses_of(route), "a cursor of another list is refused"


@every([route for route in LISTS if "{" not in route.path])
async def test_a_list_refuses_a_limit_or_a_cursor_that_is_none(route: Route) -> None:
    async with Harness() as app:
        headers = app.key()
        for query in ({"limit": "0"}, {"limit": "101"}, {"limit": "x"}):
            answer = await app.client.get(route.path, params=query, headers=headers)
            assert answer.status_code == 422, answer.text
        for cursor in ("!", base64.b64encode(b"x").decode(), base64.b64encode(b"-1:k").decode()):
            answer = await app.client.get(route.path, params={"cursor": cursor}, headers=headers)
            assert answer.status_code == 400, answer.text
            assert answer.json()["error"]["request_id"] == answer.headers["x-request-id"]


async def test_a_key_over_40_mb_is_refused_before_it_is_read() -> None:
    async with Harness() as app:
        read = 0

        async def body() -> Any:
            nonlocal read
            for _ in range(64):
                read += 1
                yield bytes(1 << 20)

        async def upload(**declared: str) -> httpx.Response:
            octets = {**app.key(), "content-type": "application/octet-stream", **declared}
            return await app.client.post("/api/v1/keys", content=body(), headers=octets)

        answer = await upload(**{"content-length": str(64 << 20)})
        assert (answer.status_code, read) == (413, 0)
        # Without a declared length, what does not begin as a key is not read to its end.
        answer = await upload()
        assert (answer.status_code, read) == (422, 1)


@pytest.mark.parametrize("status", [200, 401, 403, 404, 405, 422])
async def test_every_answer_tells_of_the_rate_limit(status: int) -> None:
    async with Harness(changes={"rate_limit_per_minute": 60, "rate_limit_burst": 60}) as app:
        asked: dict[int, tuple[str, str, dict[str, str]]] = {
            200: ("GET", "/api/v1/keys", app.key()),
            401: ("GET", "/api/v1/keys", {}),
            403: ("POST", "/api/v1/keys/generate", app.key(roles=("viewer",))),
            404: ("GET", "/api/v1/keys/ek_none", app.key()),
            405: ("PUT", "/api/v1/keys", app.key()),
            422: ("GET", "/api/v1/keys?limit=0", app.key()),
        }
        method, path, headers = asked[status]
        answer = await app.client.request(method, path, headers=headers)
        assert answer.status_code == status, answer.text
        for name in ("limit", "remaining", "reset"):
            assert int(answer.headers[f"ratelimit-{name}"]) >= 0
