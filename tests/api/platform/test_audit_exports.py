"""Audit exports over HTTP: asked for, followed, downloaded by their tenant alone."""

import hashlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from commands.platform.audit_export import CompleteAuditExport, FailAuditExport
from infra.clock import parse_iso
from infra.objects import Objects
from projections.platform.audit_exports import AUDIT_EXPORTS, reduce
from projections.statements import Put, Set
from schemas.envelope import SYSTEM
from schemas.platform.audit_export import AuditExportRequested
from streams.bus import CommandRequest
from streams.effects import Recorded
from tests.api.harness import OTHER_TENANT, TENANT, Harness

PATH = "/waxell/v1/audit/export/"
FILE = b'{"records": [\n]}\n'
MANIFEST = b'{"records": 0}\n'


class World(Harness):
    """The app, with the exports' read model and the object store in memory."""

    def __init__(self) -> None:
        super().__init__(apply=self.project)
        self.rows: dict[tuple[str, str], dict[str, Any]] = {}
        self.reads.when("audit_exports", lambda *key: [self.rows[key]] if key in self.rows else [])
        self.objects = Objects("memory:///")
        self.services.objects = self.objects

    async def project(self, recorded: Sequence[Recorded]) -> None:
        for envelope, event in recorded:
            for statement in reduce(event, envelope):
                key = (statement.key["tenant"], statement.key["export_id"])
                empty = dict.fromkeys(AUDIT_EXPORTS.columns) | dict(statement.key)
                if isinstance(statement, Put):
                    self.rows[key] = empty | dict(statement.values)
                elif isinstance(statement, Set):
                    self.rows[key] |= dict(statement.values)

    async def ask(self, body: dict[str, Any], **headers: str) -> Any:
        answer = await self.client.post(PATH, json=body, headers={**self.admin, **headers})
        assert answer.status_code == 202, answer.text
        return answer.json()

    @property
    def admin(self) -> dict[str, str]:
        if not hasattr(self, "_admin"):
            self._admin = self.key()
        return self._admin

    async def end(self, export_id: str, command: Any) -> None:
        """What the exporter does last."""
        request = CommandRequest(
            tenant=TENANT,
            stream_id=export_id,
            command=command,
            actor=SYSTEM,
            command_id=f"cmd_{export_id}",
        )
        reply = await self.bus.send(request)
        assert reply.status == "accepted"

    async def complete(self, export_id: str) -> None:
        name, manifest = f"audit-exports/{export_id}.json", f"audit-exports/{export_id}.m.json"
        await self.objects.put(name, FILE)
        await self.objects.put(manifest, MANIFEST)
        command = CompleteAuditExport(
            object=name,
            size=len(FILE),
            sha256=hashlib.sha256(FILE).hexdigest(),
            manifest=manifest,
            manifest_size=len(MANIFEST),
            manifest_sha256=hashlib.sha256(MANIFEST).hexdigest(),
            records=0,
        )
        await self.end(export_id, command)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World() as created:
        yield created


async def test_an_export_is_asked_for_and_processed(world: World) -> None:
    body = {
        "start_date": "2024-01-01T00:00:00Z",
        "end_date": "2024-01-31T23:59:59Z",
        "format": "json",
    }
    answer = await world.ask(body)
    export_id = answer["export_id"]
    assert export_id.startswith("exp_")
    assert (answer["status"], answer["download_url"]) == ("processing", None)
    assert {name: answer[name] for name in body} == body
    start, end = parse_iso(body["start_date"]), parse_iso(body["end_date"]) + 1
    assert world.bus.payloads() == [AuditExportRequested("json", start, end)]
    status = await world.client.get(f"{PATH}{export_id}/", headers=world.admin)
    assert status.json() == answer


async def test_a_completed_export_is_downloaded_with_its_manifest(world: World) -> None:
    export_id = (await world.ask({"format": "json"}))["export_id"]
    early = await world.client.get(f"{PATH}{export_id}/download/", headers=world.admin)
    assert (early.status_code, early.json()["error"]["code"]) == (409, "export_processing")
    await world.complete(export_id)
    status = (await world.client.get(f"{PATH}{export_id}/", headers=world.admin)).json()
    assert status["status"] == "completed"
    assert status["sha256"] == hashlib.sha256(FILE).hexdigest()
    assert status["size_bytes"] == len(FILE)
    public = world.services.settings.public_url
    assert status["download_url"] == f"{public}{PATH}{export_id}/download/"
    file = await world.client.get(status["download_url"].removeprefix(public), headers=world.admin)
    assert file.content == FILE
    assert file.headers["content-type"] == "application/json"
    assert file.headers["content-length"] == str(len(FILE))
    assert file.headers["content-disposition"] == f'attachment; filename="audit-{export_id}.json"'
    assert "x-request-id" in file.headers
    manifest = await world.client.get(
        status["manifest_url"].removeprefix(public), headers=world.admin
    )
    assert manifest.content == MANIFEST


async def test_a_failed_export_says_why_and_has_no_file(world: World) -> None:
    export_id = (await world.ask({}))["export_id"]
    await world.end(export_id, FailAuditExport("the disk is full"))
    status = (await world.client.get(f"{PATH}{export_id}/", headers=world.admin)).json()
    assert (status["status"], status["error"]) == ("failed", "the disk is full")
    assert status["download_url"] is None
    file = await world.client.get(f"{PATH}{export_id}/download/", headers=world.admin)
    assert (file.status_code, file.json()["error"]["code"]) == (409, "export_failed")


async def test_a_file_that_is_gone_is_a_404(world: World) -> None:
    export_id = (await world.ask({}))["export_id"]
    await world.complete(export_id)
    await world.objects.delete(f"audit-exports/{export_id}.json")
    file = await world.client.get(f"{PATH}{export_id}/download/", headers=world.admin)
    assert file.status_code == 404


async def test_the_same_key_asks_for_one_export(world: World) -> None:
    first = await world.ask({"format": "csv"}, **{"Idempotency-Key": "k1"})
    again = await world.ask({"format": "csv"}, **{"Idempotency-Key": "k1"})
    assert first == again
    assert len(world.bus.emitted(AuditExportRequested)) == 1
    other = await world.ask({"format": "csv"}, **{"Idempotency-Key": "k2"})
    assert other["export_id"] != first["export_id"]


@pytest.mark.parametrize("part", ["", "download/", "manifest/"])
async def test_another_tenants_export_is_not_there(world: World, part: str) -> None:
    export_id = (await world.ask({}))["export_id"]
    await world.complete(export_id)
    other = world.key(OTHER_TENANT)
    for headers in (other, world.human(OTHER_TENANT)):
        answer = await world.client.get(f"{PATH}{export_id}/{part}", headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    assert (
        await world.client.get(f"{PATH}exp_none/{part}", headers=world.admin)
    ).status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {"format": "xml"},
        {"start_date": "soon"},
        {"start_date": "2024-02-01", "end_date": "2024-01-01"},
        {"start_date": 5},
    ],
)
async def test_what_is_wrong_is_refused(world: World, body: dict[str, Any]) -> None:
    answer = await world.client.post(PATH, json=body, headers=world.admin)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "validation_error"
    assert world.bus.payloads() == []


async def test_who_may_export(world: World) -> None:
    for role in ("developer", "compute", "billing", "viewer"):
        answer = await world.client.post(PATH, json={}, headers=world.key(roles=[role]))
        assert answer.status_code == 403
    assert (await world.client.post(PATH, json={}, headers=world.agent())).status_code == 403
    assert (await world.client.post(PATH, json={})).status_code == 401
    assert (await world.client.post(PATH, json={}, headers=world.human())).status_code == 202
