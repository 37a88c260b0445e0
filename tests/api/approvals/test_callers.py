"""Who may call what: each route with no, a wrong and the wrong kind of credential."""

from typing import Any

import pytest

from api.approvals import ROUTES
from api.routing import Route, Who
from tests.api.approvals.conftest import Waitroom

BODIES: dict[str, Any] = {
    "/v1/rooms": {"name": "x"},
    "/v1/agents/register": {"name": "x"},
    "/v1/rooms/{room}/check-in": {"action": "x"},
    "/v1/rooms/{room}/tasks": {"action": "x"},
    "/v1/check-ins/{id}/messages": {"body": "x"},
    "/v1/agents/claim": {"claim_token": "x"},
}
CLOSED = [route for route in ROUTES if route.who is not Who.PUBLIC]


def named(route: Route) -> str:
    return f"{route.method} {route.path}"


async def call(waitroom: Waitroom, route: Route, headers: dict[str, str]) -> Any:
    path = route.path
    for name in ("room", "id", "agent"):
        path = path.replace("{" + name + "}", "none")
    body = BODIES.get(route.path, {}) if route.body is not None else None
    return await waitroom.call(route.method, path, headers, body)


@pytest.mark.parametrize("route", CLOSED, ids=named)
async def test_without_a_good_credential_nobody_is_let_in(waitroom: Waitroom, route: Route) -> None:
    for headers in ({}, {"Authorization": "Bearer wr_wrong"}, {"Authorization": "Bearer eyJ.x.y"}):
        answer = await call(waitroom, route, headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "UNAUTHORIZED")


@pytest.mark.parametrize("route", CLOSED, ids=named)
async def test_the_wrong_kind_of_actor_is_forbidden(waitroom: Waitroom, route: Route) -> None:
    harness = waitroom.harness
    wrong = [harness.key()]
    if Who.AGENT not in route.who:
        wrong.append(harness.agent())
    if Who.HUMAN not in route.who:
        wrong.append(harness.human())
    for headers in wrong:
        answer = await call(waitroom, route, headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "FORBIDDEN")
