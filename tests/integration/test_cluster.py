"""Every role twice, each a process of its own, on servers that they share: ClickHouse behind HTTP
and an S3 store, as in production. What one process takes, the other one knows."""

import asyncio
import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from moto.server import ThreadedMotoServer

from api.provision import provision
from infra.bootstrap import Credentials
from infra.config import Settings
from infra.embedded.ports import free_port
from infra.embedded.stack import Stack
from infra.kafka import create_topics
from streams.audit_verification import verify_file
from tests.clickhouse_server import clickhouse_server
from tests.faults.roles import RoleProcess
from tests.stack import fresh_stores

PATIENCE_SECONDS = 60.0


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Two API processes on the same servers, and the other roles behind them."""

    made: Credentials
    urls: tuple[str, str]

    def client(self, number: int) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {self.made.admin_token}"}
        return httpx.AsyncClient(base_url=self.urls[number], headers=headers, timeout=30)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """ClickHouse and S3 as the settings name them."""
    bucket = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    bucket.start()
    endpoint = "http://{}:{}".format(*bucket.get_host_and_port())
    httpx.put(f"{endpoint}/weir").raise_for_status()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "weir",
            "AWS_SECRET_ACCESS_KEY": "weir-demo",
        }.items():
            patch.setenv(name, value)
        with clickhouse_server(tmp_path_factory.mktemp("clickhouse")) as clickhouse:
            yield {"clickhouse_url": clickhouse, "object_store_url": "s3://weir/objects"}
    bucket.stop()


@pytest.fixture(scope="module")
def cluster(
    stack: Stack, stores: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """Nine processes."""
    shared = dataclasses.replace(fresh_stores(stack, tmp_path_factory.mktemp("cluster")), **stores)
    doors = [dataclasses.replace(shared, port=free_port(), public_url="") for _ in range(2)]
    asyncio.run(create_topics(shared.kafka_bootstrap_servers, shared.partitions))
    roles: list[tuple[Settings, str]] = [(door, "api") for door in doors]
    for role in ("decider", "analytics", "scheduler"):
        roles += [(shared, role)] * 2
    with contextlib.ExitStack() as running:
        processes = [
            running.enter_context(RoleProcess(settings, [role]))
            for settings, role in [*roles, (shared, "streams")]
        ]
        for process in processes:
            process.wait_ready()
        made = asyncio.run(provision(doors[0], None))
        yield Cluster(made, (doors[0].public_url, doors[1].public_url))
    # Ended on request, all of them, and none before.
    assert [process.process.returncode for process in processes] == [0] * len(processes)


async def test_what_one_process_takes_the_other_answers(cluster: Cluster) -> None:
    async with cluster.client(0) as one, cluster.client(1) as other:
        key = {"X-Wax-Key": cluster.made.api_key}
        started = await one.post(
            "/api/v1/observe/runs/start/", json={"agent_name": "clustered"}, headers=key
        )
        path = f"/api/v1/observe/runs/{started.json()['run_id']}/llm-calls/"
        for number in range(20):
            calls = [{"model": f"m-{number % 3}", "tokens_in": 10, "tokens_out": 1, "cost": 0.25}]
            sender = (one, other)[number % 2]
            posted = await sender.post(path, json={"calls": calls}, headers=key)
            assert posted.is_success, posted.text
        for asker in (one, other):
            listed = await asker.get(
                "/api/v1/observability/llm-calls/",
                params={
                    "agent": "clustered",
                    "min_position": posted.headers["x-log-position"],
                },
            )
            assert listed.status_code == 200, listed.text
            assert listed.json()["aggregates"] == {
                "total_cost": 5.0,
                "total_tokens": 220,
                "total_calls": 20,
                "models_used": ["m-0", "m-1", "m-2"],
            }
        room = await one.post("/v1/rooms", json={"name": "Shared", "slug": "shared"})
        assert room.is_success, room.text
        assert (await other.get("/v1/rooms/shared")).json()["data"]["name"] == "Shared"


async def test_a_price_set_in_one_process_is_used_by_the_other(cluster: Cluster) -> None:
    async with cluster.client(0) as one, cluster.client(1) as other:
        key = {"X-Wax-Key": cluster.made.api_key}
        started = await other.post(
            "/api/v1/observe/runs/start/", json={"agent_name": "priced"}, headers=key
        )
        path = f"/api/v1/observe/runs/{started.json()['run_id']}/llm-calls/"

        async def source() -> tuple[str, float]:
            """Where the cost of a call is from that the other process takes now, and the cost."""
            call = {"model": "acme/bolt:v1.0", "tokens_in": 10, "tokens_out": 1}
            posted = await other.post(path, json={"calls": [call]}, headers=key)
            position = {"min_position": posted.headers["x-log-position"]}
            calls = "/api/v1/observability/llm-calls/"
            asked = {**position, "agent": "priced", "limit": 1}
            newest = (await other.get(calls, params=asked)).json()["results"][0]
            detail = (await other.get(f"{calls}{newest['id']}/")).json()
            return detail["pricing"]["source"], detail["cost"]

        assert await source() == ("unpriced", 0.0)
        cost = {"input_cost_per_million": 1, "output_cost_per_million": 2}
        costs = "/api/v1/observe/model-costs/"
        put = await one.put(f"{costs}acme/bolt:v1.0/", json=cost, headers=key)
        assert put.status_code == 200, put.text
        rows = (await other.get(costs, headers=key)).json()["models"]
        assert put.json() in rows
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (found := await source()) == ("unpriced", 0.0):
                continue
        assert found == ("override", 12e-6)
        deleted = await one.delete(f"{costs}acme/bolt:v1.0/", headers=key)
        assert deleted.status_code == 204
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (found := await source()) == ("override", 12e-6):
                continue
        assert found == ("unpriced", 0.0)


async def test_a_user_erased_by_one_process_is_unknown_to_all(cluster: Cluster) -> None:
    async with cluster.client(0) as one, cluster.client(1) as other:
        key, user = {"X-Wax-Key": cluster.made.api_key}, "/api/v1/observability/users/grace/"
        body = {"agent_name": "clinic", "user_id": "grace", "inputs": {"of": "grace"}}

        async def start() -> dict[str, str]:
            """A run by either process; what to wait for."""
            started = [
                await sender.post("/api/v1/observe/runs/start/", json=body, headers=key)
                for sender in (one, other)
            ]
            return {"min_position": started[-1].headers["x-log-position"]}

        assert (await one.get(user, params=await start())).status_code == 200
        asked = (await one.delete(user)).json()
        path = f"/api/v1/observability/erasures/{asked['erasure_id']}/"
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (receipt := (await other.get(path)).json())["status"] != "completed":
                continue
        rows = {line["read_model"]: line["rows"] for line in receipt["read_models"]}
        assert rows["run_starts"] == 2
        for asker in (one, other):
            assert (await asker.get(user)).status_code == 404
        # Both have forgotten the key by now, or will in a moment: then the user shows again.
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (await other.get(user, params=await start())).status_code == 404:
                continue
        again = (await other.delete(user)).json()
        assert again["erasure_id"] != asked["erasure_id"]


async def test_an_export_made_in_one_process_is_downloaded_from_another(
    cluster: Cluster, tmp_path: Path
) -> None:
    async with cluster.client(0) as one, cluster.client(1) as other:
        asked = await one.post("/waxell/v1/audit/export/", json={"format": "json"})
        assert asked.is_success, asked.text
        path = f"/waxell/v1/audit/export/{asked.json()['export_id']}/"
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (found := (await other.get(path)).json())["status"] != "completed":
                assert found["status"] == "processing", found
                await asyncio.sleep(0.1)
        file = tmp_path / "trail.json"
        file.write_bytes((await other.get(found["download_url"])).raise_for_status().content)
        (chain,) = verify_file(file).chains
        assert (chain.tenant, chain.broken) == (cluster.made.tenant_id, None)
