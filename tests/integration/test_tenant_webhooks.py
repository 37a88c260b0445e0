"""A tenant's webhooks on real servers: what happens to its keys and jobs reaches its URL."""

import base64
import dataclasses
from typing import Any

import numpy as np

from commands.fhe.job_state import RecordJobFailure
from infra.config import Settings
from infra.ids import new_id
from schemas.envelope import SYSTEM
from streams.bus import CommandRequest
from tests.fhe_workers.clients import Client
from tests.integration.test_approvals import RealWaitroom, real_waitroom
from tests.integration.webhook_rig import OUR_NETWORK, Receiver, delivering, until

OCTETS = {"Content-Type": "application/octet-stream"}


async def call(it: RealWaitroom, method: str, path: str, body: Any = None) -> Any:
    answer = await it.person_calls(method, f"/api/v1{path}", body)
    assert answer.is_success, answer.text
    return answer.json() if answer.content else None


async def upload(it: RealWaitroom, data: bytes) -> str:
    headers = {**it.person, **OCTETS}
    answer = await it.client.post("/api/v1/keys", content=data, headers=headers)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["key_id"])


async def failed_job(it: RealWaitroom, key_id: str, client: Client) -> str:
    """A job that no worker could do."""
    cipher = {"ciphertext": base64.b64encode(client.encrypt(np.array([1.0]))).decode()}
    body = {"key_id": key_id, "operands": [cipher, {"value": 1.0}]}
    job_id = str((await call(it, "POST", "/compute/add?wait=0", body))["job_id"])
    request = CommandRequest(
        tenant=it.tenant,
        stream_id=job_id,
        command=RecordJobFailure("engine_failure", "two children died"),
        actor=SYSTEM,
        command_id=new_id("cmd"),
    )
    await it.services.bus.send(request)
    return job_id


async def test_what_happens_to_keys_and_jobs_is_told_in_order_and_signed(
    settings: Settings,
) -> None:
    settings = dataclasses.replace(settings, egress_allow=OUR_NETWORK)
    async with (
        real_waitroom(settings) as it,
        Receiver() as receiver,
        delivering(it.services.settings),
    ):
        url, elsewhere = receiver.endpoint(), receiver.endpoint()
        made = await call(
            it, "POST", "/webhooks", {"url": url, "event_types": ["key.*", "job.failed"]}
        )
        one = f"/webhooks/{made['webhook_id']}"
        tested = await call(it, "POST", f"{one}/test")
        client = Client()
        key_id = await upload(it, client.relin)
        job_id = await failed_job(it, key_id, client)
        got = await receiver.until(url, 3)
        told = [request.verified(made["secret"]) for request in got]
        assert [body["type"] for body in told] == ["webhook.test", "key.created", "job.failed"]
        assert got[0].id == tested["delivery_id"]
        assert told[1]["data"]["key_id"] == key_id
        assert (told[2]["data"]["job_id"], told[2]["data"]["reason"]) == (job_id, "engine_failure")
        # To another URL, and signed with two secrets while one replaces the other.
        await call(it, "PATCH", one, {"url": elsewhere})
        turned = await call(it, "POST", f"{one}/rotate-secret", {})
        await call(it, "DELETE", f"/keys/{key_id}")
        (moved,) = await receiver.until(elsewhere, 1)
        for secret in (made["secret"], turned["secret"]):
            assert moved.verified(secret)["data"]["key_id"] == key_id
        deliveries = await until(
            lambda: call(it, "GET", f"{one}/deliveries"),
            lambda page: [one["status"] for one in page["data"]] == ["delivered"] * 4,
        )
        assert [one["event_type"] for one in deliveries["data"]] == [
            "key.deleted",
            "job.failed",
            "key.created",
            "webhook.test",
        ]
        again = await call(
            it, "POST", f"{one}/deliveries/{deliveries['data'][0]['delivery_id']}/redeliver"
        )
        assert again["event_type"] == "key.deleted"
        await receiver.until(elsewhere, 2)
        assert len(receiver.at(url)) == 3
