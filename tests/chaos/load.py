"""The load: agents report and ask, people decide, meters run; and what is rare beside it."""

import asyncio
import base64
import random
from typing import Any

import httpx
import numpy as np

from tests.chaos.clients import Client, Told
from tests.chaos.rare import Rare
from tests.fhe_workers.clients import Client as KeyHolder
from tests.integration.webhook_rig import Receiver

COSTS = [0.001175, 0.00002, 0.0, 0.35]


class Load:
    """The actors, on one tenant."""

    def __init__(self, credentials: Any, seed: int, told: Told, receiver: Receiver) -> None:
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
        clients = {"api": self.api, "agent": self.agent, "human": self.human}
        self._rare = Rare(clients, seed, told, self._stopping, receiver)

    def _client(self, headers: dict[str, str]) -> Client:
        return Client(self._http, headers, self.told)

    async def prepare(self) -> None:
        """The room that the agents ask in, their key, and what the rare ones need."""
        await self._rare.prepare()
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
                group.create_task(self._rare.run())
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
        self.told.reported(run, calls)

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
