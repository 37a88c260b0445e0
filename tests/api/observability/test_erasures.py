"""Users are erased by admins, whose runs are sealed from their start on; receipts name nobody."""

import logging
from collections.abc import Sequence
from typing import Any

import pytest

from api.observability import ROUTES
from api.observing import RequestObserver
from commands.observability.erasure import (
    CompleteUserErasure,
    RecordReadModelErased,
    RecordUserKeyDropped,
)
from infra.objects import Objects, ObjectsUnavailable
from projections.observability.user_erasures import (
    ERASED_READ_MODELS,
    USER_ERASURES,
    reduce,
    reduce_read_models,
)
from projections.statements import Delete
from schemas.envelope import SYSTEM, from_headers
from schemas.observability.erasure import UserErasureRequested
from streams.bus import CommandRequest
from streams.effects import Recorded
from streams.telemetry import codec
from tests.api.harness import OTHER_TENANT, TENANT, Harness

ADA = "ada@example.com"
READ = "/api/v1/observability"
START = "/api/v1/observe/runs/start/"


class World(Harness):
    """The app, with the receipts' read models in memory."""

    def __init__(self) -> None:
        super().__init__(ROUTES, apply=self.project, observer=RequestObserver())
        self.receipts: dict[tuple[str, str], dict[str, Any]] = {}
        self.lines: list[dict[str, Any]] = []
        self.reads.when(f"FROM {USER_ERASURES.table} WHERE tenant = %s AND", self._by_id)
        self.reads.when(f"FROM {ERASED_READ_MODELS.table}", self._lines_of)
        self.admin = self.key()

    def _by_id(self, *key: str) -> list[dict[str, Any]]:
        return [self.receipts[key]] if key in self.receipts else []

    def _lines_of(self, tenant: str, ids: list[str]) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["erasure_id"] in ids]

    async def project(self, recorded: Sequence[Recorded]) -> None:
        for envelope, event in recorded:
            for statement in reduce(event, envelope):
                assert not isinstance(statement, Delete)
                key = (statement.key["tenant"], statement.key["erasure_id"])
                empty = dict.fromkeys(USER_ERASURES.columns) | dict(statement.key)
                self.receipts[key] = self.receipts.get(key, empty) | dict(statement.values)
            for statement in reduce_read_models(event, envelope):
                assert not isinstance(statement, Delete)
                line = {**statement.key, **statement.values}
                self.lines.append({**line, "positions": ["telemetry:0:7"]})

    async def start(self, user_id: str, **headers: str) -> str:
        body = {"agent_name": "bot", "user_id": user_id, "inputs": {"of": user_id}}
        answer = await self.client.post(START, json=body, headers={**self.admin, **headers})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["run_id"])

    async def erase(self, user_id: str, **headers: str) -> Any:
        answer = await self.client.delete(
            f"{READ}/users/{user_id}/", headers={**self.admin, **headers}
        )
        assert answer.status_code == 202, answer.text
        return answer.json()

    async def carry_out(self, erasure_id: str) -> None:
        """What the eraser does, without its servers."""
        await self.services.person_keys.destroy(TENANT, self.requested()[-1].key)
        line = RecordReadModelErased(read_model="spans", rows=3, positions=["telemetry:0:7"])
        for step, command in enumerate((RecordUserKeyDropped(), line, CompleteUserErasure())):
            await self.bus.send(
                CommandRequest(
                    tenant=TENANT,
                    stream_id=erasure_id,
                    command=command,
                    actor=SYSTEM,
                    command_id=f"{erasure_id}_{step}",
                )
            )

    def requested(self) -> list[UserErasureRequested]:
        return self.bus.emitted(UserErasureRequested)


async def test_an_erasure_is_accepted_and_followed_to_its_end() -> None:
    async with World() as app:
        await app.start(ADA)
        asked = await app.erase(ADA)
        assert (asked["status"], asked["key_dropped_at"], asked["read_models"]) == (
            "requested",
            None,
            [],
        )
        assert asked["requested_by"] == "key_1"
        await app.carry_out(asked["erasure_id"])
        answer = await app.client.get(f"{READ}/erasures/{asked['erasure_id']}/", headers=app.admin)
        receipt = answer.json()
        assert receipt["status"] == "completed"
        assert receipt["completed_at"] == receipt["key_dropped_at"] == "2023-11-14T22:13:20Z"
        (line,) = receipt["read_models"]
        assert line == {
            "read_model": "spans",
            "rows": 3,
            "positions": ["telemetry:0:7"],
            "erased_at": "2023-11-14T22:13:20Z",
        }


async def test_no_event_command_or_answer_names_the_user(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with World() as app:
        await app.start(ADA)
        with caplog.at_level(logging.DEBUG):
            asked = await app.erase(ADA, **{"Idempotency-Key": "once"})
            await app.client.get(f"{READ}/sessions/of-{ADA}/", headers=app.admin)
        said = [repr(app.bus.requests), repr(app.bus.events), repr(asked)]
        said += [repr(record.__dict__) for record in caplog.records if record.name != "httpx"]
        assert not [text for text in said if ADA in text or "ada%40" in text]
        (line,) = [r for r in caplog.records if getattr(r, "status", 0) == 202]
        assert line.__dict__["path"] == f"{READ}/users/{{user_id}}/"
        # Nor does a hash of the path, which whoever guesses the id could compare.
        plain = await app.client.delete(
            f"{READ}/users/{ADA}/", headers={**app.admin, "Idempotency-Key": "once"}
        )
        assert plain.json() == asked
        assert len({request.fingerprint for request in app.bus.requests}) == 1


async def test_again_is_the_same_erasure_until_the_user_is_named_anew() -> None:
    async with World() as app:
        await app.start(ADA)
        first = await app.erase(ADA)
        assert (await app.erase(ADA))["erasure_id"] == first["erasure_id"]
        await app.carry_out(first["erasure_id"])
        done = await app.erase(ADA)
        assert (done["erasure_id"], done["status"]) == (first["erasure_id"], "completed")
        await app.start(ADA)
        assert (await app.erase(ADA))["erasure_id"] != first["erasure_id"]
        keys = [event.key.rpartition("/") for event in app.requested()]
        assert [(key[0] == keys[0][0], key[2]) for key in keys] == [(True, "0"), (True, "1")]


async def test_whom_nobody_named_cannot_be_erased() -> None:
    async with World() as app:
        await app.start(ADA)
        for user_id, headers in (("bob", app.admin), (ADA, app.key(OTHER_TENANT))):
            answer = await app.client.delete(f"{READ}/users/{user_id}/", headers=headers)
            assert answer.status_code == 404
        assert app.bus.requests == []


async def test_only_admins_erase_and_read_receipts() -> None:
    async with World() as app:
        await app.start(ADA)
        asked = await app.erase(ADA)
        for role in ("developer", "viewer"):
            headers = app.key(roles=[role])
            erased = await app.client.delete(f"{READ}/users/{ADA}/", headers=headers)
            read = await app.client.get(f"{READ}/erasures/{asked['erasure_id']}/", headers=headers)
            assert (erased.status_code, read.status_code) == (403, 403)


async def test_every_report_of_the_user_s_run_is_sealed() -> None:
    async with World() as app:
        run_id = await app.start(ADA)
        assert app.signer.owns_run(TENANT, run_id)
        call = {"model": "m", "tokens_in": 1, "tokens_out": 1, "prompt_preview": ADA}
        for path, body in (
            ("llm-calls", {"calls": [call]}),
            ("steps", {"steps": [{"step_name": "s", "output": {"of": ADA}}]}),
            ("spans", {"spans": [{"name": "s", "kind": "tool", "attributes": {"of": ADA}}]}),
            ("scores", {"scores": [{"name": "s", "numeric_value": 1, "comment": ADA}]}),
            ("complete", {"result": {"of": ADA}, "error": ADA}),
        ):
            answer = await app.client.post(
                f"/api/v1/observe/runs/{run_id}/{path}/", json=body, headers=app.admin
            )
            assert answer.status_code == 200, answer.text
        records = app.log.records["telemetry"]
        assert len(records) == 6
        for record in records:
            assert record.value is not None
            assert ADA.encode() not in record.value
            assert codec().decode(record.value).sealed
            assert from_headers(record.headers).sealed_for.endswith("/0")


async def test_a_repeated_start_is_the_same_run() -> None:
    async with World() as app:
        first = await app.start(ADA, **{"Idempotency-Key": "nightly"})
        assert await app.start(ADA, **{"Idempotency-Key": "nightly"}) == first


async def test_what_is_told_of_an_erased_user_s_old_run_is_kept_blank() -> None:
    async with World() as app:
        run_id = await app.start(ADA)
        asked = await app.erase(ADA)
        await app.carry_out(asked["erasure_id"])
        call = {"model": "m", "tokens_in": 5, "tokens_out": 1, "prompt_preview": ADA}
        answer = await app.client.post(
            f"/api/v1/observe/runs/{run_id}/llm-calls/", json={"calls": [call]}, headers=app.admin
        )
        assert answer.status_code == 200
        event = codec().decode(app.log.records["telemetry"][-1].value)
        assert (event.calls[0].tokens_in, event.calls[0].prompt_preview, event.sealed) == (
            5,
            "",
            b"",
        )


class Away(Objects):
    """An object store that does not answer."""

    async def whole(self, name: str) -> bytes:
        raise ObjectsUnavailable("away")


async def test_without_the_object_store_only_runs_of_users_wait() -> None:
    async with World() as app:
        app.services.person_keys._objects = Away("memory:///")
        refused = await app.client.post(
            START, json={"agent_name": "bot", "user_id": ADA}, headers=app.admin
        )
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
        assert app.log.records == {}
        taken = await app.client.post(START, json={"agent_name": "bot"}, headers=app.admin)
        assert taken.status_code == 200
