"""Encrypted computation on real Kafka, Postgres and worker processes, kill -9 included."""

import asyncio
import base64
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import numpy as np
import psutil
import pytest

from api.app import build_app
from api.credentials import API_KEY_PREFIX, ApiKey, lookup_prefix
from api.services import Services
from api.subscription import LiveEvent, Subscription
from fhe_workers.worker import DEAD_LETTERS, TOPIC
from infra.config import Settings
from infra.ids import new_id, secret_hash
from infra.kafka import Log, Record, consumer
from infra.objects import Objects
from infra.readiness import VARIABLE
from streams.bus import CommandBus
from tests.api.memory import MemoryCredentials
from tests.fhe_workers.clients import Client, GateClient
from tests.integration.services_rig import services_on
from tests.loops import loops, read_topic
from tests.schemas.fhe.circuits import adder, bits_of, number_of

OCTETS = {"Content-Type": "application/octet-stream"}
X = np.array([0.5, -0.25, 1.0])
CACHED_ONCE = [
    "fhe.cached_operations",
    "fhe.cpu_microseconds",
    "fhe.operations",
    "fhe.price_nanodollars",
    "fhe.price_nanodollars",
]


class WorkerProcess:
    """`weir run fhe-worker` as an operator runs it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def __aenter__(self) -> "WorkerProcess":
        reading, writing = os.pipe()
        environment = {**os.environ, **self._settings.to_env(), VARIABLE: str(writing)}
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "infra.cli", "run", "fhe-worker"),
            env=environment,
            pass_fds=[writing],
        )
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            said = await asyncio.to_thread(pipe.readline)
        assert said == b"fhe-worker\n", "the worker ended before it was ready"
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self.signal_children(signal.SIGCONT)
            self._process.terminate()
            await asyncio.wait_for(self._process.wait(), 30)

    @property
    def children(self) -> list[psutil.Process]:
        """The processes that compute."""
        return list(psutil.Process(self._process.pid).children())

    def signal_children(self, number: signal.Signals) -> None:
        """Send them all a signal."""
        for child in self.children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.send_signal(number)

    async def kill(self) -> list[psutil.Process]:
        """kill -9; returns the children it leaves behind."""
        orphans = self.children
        self._process.kill()
        await self._process.wait()
        return orphans


class Fhe:
    """The API over real servers, and what its clients do."""

    def __init__(self, services: Services) -> None:
        self.services, self.tenant = services, new_id("ten")
        secret = services.signer.secret(API_KEY_PREFIX, new_id("cmd"))
        credentials = services.credentials
        assert isinstance(credentials, MemoryCredentials)
        credentials.api_keys[lookup_prefix(secret)] = ApiKey(
            new_id("key"), self.tenant, secret_hash(secret), roles=frozenset({"admin"})
        )
        transport = httpx.ASGITransport(app=build_app(services), client=("192.0.2.1", 4711))
        self.client = httpx.AsyncClient(
            transport=transport,
            base_url="http://weir.test",
            headers={"X-Wax-Key": secret},
            timeout=120,
        )

    async def upload(self, client: Client) -> str:
        response = await self.client.post("/api/v1/keys", content=client.relin, headers=OCTETS)
        assert response.status_code == 201, response.text
        return str(response.json()["key_id"])

    async def compute(
        self, operation: str, key_id: str, *operands: Any, wait: int = 60
    ) -> dict[str, Any]:
        response = await self.client.post(
            f"/api/v1/compute/{operation}?wait={wait}",
            json={"key_id": key_id, "operands": list(operands)},
        )
        assert response.status_code == (200 if wait else 202), response.text
        return dict(response.json())

    async def job(self, job_id: str) -> dict[str, Any]:
        return dict((await self.client.get(f"/api/v1/jobs/{job_id}")).json())

    async def events(self, tag: str) -> list[Any]:
        records = await read_topic(self.services.settings, "events", self.tenant)
        return [event for headers, event in records if headers["ce_type"] == tag]


def is_success(event: LiveEvent) -> bool:
    return event.type == "fhe.job_succeeded.v1"


def is_progress(event: LiveEvent) -> bool:
    return event.type == "fhe.job_progressed.v1"


async def first_of(subscription: Subscription) -> int:
    """Wait for the next events; returns how many came."""
    async with asyncio.timeout(90):
        while not (events := await subscription.batch(5.0)):
            pass
    return len(events)


async def none_left(objects: Objects, folder: str) -> None:
    """Wait until a folder of the store is empty; a store tells nobody, it has to be asked."""
    async with asyncio.timeout(60):
        while await objects.names(folder):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[Fhe]:
    """A decider role and an API process on the session's servers."""
    async with loops(settings) as running, api_on(settings, running.bus) as fhe:
        yield fhe


@contextlib.asynccontextmanager
async def api_on(settings: Settings, bus: CommandBus) -> AsyncIterator[Fhe]:
    """An API process on the session's servers, whoever decides."""
    async with services_on(settings, bus, MemoryCredentials()) as services:
        fhe = Fhe(services)
        async with fhe.client:
            yield fhe


def cipher(client: Client, values: Any) -> dict[str, str]:
    return {"ciphertext": base64.b64encode(client.encrypt(values)).decode()}


def decrypted(client: Client, job: dict[str, Any]) -> Any:
    return client.decrypt(base64.b64decode(job["result"]["ciphertext"]))[:3]


@pytest.fixture(scope="module")
def alice() -> Client:
    return Client()


async def test_a_client_computes_on_what_we_cannot_read(settings: Settings, alice: Client) -> None:
    async with serving(settings) as fhe, WorkerProcess(settings):
        key_id = await fhe.upload(alice)
        operands = cipher(alice, X), cipher(alice, X)
        product = await fhe.compute("multiply", key_id, *operands)
        assert await fhe.compute("multiply", key_id, *operands) == {**product, "cached": True}
        counted = [event.meter for event in await fhe.events("billing.usage_recorded.v1")]
        assert sorted(counted) == CACHED_ONCE
        assert np.abs(decrypted(alice, product) - X * X).max() < 1e-6
        handle = {"handle": product["result"]["handle"]}
        total = await fhe.compute("add", key_id, handle, cipher(alice, X))
        assert np.abs(decrypted(alice, total) - (X * X + X)).max() < 2e-6
        assert await fhe.job(total["job_id"]) == total
        listed = (await fhe.client.get("/api/v1/jobs")).json()["data"]
        assert [job["job_id"] for job in listed] == [total["job_id"], product["job_id"]]

        deleted = await fhe.client.delete(f"/api/v1/keys/{key_id}")
        assert deleted.status_code == 204
        # The worker reads the deletion behind the jobs and erases the key.
        objects, folder = fhe.services.objects, f"fhe/{fhe.tenant}/keys"
        await none_left(objects, folder)
        # Inputs are gone with their jobs, results stay.
        names = await objects.names(f"fhe/{fhe.tenant}")
        assert sorted(name.split("/")[3].split(".")[0] for name in names) == sorted(
            [product["job_id"], total["job_id"]]
        )
        # The results are the client's, with or without the evaluation key.
        assert (await fhe.job(total["job_id"]))["result"]["ciphertext"]


async def test_a_killed_workers_jobs_run_again_and_count_once(
    settings: Settings, alice: Client
) -> None:
    count = 24
    async with serving(settings) as fhe:
        key_id = await fhe.upload(alice)
        ends = await fhe.services.live.subscribe(fhe.tenant, wants=is_success)
        async with WorkerProcess(settings) as doomed:
            # Held back, the children let all jobs queue up in the worker.
            doomed.signal_children(signal.SIGSTOP)
            submitted = [
                await fhe.compute("multiply", key_id, cipher(alice, X), {"value": n + 1}, wait=0)
                for n in range(count)
            ]
            doomed.signal_children(signal.SIGCONT)
            ended = await first_of(ends)
            orphans = await doomed.kill()
        async with WorkerProcess(settings):
            while ended < count:
                ended += await first_of(ends)
            succeeded = await fhe.events("fhe.job_succeeded.v1")
            assert len(succeeded) == count
            assert await fhe.events("fhe.job_failed.v1") == []
            usage = await fhe.events("billing.usage_recorded.v1")
            assert len(usage) == len({event.usage_id for event in usage}) == 3 * count
            for number, job in enumerate(submitted):
                done = await fhe.job(job["job_id"])
                assert np.abs(decrypted(alice, done) - X * (number + 1)).max() < 1e-4
        # Children end with their parent's pipes; none is left to compute for nobody.
        gone, alive = await asyncio.to_thread(psutil.wait_procs, orphans, 30)
        assert not alive and len(gone) == len(orphans)


async def test_a_circuit_goes_on_after_its_child_is_killed_and_tells_how_far_it_is(
    settings: Settings,
) -> None:
    gates, outputs = adder(24)
    a, b = 9_876_543, 7_654_321
    dora = GateClient()
    inputs = {
        name: {"ciphertext": base64.b64encode(dora.encrypt(bits_of(number, 24))).decode()}
        for name, number in (("a", a), ("b", b))
    }
    async with serving(settings) as fhe, WorkerProcess(settings) as worker:
        uploaded = await fhe.client.post(
            "/api/v1/keys?params_id=tfhe-132", content=dora.server_key, headers=OCTETS
        )
        assert uploaded.status_code == 201, uploaded.text
        progress = await fhe.services.live.subscribe(fhe.tenant, wants=is_progress)
        body = {
            "key_id": uploaded.json()["key_id"],
            "inputs": inputs,
            "gates": msgspec.to_builtins(gates),
            "outputs": outputs,
        }
        response = await fhe.client.post("/api/v1/tfhe/circuits?wait=0", json=body)
        assert response.status_code == 202, response.text
        job_id = response.json()["job_id"]
        following = asyncio.create_task(fhe.client.get(f"/api/v1/jobs/{job_id}/events"))
        await first_of(progress)
        worker.signal_children(signal.SIGKILL)
        # The stream ends with the job, and so does the request for it.
        text = (await asyncio.wait_for(following, 120)).text
        assert "event: progress\n" in text and f'"total":{len(gates)}' in text
        assert text.count("event: end\n") == 1 and '"status":"succeeded"' in text
        done = await fhe.job(job_id)
        found = dora.decrypt(base64.b64decode(done["result"]["ciphertext"]))
        assert number_of(found) == a + b
        [counted] = [
            event.quantity
            for event in await fhe.events("billing.usage_recorded.v1")
            if event.meter == "fhe.operations"
        ]
        assert counted == len(gates)
        # To who comes later it is told at once.
        later = await fhe.client.get(f"/api/v1/jobs/{job_id}/events")
        assert later.text == f'event: end\ndata: {{"job_id":"{job_id}","status":"succeeded"}}\n\n'
        assert (await fhe.client.get("/api/v1/jobs/job_none/events")).status_code == 404


async def test_a_cancelled_job_stops_and_leaves_nothing(settings: Settings, alice: Client) -> None:
    async with serving(settings) as fhe, WorkerProcess(settings) as worker:
        key_id = await fhe.upload(alice)
        await fhe.compute("add", key_id, cipher(alice, X), {"value": 1})
        worker.signal_children(signal.SIGSTOP)
        job = await fhe.compute("add", key_id, cipher(alice, X), {"value": 1}, wait=0)
        inputs = f"fhe/{fhe.tenant}/jobs"
        assert await fhe.services.objects.names(inputs)
        response = await fhe.client.delete(f"/api/v1/jobs/{job['job_id']}")
        assert response.json()["status"] == "cancelled"
        # Its child was stopped for good; the worker kills it and erases the operands.
        await none_left(fhe.services.objects, inputs)
        worker.signal_children(signal.SIGCONT)
        again = await fhe.compute("add", key_id, cipher(alice, X), {"value": 2})
        assert np.abs(decrypted(alice, again) - (X + 2)).max() < 1e-6
        assert len(await fhe.events("fhe.job_cancelled.v1")) == 1


async def test_poison_among_the_jobs_is_put_aside(settings: Settings, alice: Client) -> None:
    async with serving(settings) as fhe, WorkerProcess(settings):
        log = Log(settings.kafka_bootstrap_servers, "poison")
        key_id = await fhe.upload(alice)
        marker = new_id("poison").encode()
        for value in (b"", b"\x00\x00\x00\x00\x63abc", b"\x07garbage", None):
            await log.append(TOPIC, [Record(key_id.encode(), value, [("mark", marker)])])
        job = await fhe.compute("add", key_id, cipher(alice, X), {"value": 1})
        assert job["status"] == "succeeded"
        reader = consumer(settings.kafka_bootstrap_servers, "dlq", auto_offset_reset="earliest")
        await reader.start()
        reader.subscribe([DEAD_LETTERS])
        buried = 0
        async with asyncio.timeout(60):
            while buried < 4:
                for records in (await reader.getmany(timeout_ms=500)).values():
                    buried += sum(dict(record.headers).get("mark") == marker for record in records)
        await reader.stop()
        await log.stop()
