"""What holds for every declared route, also for those that are declared tomorrow."""

from typing import Any

import httpx
import jsonschema
import pytest

from api.app import ROUTES
from api.credentials import DIRECTORY
from api.openapi import build_openapi, operation_id
from api.problems import Dialect, dialect_of
from api.routing import Route
from infra.objects import Objects
from tests.api.examples import example
from tests.api.harness import Harness

DOCUMENT = build_openapi(ROUTES)
CLOSED = [route for route in ROUTES if route.who.kinds]
BY_ID = [route for route in CLOSED if "{" in route.path]
EVERY_ROLE = frozenset({"owner", "admin"}).union(*(route.roles for route in ROUTES))
EVERY_SCOPE = frozenset().union(*(route.scopes for route in ROUTES))

# Their parameter names something that is made by naming it: the operation, and why.
NAMES_ANYTHING = {
    "put_api_v1_observe_model_costs_by_model_id": "a cost is set for any model",
}


def every(routes: list[Route]) -> Any:
    """Parametrise over routes, each named as in the OpenAPI document."""
    return pytest.mark.parametrize("route", routes, ids=operation_id)


def path_of(route: Route, value: str = "unknown_1") -> str:
    """The route's path with every parameter set."""
    return "/".join(value if part.startswith("{") else part for part in route.path.split("/"))


def other_slash(path: str) -> str:
    """The same path with, or without, its last slash."""
    return path.rstrip("/") or "/" if path.endswith("/") else path + "/"


def body_of(route: Route) -> dict[str, Any]:
    """What a request needs to get past its decoding."""
    operation = DOCUMENT["paths"][route.path][route.method.lower()]
    arguments: dict[str, Any] = {}
    query = {
        item["name"]: example(item["schema"], DOCUMENT)
        for item in operation.get("parameters", [])
        if item["in"] == "query" and item["required"]
    }
    if query:
        arguments["params"] = query
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        if kind == "application/json":
            arguments["json"] = example(content["schema"], DOCUMENT)
        else:
            arguments["content"] = b"x"
    return arguments


def credentials(app: Harness, **changes: Any) -> dict[str, dict[str, str]]:
    """A credential of each kind that may do everything its kind may."""
    rights = {"roles": EVERY_ROLE, "scopes": EVERY_SCOPE}
    return {
        "api_key": app.key(**rights, **changes),
        "agent": app.agent(**changes),
        "user": app.human(**rights),
    }


def check_error(answer: httpx.Response, status: int, dialect: Dialect) -> None:
    """The answer is an error of this status in this dialect, with what all answers have."""
    assert answer.status_code == status, answer.text
    jsonschema.validate(answer.json(), dialect.schema)
    assert answer.headers["content-type"] == "application/json"
    for name in ("x-request-id", "ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"):
        assert name in answer.headers


@pytest.fixture
def app() -> Harness:
    harness = Harness()
    harness.services.objects = Objects("memory:///")
    return harness


@every(CLOSED)
async def test_without_a_credential_nobody_gets_in(app: Harness, route: Route) -> None:
    async with app:
        for path in (path_of(route), other_slash(path_of(route))):
            answer = await app.client.request(route.method, path, content=b"{")
            check_error(answer, 401, route.dialect)


@every(CLOSED)
async def test_a_wrong_credential_is_as_good_as_none(app: Harness, route: Route) -> None:
    async with app:
        credentials(app)
        wrong = [
            {"X-Wax-Key": "wax_sk_" + "0" * 52},
            {"Authorization": "Bearer wax_sk_" + "0" * 52},
            {"Authorization": "Bearer wr_" + "0" * 52},
            {"Authorization": "Bearer eyJhbGciOiJub25lIn0.e30."},
            {"Authorization": "Bearer nonsense"},
            {"Cookie": "sessionid=nonsense"},
        ]
        for headers in wrong:
            answer = await app.client.request(
                route.method, path_of(route), headers=headers, **body_of(route)
            )
            check_error(answer, 401, route.dialect)


@every(CLOSED)
async def test_a_revoked_credential_is_as_good_as_none(app: Harness, route: Route) -> None:
    async with app:
        revoked = credentials(app, revoked=True)
        for session in app.credentials.sessions.values():
            app.services.credential_cache.drop("session", session.id)
        app.credentials.sessions.clear()
        for headers in revoked.values():
            answer = await app.client.request(
                route.method, path_of(route), headers=headers, **body_of(route)
            )
            check_error(answer, 401, route.dialect)


@every(CLOSED)
async def test_the_wrong_kind_of_actor_is_turned_away(app: Harness, route: Route) -> None:
    async with app:
        for kind, headers in credentials(app).items():
            if kind not in route.who.kinds:
                answer = await app.client.request(
                    route.method, path_of(route), headers=headers, **body_of(route)
                )
                check_error(answer, 403, route.dialect)
        for name in ("roles", "scopes"):
            if getattr(route, name):
                lacking = app.key(roles=(), scopes=())
                if "api_key" not in route.who.kinds:
                    lacking = app.human(roles=(), scopes=())
                answer = await app.client.request(route.method, path_of(route), headers=lacking)
                check_error(answer, 403, route.dialect)


@every(CLOSED)
async def test_an_agent_that_nobody_has_claimed_reads_about_itself_and_no_more(
    app: Harness, route: Route
) -> None:
    async with app:
        unclaimed = app.agent(DIRECTORY, claimed=False)
        answer = await app.client.request(
            route.method, path_of(route), headers=unclaimed, **body_of(route)
        )
        itself = operation_id(route) == "get_v1_agents_me"
        check_error(answer, 404 if itself else 403, route.dialect)


@every(BY_ID)
async def test_an_unknown_id_is_not_found(app: Harness, route: Route) -> None:
    status = 200 if operation_id(route) in NAMES_ANYTHING else 404
    async with app:
        for kind, headers in credentials(app).items():
            if kind in route.who.kinds:
                answer = await app.client.request(
                    route.method, path_of(route), headers=headers, **body_of(route)
                )
                if status == 404:
                    check_error(answer, 404, route.dialect)
                assert answer.status_code == status, answer.text


@every(ROUTES)
async def test_neither_slash_redirects_nor_differs(app: Harness, route: Route) -> None:
    async with app:
        path = path_of(route)
        statuses = []
        for form in (path, other_slash(path)):
            answer = await app.client.request("OPTIONS", form)
            statuses.append((answer.status_code, answer.headers["allow"]))
        assert statuses[0] == statuses[1]
        assert statuses[0][0] == 204
        assert route.method in statuses[0][1].split(", ")


@every(ROUTES)
async def test_another_method_is_told_what_is_allowed(app: Harness, route: Route) -> None:
    async with app:
        answer = await app.client.request("TRACE", path_of(route))
        check_error(answer, 405, dialect_of(path_of(route)))
        assert route.method in answer.headers["allow"]


@every(ROUTES)
def test_a_route_speaks_the_dialect_of_its_prefix(route: Route) -> None:
    expected = dialect_of(route.path)
    assert route.dialect is expected or route.path.startswith("/schema-registry")


@every(ROUTES)
def test_a_route_is_described(route: Route) -> None:
    assert route.summary and route.tags
    assert route.method in ("GET", "POST", "PUT", "PATCH", "DELETE")
