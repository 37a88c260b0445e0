"""What deleted keys and ended uploads leave in the object store, on real servers: nothing."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Any

import pytest

from infra.clock import SYSTEM_CLOCK
from infra.config import Settings
from infra.ids import new_id
from infra.objects import Objects
from schemas.fhe.evaluation_key import EvaluationKeyErased
from streams.bus import KafkaCommandBus
from streams.fhe import erasing
from streams.fhe.erasing import Erasing
from streams.runtime import codec
from tests.fhe_workers.clients import Client
from tests.integration.test_approvals import RealWaitroom, real_waitroom, timers_fire
from tests.integration.webhook_rig import until
from tests.loops import read_topic

OCTETS = {"Content-Type": "application/octet-stream"}
DAY_SECONDS = 24 * 3600


@contextlib.asynccontextmanager
async def eraser(it: RealWaitroom) -> AsyncIterator[None]:
    """The eraser in this process, as the role `streams` runs it."""
    bus = it.services.bus
    assert isinstance(bus, KafkaCommandBus)
    work = Erasing(
        bootstrap=it.services.settings.kafka_bootstrap_servers,
        codec=codec(),
        bus=bus,
        reads=it.services.reads,  # type: ignore[arg-type]  # the real one, here
        objects=it.services.objects,
        clock=SYSTEM_CLOCK,
        group=new_id("test"),
    )
    task = asyncio.create_task(work.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def call(it: RealWaitroom, method: str, path: str, **more: Any) -> Any:
    headers = {**it.person, **more.pop("headers", {})}
    answer = await it.client.request(method, f"/api/v1/keys{path}", headers=headers, **more)
    assert answer.is_success, answer.text
    return answer.json() if answer.content else None


async def opened(it: RealWaitroom, data: bytes) -> str:
    parts = [{"kind": "relin", "size_bytes": len(data)}]
    made = await call(it, "POST", "/uploads", json={"params_id": "ckks-n13", "parts": parts})
    return str(made["upload_id"])


async def send(it: RealWaitroom, id: str, offset: int, data: bytes) -> None:
    headers = {**OCTETS, "Upload-Offset": str(offset)}
    await call(it, "PATCH", f"/uploads/{id}/parts/0", headers=headers, content=data)


async def none_left(objects: Objects, folder: str) -> None:
    await until(lambda: objects.names(folder), lambda names: not names)


async def test_a_deleted_key_is_erased_without_a_worker_and_there_is_a_receipt(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasing, "GRACE_SECONDS", 2)
    async with real_waitroom(settings) as it, eraser(it):
        client, folder = Client(), f"fhe/{it.tenant}"
        id = await opened(it, client.relin)
        half = len(client.relin) // 2
        await send(it, id, 0, client.relin[:half])
        await send(it, id, half, client.relin[half:])
        # Begun anew and sent whole: the objects of before belong to nobody.
        await send(it, id, 0, client.relin)
        whole = {"sha256s": [sha256(client.relin).hexdigest()]}
        key = await call(it, "POST", f"/uploads/{id}/complete", json=whole)
        (kept,) = await until(
            lambda: it.services.objects.names(folder), lambda names: len(names) == 1
        )
        assert "/keys/" in kept
        # A job that nobody does holds the erasure up for so long and no longer.
        operand = {"handle": "ct_none"}
        body = {"key_id": key["key_id"], "operands": [operand, operand]}
        refused = await it.person_calls("POST", "/api/v1/compute/add?wait=0", body)
        assert refused.status_code == 404
        await call(it, "DELETE", f"/{key['key_id']}")
        await none_left(it.services.objects, folder)
        refused = await it.person_calls("POST", "/api/v1/compute/add?wait=0", body)
        assert refused.json()["error"]["code"] == "key_deleted"

        async def receipts() -> list[Any]:
            found = await read_topic(it.services.settings, "events", it.tenant)
            return [event for _, event in found if isinstance(event, EvaluationKeyErased)]

        (receipt,) = await until(receipts, lambda found: len(found) == 1)
        assert (receipt.key_id, receipt.objects) == (key["key_id"], 1)


async def test_an_upload_that_nobody_goes_on_with_is_erased_by_its_timer(
    settings: Settings,
) -> None:
    async with real_waitroom(settings) as it, eraser(it):
        folder = f"fhe/{it.tenant}"
        id = await opened(it, b"x" * 5000)
        await send(it, id, 0, b"x" * 100)
        assert await it.services.objects.names(folder)
        async with timers_fire(it, DAY_SECONDS + 60):
            await none_left(it.services.objects, folder)
        shown = await call(it, "GET", f"/uploads/{id}")
        assert (shown["status"], shown["parts"][0]["offset"]) == ("expired", 100)
