"""The OpenAPI document: valid, stable, and true to the routes."""

import json
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from api.app import ROUTES
from api.openapi import build_openapi, operation_id, statuses_of
from api.problems import FHE, SERVICE, WAITROOM
from api.routing import Route, Who
from infra.gen import openapi_files
from tests.api.sample import ROUTES as SAMPLE

Json = dict[str, Any]


@pytest.fixture(scope="module")
def sample() -> Json:
    return build_openapi(SAMPLE)


def operations(document: Json) -> list[Json]:
    return [row for methods in document["paths"].values() for row in methods.values()]


@pytest.mark.parametrize("routes", [ROUTES, SAMPLE], ids=["ours", "sample"])
def test_the_document_is_valid_openapi(routes: list[Route]) -> None:
    document = json.loads(json.dumps(build_openapi(routes)))
    assert document["openapi"].startswith("3.1")
    assert [str(error) for error in OpenAPIV31SpecValidator(document).iter_errors()] == []


def test_the_document_does_not_depend_on_the_order_of_the_routes() -> None:
    forth, back = build_openapi(ROUTES), build_openapi(list(reversed(ROUTES)))
    assert forth["paths"] == back["paths"]
    assert json.dumps(forth["components"]["schemas"], sort_keys=True) == json.dumps(
        back["components"]["schemas"], sort_keys=True
    )


def test_the_file_that_is_generated_holds_every_route() -> None:
    ((path, text),) = openapi_files().items()
    assert path.name == "openapi.json"
    document = json.loads(text)
    named = {row["operationId"] for row in operations(document)}
    assert named == {operation_id(route) for route in ROUTES}
    assert len(named) == len(ROUTES)


def test_every_operation_says_who_may_call_and_what_can_come_back(sample: Json) -> None:
    for route in SAMPLE:
        row = sample["paths"][route.path][route.method.lower()]
        assert {int(status) for status in row["responses"]} == set(statuses_of(route))
        schemes = {name for entry in row["security"] for name in entry}
        assert ("agentKey" in schemes) == ("agent" in route.who.kinds)
        assert ("humanToken" in schemes) == ("user" in route.who.kinds)
        assert ("apiKey" in schemes) == ("api_key" in route.who.kinds)


def test_statuses_follow_from_the_row() -> None:
    rows = {operation_id(route): statuses_of(route) for route in SAMPLE}
    assert rows["post_v1_sums_by_id"] == [
        201, 400, 401, 403, 404, 409, 413, 415, 422, 429, 500, 503,
    ]  # fmt: skip
    assert rows["get_api_v1_bug"] == [200, 401, 403, 429, 500, 503]
    assert rows["post_api_v1_open"] == [200, 413, 415, 422, 429, 500, 503]
    assert rows["delete_v1_sums_by_id"][0] == 204


def test_parameters_are_typed_and_lists_repeat(sample: Json) -> None:
    row = sample["paths"]["/api/v1/echo/{id}"]["get"]
    found = {item["name"]: item for item in row["parameters"]}
    assert found["id"]["in"] == "path" and found["id"]["required"]
    assert found["limit"]["schema"] == {
        "type": "integer",
        "minimum": 1,
        "maximum": 100,
        "default": 20,
    }
    assert found["tag"]["schema"]["type"] == "array"
    assert "ListQuery" not in sample["components"]["schemas"]
    views = sample["paths"]["/api/v1/observability/views"]["get"]
    assert {"min_position", "X-Min-Log-Position"} <= {item["name"] for item in views["parameters"]}


def test_bodies_are_described_and_needed_only_when_a_field_is(sample: Json) -> None:
    add = sample["paths"]["/v1/sums/{id}"]["post"]["requestBody"]
    assert add["required"]
    assert add["content"]["application/json"]["schema"]["$ref"].endswith("/AddBody")
    echo = sample["paths"]["/api/v1/echo/{id}"]["post"]["requestBody"]
    assert not echo["required"]
    upload = sample["paths"]["/api/v1/keys"]["post"]["requestBody"]
    assert list(upload["content"]) == ["application/octet-stream"]


def test_errors_have_the_shape_of_their_dialect(sample: Json) -> None:
    responses = sample["components"]["responses"]
    row = sample["paths"]["/v1/sums/{id}"]["post"]["responses"]
    assert row["422"] == {"$ref": "#/components/responses/waitroom_422"}
    schema = responses["waitroom_422"]["content"]["application/json"]["schema"]
    assert schema == {"$ref": "#/components/schemas/WaitroomError"}
    assert "Retry-After" in responses["waitroom_429"]["headers"]
    assert sample["components"]["schemas"]["FheError"] == FHE.schema
    for response in responses.values():
        assert "X-Request-Id" in response["headers"]


def test_writes_take_an_idempotency_key_and_tell_their_position(sample: Json) -> None:
    for route in SAMPLE:
        row = sample["paths"][route.path][route.method.lower()]
        names = {item["name"] for item in row.get("parameters", [])}
        assert ("Idempotency-Key" in names) == route.unsafe
        success = row["responses"][str(route.status)]
        assert ("X-Log-Position" in success["headers"]) == route.unsafe
    public = sample["paths"]["/api/v1/open"]["post"]["parameters"][0]
    assert public["schema"]["minLength"] == 32


async def handler(call: object) -> None:
    """Never called."""


def row(path: str = "/v1/x", **more: Any) -> Route:
    values = {"dialect": WAITROOM, "who": Who.HUMAN, "tags": ("t",), "summary": "s", **more}
    return Route("GET", path, handler, **values)


def test_a_mistake_in_a_row_is_found_when_the_document_is_made() -> None:
    with pytest.raises(ValueError, match="declared twice"):
        build_openapi([row(), row()])
    with pytest.raises(ValueError, match="statuses that we don't use"):
        build_openapi([row(refusals=(418,))])


def test_roles_and_scopes_are_said() -> None:
    document = build_openapi([row(roles=("owner", "admin"), scopes=("read",), dialect=SERVICE)])
    operation = document["paths"]["/v1/x"]["get"]
    assert operation["x-roles"] == ["admin"]
    about = operation["description"]
    assert about == "Needs the role admin or owner.\n\nNeeds the scopes read."
