"""One role matrix for every surface: each route that people or keys call names its roles."""

import pytest

from api.app import ROUTES
from api.routing import Route, Who
from schemas.identity.roles import ROLES
from tests.api.harness import Harness

# What a person does to their own account, and what everybody may ask.
OWN = ("/api/v1/auth/", "/commands/", "/api/v1/commands/")
WITH_ROLES = [
    route
    for route in ROUTES
    if route.who is not Who.PUBLIC and Who.AGENT not in route.who and not route.path.startswith(OWN)
]


def name(route: Route) -> str:
    return f"{route.method} {route.path}"


@pytest.mark.parametrize("route", WITH_ROLES, ids=name)
def test_a_route_names_known_roles_and_an_admin_may_always(route: Route) -> None:
    assert route.roles, "name its roles (api.roles)"
    assert route.roles <= set(ROLES)
    assert "admin" in route.roles


@pytest.mark.parametrize("route", WITH_ROLES, ids=name)
def test_a_viewer_never_writes(route: Route) -> None:
    if route.method in ("POST", "PUT", "PATCH", "DELETE"):
        assert "viewer" not in route.roles


@pytest.mark.parametrize("route", WITH_ROLES, ids=name)
async def test_a_caller_without_the_role_is_403(route: Route) -> None:
    path = route.path.replace("{", "").replace("}", "")
    async with Harness() as api:
        for headers in (api.human(roles=()), api.key(roles=())):
            response = await api.client.request(route.method, path, headers=headers)
            assert response.status_code == 403


async def test_what_agents_write_too_needs_a_role_of_a_person() -> None:
    shared = [
        route
        for route in ROUTES
        if route.who is Who.ANY and route.unsafe and not route.path.startswith(OWN)
    ]
    assert shared
    async with Harness() as api:
        for route in shared:
            path = route.path.replace("{", "").replace("}", "")
            for headers, status in (
                (api.human(roles=("viewer",)), 403),
                (api.human(roles=("developer",)), 404),
                (api.agent(), 404),
            ):
                body = {"body": "x"}
                answer = await api.client.request(route.method, path, headers=headers, json=body)
                assert (name(route), answer.status_code) == (name(route), status)
