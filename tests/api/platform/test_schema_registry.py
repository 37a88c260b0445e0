"""The Schema-Registry-compatible routes: what its clients send and expect."""

import json
from typing import Any

import fastavro
import pytest

from schemas.codec import load_schemas
from tests.api.harness import Harness

BASE = "/schema-registry"
AUDIT = "weir.platform.audit_recorded_v1"


async def _get(app: Harness, path: str, **query: Any) -> Any:
    response = await app.client.get(BASE + path, params=query)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("application/vnd.schemaregistry.v1+json")
    return response.json()


async def test_subjects_versions_and_ids_lead_to_the_same_schema() -> None:
    async with Harness() as app:
        subjects = await _get(app, "/subjects")
        assert {AUDIT, f"audit-{AUDIT}", "audit-value"} <= set(subjects)
        assert await _get(app, f"/subjects/{AUDIT}/versions") == [1]
        latest = await _get(app, f"/subjects/{AUDIT}/versions/latest")
        assert latest == await _get(app, f"/subjects/{AUDIT}/versions/1")
        assert (latest["subject"], latest["version"]) == (AUDIT, 1)
        fastavro.parse_schema(json.loads(latest["schema"]))
        by_id = await _get(app, f"/schemas/ids/{latest['id']}")
        assert by_id == latest
        value = await _get(app, f"/schemas/ids/{latest['id']}", subject="audit-value")
        assert value == {**latest, "subject": "audit-value"}
        bare = await _get(app, f"/schemas/ids/{latest['id']}/schema")
        assert bare == json.loads(latest["schema"])
        assert bare == await _get(app, "/subjects/audit-value/versions/latest/schema")
        places = await _get(app, f"/schemas/ids/{latest['id']}/versions")
        assert {"subject": "audit-value", "version": 1} in places
        assert await _get(app, f"/schemas/ids/{latest['id']}/subjects") == [
            place["subject"] for place in places
        ]
        assert await _get(app, f"/subjects/{AUDIT}/versions/1/referencedby") == []


async def test_every_registered_schema_is_served_as_it_was_written_with() -> None:
    async with Harness() as app:
        for version in load_schemas():
            answer = await _get(app, f"/schemas/ids/{version.id}")
            assert json.loads(answer["schema"]) == version.schema


async def test_lists_are_filtered_and_paged() -> None:
    async with Harness() as app:
        audit = await _get(app, "/subjects", subjectPrefix="audit-")
        assert audit == ["audit-value", f"audit-{AUDIT}"]
        assert await _get(app, "/subjects", subjectPrefix="audit-", offset=1) == audit[1:]
        assert await _get(app, "/subjects", subjectPrefix="audit-", limit=1) == audit[:1]
        assert await _get(app, "/subjects", subjectPrefix="audit-", limit=-1) == audit


async def test_the_small_things_that_clients_ask_for() -> None:
    async with Harness() as app:
        assert await _get(app, "/") == {}
        assert await _get(app, "/schemas/types") == ["AVRO"]
        assert await _get(app, "/config") == {"compatibilityLevel": "BACKWARD"}
        assert await _get(app, "/config/audit-value") == {"compatibilityLevel": "BACKWARD"}
        assert await _get(app, "/mode") == {"mode": "READONLY"}
        assert await _get(app, "/mode/audit-value") == {"mode": "READONLY"}
        assert await _get(app, "/contexts") == ["."]


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/subjects/nothing/versions", 404, 40401),
        ("/subjects/nothing/versions/latest", 404, 40401),
        ("/subjects/nothing/versions/1/schema", 404, 40401),
        ("/subjects/audit-value/versions/2", 404, 40402),
        ("/subjects/audit-value/versions/0", 422, 42202),
        ("/subjects/audit-value/versions/first", 422, 42202),
        ("/subjects/audit-value/versions/99999999999999999999", 422, 42202),
        ("/schemas/ids/99999999", 404, 40403),
        ("/schemas/ids/abc", 404, 40403),
        ("/schemas/ids/-1/schema", 404, 40403),
        ("/schemas/ids/99999999/versions", 404, 40403),
        ("/config/nothing", 404, 40401),
        ("/mode/nothing", 404, 40401),
        ("/nowhere", 404, 404),
    ],
)
async def test_what_is_not_there_has_the_registrys_error(path: str, status: int, code: int) -> None:
    async with Harness() as app:
        response = await app.client.get(BASE + path)
        assert response.status_code == status
        assert response.json()["error_code"] == code
        assert response.json()["message"]


async def _post(app: Harness, path: str, schema: Any, **more: Any) -> tuple[int, Any]:
    body = {"schema": schema if isinstance(schema, str) else json.dumps(schema), **more}
    response = await app.client.post(
        BASE + path,
        content=json.dumps(body),
        headers={"content-type": "application/vnd.schemaregistry.v1+json"},
    )
    return response.status_code, response.json()


async def test_a_registered_schema_is_found_whatever_its_spelling() -> None:
    async with Harness() as app:
        latest = await _get(app, "/subjects/audit-value/versions/latest")
        schema = json.loads(latest["schema"])
        assert await _post(app, "/subjects/audit-value", latest["schema"]) == (200, latest)
        schema.pop("doc", None)
        respelled = json.dumps(dict(reversed(schema.items())), indent=2)
        assert await _post(app, "/subjects/audit-value", respelled, schemaType="AVRO") == (
            200,
            latest,
        )
        assert await _post(app, "/subjects/audit-value/versions", schema) == (
            200,
            {"id": latest["id"]},
        )


async def test_another_schema_is_neither_found_nor_taken() -> None:
    other = {"type": "record", "name": "other", "fields": []}
    async with Harness() as app:
        status, error = await _post(app, "/subjects/audit-value", other)
        assert (status, error["error_code"]) == (404, 40403)
        status, error = await _post(app, "/subjects/audit-value/versions", other)
        assert (status, error["error_code"]) == (422, 42205)
        status, error = await _post(app, "/subjects/nothing", other)
        assert (status, error["error_code"]) == (404, 40401)
        status, error = await _post(app, "/subjects/nothing/versions", other)
        assert (status, error["error_code"]) == (422, 42205)


@pytest.mark.parametrize("schema", ["", "{", "[1]", '"no such type"', '{"type": "record"}'])
async def test_what_is_no_schema_is_refused(schema: str) -> None:
    async with Harness() as app:
        status, error = await _post(app, "/subjects/audit-value", schema)
        assert (status, error["error_code"]) == (422, 42201)


async def test_other_kinds_of_schemas_are_refused() -> None:
    async with Harness() as app:
        status, error = await _post(app, "/subjects/audit-value", "{}", schemaType="JSON")
        assert (status, error["error_code"]) == (422, 42201)


async def test_a_body_of_the_wrong_shape_is_refused() -> None:
    async with Harness() as app:
        response = await app.client.post(BASE + "/subjects/audit-value", content=b'{"schema": 5}')
        assert response.status_code == 422
        assert set(response.json()) == {"error_code", "message"}
