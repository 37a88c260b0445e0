"""Clients that work through kills, and the ledger of what they were told.

Each does what a careful client does: a key with every write, the same request again after a lost
answer or a 503, until it has an answer. A 5xx other than 503 ends the run: nothing may break.
"""

import asyncio
import base64
import random
from collections import defaultdict
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import httpx
import numpy as np

from tests.fhe_workers.clients import Client as KeyHolder

PATIENCE_SECONDS = 120.0
COSTS = [0.001175, 0.00002, 0.0, 0.35]


@dataclass
class Told:
    """What one run of the load was acknowledged."""

    calls: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    tokens: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    cost: dict[str, Decimal] = field(default_factory=lambda: defaultdict(Decimal))
    completed: set[str] = field(default_factory=set)
    check_ins: dict[str, str] = field(default_factory=dict)
    usage: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    jobs: set[str] = field(default_factory=set)
    requests: int = 0
    retries: int = 0


class Client:
    """One credential's HTTP client; every write carries a key and is repeated until answered."""

    def __init__(self, http: httpx.AsyncClient, headers: dict[str, str], told: Told) -> None:
        self._http, self._headers, self._told = http, headers, told

    async def call(self, method: str, path: str, key: str, body: Any = None) -> dict[str, Any]:
        """The JSON of the first 2xx answer. Raises AssertionError on what may never happen."""
        headers = {**self._headers, **({"Idempotency-Key": key} if key else {})}
        deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
        while True:
            self._told.requests += 1
            seen = "no answer"
            try:
                response = await self._http.request(method, path, json=body, headers=headers)
            except httpx.TransportError as error:
                seen = repr(error)
            else:
                if response.is_success:
                    return dict(response.json())
                seen = f"{response.status_code} {response.text}"
                assert response.status_code in (503, 429), f"{method} {path}: {seen}"
                assert "retry-after" in response.headers
            now = asyncio.get_running_loop().time()
            assert now < deadline, f"{method} {path} had no answer in time: {seen}"
            self._told.retries += 1
            await asyncio.sleep(0.2)


class Load:
    """The actors, on one tenant."""

    def __init__(self, credentials: Any, seed: int, told: Told) -> None:
        self._random = random.Random(seed)
        self._http = httpx.AsyncClient(
            base_url=credentials.url,
            timeout=10,
            limits=httpx.Limits(max_connections=64),
        )
        self.told, self._credentials, self._seed = told, credentials, seed
        self._key = {"X-Wax-Key": credentials.api_key}
        self.api = self._client(self._key)
        self.agent = self._client({"Authorization": f"Bearer {credentials.agent_key}"})
        self.human = self._client({"Authorization": f"Bearer {credentials.admin_token}"})
        self._stopping = asyncio.Event()
        self._room = self._key_id = ""
        self._holder = KeyHolder()

    def _client(self, headers: dict[str, str]) -> Client:
        return Client(self._http, headers, self.told)

    async def prepare(self) -> None:
        """The room that the agents ask in."""
        body = {"name": f"chaos {self._seed}"}
        room = await self.human.call("POST", "/v1/rooms", f"room-{self._seed}", body)
        self._room = room["data"]["id"]
        parts = {"Content-Type": "application/octet-stream", **self._key}
        answer = await self._http.post("/api/v1/keys", content=self._holder.relin, headers=parts)
        assert answer.status_code == 201, answer.text
        self._key_id = answer.json()["key_id"]

    def stop(self) -> None:
        """Let every actor finish what it began."""
        self._stopping.set()

    async def run(self) -> None:
        """All actors, until stopped."""
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(4):
                    group.create_task(self._runs(number))
                    group.create_task(self._approvals(number))
                for number in range(2):
                    group.create_task(self._usage(number))
                group.create_task(self._encrypted())
        finally:
            await self._http.aclose()

    async def _runs(self, actor: int) -> None:
        count = 0
        while not self._stopping.is_set():
            count += 1
            name = f"{self._seed}-run-{actor}-{count}"
            body = {"agent_name": f"agent-{actor}", "session_id": f"session-{actor}"}
            started = await self.api.call("POST", "/api/v1/observe/runs/start/", name, body)
            run = started["run_id"]
            path = f"/api/v1/observe/runs/{run}"
            await asyncio.gather(*(self._calls(run, path, name, part) for part in range(3)))
            steps = [
                {"id": f"s{n}", "step_name": f"step {n}", "output": {"n": n}} for n in range(2)
            ]
            await self.api.call("POST", f"{path}/steps/", f"{name}-steps", {"steps": steps})
            await self.api.call("POST", f"{path}/complete/", f"{name}-end", {"status": "success"})
            self.told.completed.add(run)

    async def _calls(self, run: str, path: str, name: str, part: int) -> None:
        calls = [
            {
                "id": f"{name}-{part}-{number}",
                "model": self._random.choice(["gpt-4o", "claude-3-5-sonnet"]),
                "tokens_in": self._random.randrange(1000),
                "tokens_out": self._random.randrange(1000),
                "cost": self._random.choice(COSTS),
            }
            for number in range(4)
        ]
        await self.api.call("POST", f"{path}/llm-calls/", f"{name}-{part}", {"calls": calls})
        self.told.calls[run] |= {call["id"] for call in calls}
        self.told.tokens[run] += sum(call["tokens_in"] + call["tokens_out"] for call in calls)
        self.told.cost[run] += sum(Decimal(repr(call["cost"])) for call in calls)

    async def _approvals(self, actor: int) -> None:
        count = 0
        while not self._stopping.is_set():
            count += 1
            name = f"{self._seed}-ask-{actor}-{count}"
            body = {"action": f"deploy {count}", "risk_level": "high", "context": {"n": count}}
            asked = await self.agent.call("POST", f"/v1/rooms/{self._room}/check-in", name, body)
            id = asked["data"]["id"]
            self.told.check_ins[id] = "pending"
            path = f"/v1/check-ins/{id}"
            match self._random.randrange(4):
                case 0:
                    await self.human.call("POST", f"{path}/approve", f"{name}-yes", {})
                    self.told.check_ins[id] = "approved"
                case 1:
                    reason = {"reason": "not today"}
                    await self.human.call("POST", f"{path}/reject", f"{name}-no", reason)
                    self.told.check_ins[id] = "rejected"
                case 2:
                    await self.agent.call("DELETE", path, f"{name}-back")
                    self.told.check_ins[id] = "withdrawn"

    async def _usage(self, actor: int) -> None:
        path = f"/api/v1/billing/tenants/{self._credentials.tenant_id}/usage"
        count = 0
        while not self._stopping.is_set():
            count += 1
            meter, quantity = self._random.choice(["api.calls", "gpu.seconds"]), count % 7 + 1
            body = {"meter": meter, "quantity": quantity}
            await self.human.call("POST", path, f"{self._seed}-use-{actor}-{count}", body)
            self.told.usage[meter] += quantity

    async def _encrypted(self) -> None:
        """One computation after the other; each result is decrypted and right."""
        values, count = np.array([0.5, -0.25, 1.0]), 0
        sealed = {"ciphertext": base64.b64encode(self._holder.encrypt(values)).decode()}
        while not self._stopping.is_set():
            count += 1
            body = {"key_id": self._key_id, "operands": [sealed, {"value": count}]}
            path, key = "/api/v1/compute/multiply?wait=0", f"{self._seed}-job-{count}"
            job = await self.api.call("POST", path, key, body)
            self.told.jobs.add(job["job_id"])
            while job["status"] not in ("succeeded", "failed"):
                await asyncio.sleep(0.2)
                job = await self.api.call("GET", f"/api/v1/jobs/{job['job_id']}", "")
            assert job["status"] == "succeeded", job
            result = self._holder.decrypt(base64.b64decode(job["result"]["ciphertext"]))[:3]
            assert np.abs(result - values * count).max() < 1e-3
