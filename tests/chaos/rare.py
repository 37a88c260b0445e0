"""What happens rarely beside the load: tasks and who watches them, prompts, persons who are erased,
and reports without a key.

A few requests a second together, so that the load is what it was.
"""

import asyncio
import hashlib
import json
import random
from typing import Any

from tests.chaos.clients import PATIENCE_SECONDS, Client, Told
from tests.integration.webhook_rig import Receiver

PAUSE_SECONDS = 0.3
TASKS_PER_WATCHER = 5
UNKEYED = "unkeyed "
LABELS = ["production", "staging"]
OBSERVED = ["check_in.created", "check_in.claimed", "check_in.released", "check_in.decided"]


class Rare:
    """Actors that pause between what they do. secret: a text of persons, which the log never tells.

    receiver: where the webhooks of a watcher go.
    """

    def __init__(
        self,
        clients: dict[str, Client],
        seed: int,
        told: Told,
        stopping: asyncio.Event,
        receiver: Receiver,
    ) -> None:
        self._api, self._agent, self._human = (clients[name] for name in ("api", "agent", "human"))
        self._random, self._name, self._told = random.Random(f"rare {seed}"), f"rare-{seed}", told
        self._stopping, self._receiver = stopping, receiver
        self._room = self._url = ""

    async def prepare(self) -> None:
        """The room of the tasks, one who watches all of it, and one who wants the dangerous."""
        body = {"name": self._name}
        room = await self._human.call("POST", "/v1/rooms", f"{self._name}-room", body)
        self._room, self._url = room["data"]["id"], self._receiver.endpoint()
        self._told.webhooks = await self._watch("all", webhook_url=self._url)
        await self._watch("some", event_types=["check_in.created"], filter={"risk_level": "high"})

    async def run(self) -> None:
        """All of them, until stopped and until what they began has come to its end."""
        async with asyncio.TaskGroup() as group:
            for actor in (self._tasks, self._prompts, self._persons, self._unkeyed):
                group.create_task(actor())

    async def _pause(self) -> bool:
        """False when it is time to stop."""
        try:
            await asyncio.wait_for(self._stopping.wait(), PAUSE_SECONDS)
        except TimeoutError:
            return True
        return False

    async def _tasks(self) -> None:
        count, watcher = 0, ""
        while await self._pause():
            count += 1
            await self._task(f"{self._name}-task-{count}", self._random.choice(["low", "high"]))
            if count % TASKS_PER_WATCHER == 0:
                if watcher:
                    await self._agent.call("DELETE", f"/v1/watchers/{watcher}", f"un{watcher}")
                    self._told.watchers[watcher] = "removed"
                watcher = await self._watch(str(count))
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self._last_task()

    async def _task(self, name: str, risk: str) -> str:
        body = {"action": name, "risk_level": risk}
        posted = await self._human.call("POST", f"/v1/rooms/{self._room}/tasks", name, body)
        id = posted["data"]["id"]
        path, self._told.tasks[id] = f"/v1/check-ins/{id}", "pending"
        if self._random.random() < 0.75:
            await self._agent.call("POST", f"{path}/claim", f"{name}-claim")
            if self._random.random() < 0.3:
                await self._agent.call("POST", f"{path}/release", f"{name}-release")
                return str(id)
        verdict = self._random.choice(["approve", "reject"])
        await self._human.call("POST", f"{path}/{verdict}", f"{name}-end", {"reason": "so it is"})
        self._told.tasks[id] = {"approve": "approved", "reject": "rejected"}[verdict]
        return str(id)

    async def _watch(self, name: str, **changes: Any) -> str:
        body = {"event_types": OBSERVED, **changes}
        path = f"/v1/rooms/{self._room}/watch"
        made = await self._agent.call("POST", path, f"{self._name}-watch-{name}", body)
        id = str(made["data"]["id"])
        self._told.watchers[id] = "watching"
        return id

    async def _last_task(self) -> None:
        """One that is to be seen by all who watch: when they have seen it, they have seen all."""
        body = {"action": "the last one", "risk_level": "high"}
        path = f"/v1/rooms/{self._room}/tasks"
        posted = await self._human.call("POST", path, f"{self._name}-last", body)
        self._told.tasks[posted["data"]["id"]] = "pending"
        last = ""
        while not last:
            await asyncio.sleep(0.1)
            for received in self._receiver.at(self._url):
                if json.loads(received.body)["data"]["check_in_id"] == posted["data"]["id"]:
                    last = received.id
        self._told.received = [received.id for received in self._receiver.at(self._url)]
        waiting = {id for id, status in self._told.watchers.items() if status == "watching"}
        while waiting:
            await asyncio.sleep(0.1)
            for id in list(waiting):
                seen = await self._agent.call("GET", f"/v1/watchers/{id}", "")
                if seen["data"]["last_event_id"] == last:
                    waiting.discard(id)

    async def _prompts(self) -> None:
        count = 0
        while await self._pause():
            count += 1
            name = f"{self._name}-prompt-{count}"
            made = await self._human.call(
                "POST", "/api/v1/prompts/", name, {"name": name, "content": name}
            )
            path = f"/api/v1/prompts/{made['id']}"
            prompt = self._told.prompts[str(made["id"])]
            prompt.versions.append(_hash(name))
            for step in range(6):
                if not await self._pause():
                    return
                key, label = f"{name}-{step}", self._random.choice(LABELS)
                match self._random.randrange(3):
                    case 0:
                        content = {"b": [step, count], "a": name}
                        await self._human.call(
                            "POST", f"{path}/versions/", key, {"content": content}
                        )
                        prompt.versions.append(_hash(content))
                    case 1:
                        version = self._random.randint(1, len(prompt.versions))
                        body = {"version": version}
                        await self._human.call("PUT", f"{path}/labels/{label}/", key, body)
                        prompt.labels[label] = version
                    case 2 if label in prompt.labels:
                        await self._human.call("DELETE", f"{path}/labels/{label}/", key)
                        del prompt.labels[label]

    async def _persons(self) -> None:
        """Each has a run; two of three are erased, and every second of those comes again."""
        count = 0
        while await self._pause():
            count += 1
            user = f"{self._name}-person-{count}"
            run = await self._report(user, "first")
            if count % 3 == 0:
                continue
            path = f"/api/v1/observability/users/{user}/"
            erasure = await self._human.call("DELETE", path, f"{user}-erase")
            id = erasure["erasure_id"]
            while erasure["status"] != "completed":
                await asyncio.sleep(0.2)
                path = f"/api/v1/observability/erasures/{id}/"
                erasure = await self._human.call("GET", path, "")
            self._told.erasures.add(id)
            self._told.persons[run] = ""
            if count % 3 == 1:
                await self._report(user, "again")

    async def _unkeyed(self) -> None:
        """Each report is made twice, the second time when the first one was answered."""
        count = 0
        while await self._pause():
            count += 1
            body, path = {"agent_name": f"{UNKEYED}{count}"}, "/api/v1/observe/runs/start/"
            answers = [await self._api.call("POST", path, "", body) for _ in range(2)]
            self._told.unkeyed[body["agent_name"]] = {answer["run_id"] for answer in answers}

    async def _report(self, user: str, name: str) -> str:
        """A run for a user, with what is personal wherever it may be; its id."""
        secret, key = self._told.secret, f"{user}-{name}"
        body = {"agent_name": "clinic", "user_id": user, "inputs": {"told": secret}}
        started = await self._api.call("POST", "/api/v1/observe/runs/start/", key, body)
        run = str(started["run_id"])
        path = f"/api/v1/observe/runs/{run}"
        call = {"id": key, "model": "m", "tokens_in": 5, "tokens_out": 2, "prompt_preview": secret}
        call["cost"] = 0.0
        await self._api.call("POST", f"{path}/llm-calls/", f"{key}-calls", {"calls": [call]})
        self._told.reported(run, [call])
        self._told.persons[run] = user
        return run


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
