"""A hard cap under 64 clients over HTTP while workers and the decider are killed again and again.

The oracle is a plain fold of the log, which knows nothing of the account's own arithmetic.
"""

import asyncio
import random
import signal
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

import httpx

from commands.fhe.pricing import price_of
from infra.config import Settings
from infra.kafka import create_topics
from tests.faults.departed import end_leases
from tests.faults.roles import RoleProcess
from tests.fhe_workers.clients import Client
from tests.integration.test_fhe import Fhe, WorkerProcess, X, api_on, cipher
from tests.loops import read_topic, talking

CLIENTS, JOBS_EACH = 64, 2
PRICE = price_of("add", "ckks-n13", 1, 0).amount
CAP = 80 * PRICE
CAPS = "/api/v1/billing/budget-caps"
KILLS_EACH = 2


class Processes:
    """A decider and a worker, each killed with SIGKILL and replaced when its time has come."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._stack = settings, AsyncExitStack()

    async def __aenter__(self) -> "Processes":
        await self._start_decider()
        await self._start_worker()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def kill_again_and_again(
        self, victim: str, clients: "Clients", chance: random.Random
    ) -> None:
        """Kill one whenever a random number of answers has come."""
        for _ in range(KILLS_EACH):
            await clients.more_answers(chance.randint(1, 30))
            await self.kill(victim)

    async def kill(self, victim: str) -> None:
        """Kill one, and return when another has taken its place."""
        if victim == "worker":
            await self._worker.kill()
            await self._start_worker()
        else:
            self._decider.signal(signal.SIGKILL)
            await asyncio.to_thread(self._decider.process.wait)
            await end_leases(self._settings)
            await self._start_decider()

    async def _start_decider(self) -> None:
        self._decider = self._stack.enter_context(RoleProcess(self._settings, ["decider"]))
        await asyncio.to_thread(self._decider.wait_ready)

    async def _start_worker(self) -> None:
        self._worker = await self._stack.enter_async_context(WorkerProcess(self._settings))


class Clients:
    """64 clients of one tenant; each repeats what it has no answer to, under the same key."""

    def __init__(self, fhe: Fhe, chance: random.Random) -> None:
        self._fhe, self._chance = fhe, chance
        self._answered = asyncio.Condition()
        self.answers, self.refused, self.delivered = 0, 0, 0

    async def until_answered(self, method: str, path: str, **request: Any) -> httpx.Response:
        """The first answer that says how it went."""
        while True:
            answer = await self._fhe.client.request(method, path, **request)
            if answer.status_code != 503:
                break
            await asyncio.sleep(0.1)  # as Retry-After asks, only sooner
        async with self._answered:
            self.answers += 1
            self._answered.notify_all()
        return answer

    async def more_answers(self, count: int) -> None:
        """Return when so many more answers have come, or all that are to be expected."""
        async with self._answered:
            wanted = min(self.answers + count, CLIENTS * JOBS_EACH)
            await self._answered.wait_for(lambda: self.answers >= wanted)

    async def client(self, number: int, key_id: str, handle: str) -> None:
        """Compute, and now and then cancel."""
        for turn in range(JOBS_EACH):
            value = float(number * JOBS_EACH + turn + 2)
            body = {"key_id": key_id, "operands": [{"handle": handle}, {"value": value}]}
            headers = {"Idempotency-Key": f"{number}-{turn}"}
            cancels = self._chance.random() < 0.2
            path = f"/api/v1/compute/add?wait={0 if cancels else 60}"
            answer = await self.until_answered("POST", path, json=body, headers=headers)
            while answer.status_code == 202 and not cancels:
                answer = await self.until_answered("POST", path, json=body, headers=headers)
            if answer.status_code == 402:
                self._check_refusal(answer.json()["error"])
            elif answer.status_code == 200:
                self.delivered += 1
            elif cancels:
                job = f"/api/v1/jobs/{answer.json()['job_id']}"
                ended = await self.until_answered("DELETE", job)
                assert ended.status_code in (200, 204, 409), ended.text

    def _check_refusal(self, error: dict[str, Any]) -> None:
        self.refused += 1
        assert error["code"] == "budget_cap_reached"


async def test_many_clients_on_one_cap_never_spend_beyond_it_whatever_is_killed(
    settings: Settings,
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    await create_topics(settings.kafka_bootstrap_servers, settings.partitions)
    async with talking(settings) as bus, api_on(settings, bus) as fhe, asyncio.timeout(170):
        async with Processes(settings) as processes:
            alice = Client()
            key_id = await fhe.upload(alice)
            cap = {"month": {"limit_nanodollars": CAP, "alert_percents": [50, 100]}}
            assert (await fhe.client.patch(CAPS, json=cap)).status_code == 200
            first = await fhe.compute("add", key_id, cipher(alice, X), {"value": 1.0})
            clients = Clients(fhe, chance)
            handle = first["result"]["handle"]
            async with asyncio.TaskGroup() as group:
                for number in range(CLIENTS):
                    group.create_task(clients.client(number, key_id, handle))
                for victim in ("worker", "decider"):
                    group.create_task(processes.kill_again_and_again(victim, clients, chance))
            stands = (await fhe.client.get(CAPS)).json()
        log = await read_topic(settings, "events", fhe.tenant)
    spent = folded(log, seed)
    assert spent <= CAP
    assert stands["month"]["spent_nanodollars"] == spent, f"seed {seed}"
    assert stands["reserved_nanodollars"] == 0, f"seed {seed}"
    assert clients.delivered * PRICE < spent + PRICE, f"seed {seed}: delivered and not paid"
    assert clients.refused > 0, "the cap was never felt"


def folded(log: Sequence[tuple[Any, Any]], seed: int) -> int:
    """What was spent: each charge ends once, none of them beyond the cap at any moment."""
    open_charges: dict[str, int] = {}
    ended: set[str] = set()
    spent = used = results = 0
    for headers, event in log:
        match headers["ce_type"]:
            case "billing.charge_reserved.v1":
                assert event.charge_id not in open_charges and event.charge_id not in ended
                open_charges[event.charge_id] = event.amount
            case "billing.charge_committed.v1":
                assert open_charges.pop(event.charge_id) == event.amount, f"seed {seed}"
                ended.add(event.charge_id)
                spent += event.amount
            case "billing.charge_released.v1":
                assert open_charges.pop(event.charge_id) == event.amount, f"seed {seed}"
                ended.add(event.charge_id)
            case "billing.usage_recorded.v1" if event.meter == "fhe.price_nanodollars":
                used += event.quantity
            case "fhe.job_succeeded.v1":
                results += 1
        assert spent + sum(open_charges.values()) <= CAP, f"seed {seed}"
    assert open_charges == {}, f"seed {seed}: reserved for ever"
    assert spent == used == results * PRICE, f"seed {seed}"
    reached = [
        event.percent
        for headers, event in log
        if headers["ce_type"] == "billing.cap_threshold_reached.v1"
    ]
    assert reached == [percent for percent in (50, 100) if spent * 100 >= CAP * percent]
    return spent
